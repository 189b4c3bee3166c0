"""A detector on disk and in memory: one file per category beside a shared backbone.

The file is safetensors: the folded head's tensors, and a JSON header that says which backbone,
preprocessing and levels they belong to. Loading refuses a file that does not fit.

Shapes: B images, H x W pixels of the crop, h x w patch grid.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.anomaly_map import anomaly_maps, image_scores, map_matrix
from model.backbone import BACKBONES, STRIDES, Backbone, BackboneConfig
from model.embedding import pool_levels
from model.errors import NightshiftError
from model.folding import FoldedHead
from model.preprocessing import Preprocessing

FORMAT_VERSION = 1
HEADER_KEY = "nightshift"


class DetectorFileError(NightshiftError):
    """A detector file is damaged, of another version, or of another backbone."""


@dataclass(frozen=True, kw_only=True)
class DetectorHeader:
    """What a head's tensors belong to."""

    backbone: str
    backbone_digest: str
    layers: tuple[int, ...]
    weights: str | None = None  # where the backbone's weights came from; None: its own source
    patch_size: int = 3
    preprocessing: Preprocessing
    detector: str = "simplenet"
    format_version: int = FORMAT_VERSION

    @property
    def grid(self) -> int:
        """Side of the finest level's patch grid."""
        return self.preprocessing.crop // STRIDES[self.layers[0]]

    @property
    def backbone_config(self) -> BackboneConfig:
        """How to load the backbone this head was trained on."""
        return BackboneConfig(name=self.backbone, layers=self.layers, weights=self.weights)


class Detector(nn.Module):
    """Backbone and folded head of one category: uint8 images in, scores and maps out."""

    rows: Tensor

    def __init__(self, backbone: Backbone, head: FoldedHead, header: DetectorHeader) -> None:
        """Join the parts.

        Raises:
            DetectorFileError: the head was trained on another backbone or other weights.
        """
        super().__init__()
        if backbone.digest != header.backbone_digest:
            raise DetectorFileError(
                f"the head was trained on {header.backbone} weights {header.backbone_digest[:12]}, "
                f"the backbone at hand is {backbone.config.name} {backbone.digest[:12]}. "
                f"Give the weights it was trained with, or onboard the category again."
            )
        self.backbone, self.head, self.header = backbone, head, header
        matrix = map_matrix(header.grid, header.preprocessing.crop)
        self.register_buffer("rows", matrix, persistent=False)

    @torch.inference_mode()
    def forward(self, images_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Return image scores (B,) and patch scores (B, h, w); higher is more anomalous."""
        pooled = pool_levels(self.backbone(images_BHWC), self.header.patch_size)
        return self.score_pooled(pooled)

    @torch.inference_mode()
    def score_pooled(self, pooled: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return what ``forward`` returns, from levels that are pooled already."""
        patch_scores = self.head(pooled)
        return image_scores(patch_scores), patch_scores

    @torch.inference_mode()
    def maps(self, patch_scores_Bhw: Tensor) -> Tensor:
        """Return anomaly maps (B, H, W) at the size of the crop."""
        return anomaly_maps(patch_scores_Bhw, self.rows, self.rows)


def save_detector(path: Path, head: FoldedHead, header: DetectorHeader) -> None:
    """Write a head and its header as one safetensors file."""
    from safetensors.torch import save_file  # noqa: PLC0415  only files need it

    tensors = {name: value.contiguous() for name, value in head.state_dict().items()}
    save_file(tensors, path, metadata={HEADER_KEY: json.dumps(asdict(header), sort_keys=True)})


def load_detector(path: Path) -> tuple[DetectorHeader, FoldedHead]:
    """Read what ``save_detector`` wrote.

    Raises:
        DetectorFileError: not such a file, a newer format, or tensors that do not fit the header.
    """
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DetectorFileError(f"{path} is not a readable detector file: {error}") from error
    header = _parse_header(path, metadata.get(HEADER_KEY))
    hidden = len(tensors.get("bias", ()))
    channels = [BACKBONES[header.backbone].channels[layer - 1] for layer in header.layers]
    head = FoldedHead(channels, hidden)
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    expected = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    if found != expected or not hidden:
        raise DetectorFileError(f"{path}: tensors {found} do not fit its header, {expected}.")
    head.load_state_dict(tensors)
    return header, head


def _parse_header(path: Path, text: str | None) -> DetectorHeader:
    """Return the header, checked field by field."""
    try:
        fields: dict[str, Any] = json.loads(text or "{}")
        version = fields.get("format_version")
        if version != FORMAT_VERSION:
            raise DetectorFileError(
                f"{path} has format version {version}, this Nightshift reads {FORMAT_VERSION}. "
                f"Onboard the category again, or use the release that wrote it."
            )
        fields["layers"] = tuple(fields["layers"])
        fields["preprocessing"] = Preprocessing(**fields["preprocessing"])
        header = DetectorHeader(**fields)
        header.backbone_config  # noqa: B018  checks the backbone's name and the layers
    except (KeyError, TypeError, ValueError) as error:
        raise DetectorFileError(f"{path} has a damaged header: {error}") from error
    return header
