"""A detector on disk and in memory: one file per category beside a shared backbone.

The file is safetensors: the heads' tensors, matrices in half precision, and a JSON header
that says which backbone, preprocessing and levels they belong to. Loading refuses a file that does
not fit.

Shapes: B images, H x W pixels of the crop, h x w patch grid.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.anomaly_map import anomaly_maps, map_matrix
from model.backbone import STRIDES, Backbone, BackboneConfig
from model.embedding import Embedding
from model.errors import CategoryFault
from model.int8 import Ranges, read_ranges
from model.kind import Heads, Images
from model.kinds import KINDS, read_heads
from model.label_head import LabelledHeads, is_labelled, of_kind, read_label_head
from model.mixed_batch import score_embedded, score_images
from model.precision import Precision
from model.preprocessing import Preprocessing
from model.zones import EVERYWHERE, Zones, read_zones

FORMAT_VERSION = 3  # of the header's fields and of what the tensors mean
NEXT_FORMAT = 4  # knows files of more than 8 bits or several pages, rectangles, int8, and tiles
LATEST_FORMAT = 5  # knows heads beside the kind's that learned from labels, and zones
HEADER_KEY = "nightshift"

DetectorParts = tuple["DetectorHeader", Heads]
Reader = Callable[[dict[str, Any], Mapping[str, Tensor]], DetectorParts]


class DetectorFileError(CategoryFault):
    """A detector file is damaged, of another version, or of another backbone."""


@dataclass(frozen=True, kw_only=True)
class DetectorHeader:
    """What a head's tensors belong to."""

    backbone: str
    backbone_digest: str
    layers: tuple[int, ...]
    weights: str | None = None  # where the backbone's weights came from; None: its own source
    embedding: Embedding = field(default_factory=Embedding)
    preprocessing: Preprocessing
    precision: Precision = "float32"  # numeric mode of the backbone
    ranges: Ranges | None = None  # by which it is rounded to int8
    detector: str = "simplenet"
    zones: Zones = EVERYWHERE  # of the finest grid

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the finest level's patch grid over a whole image."""
        height, width = self.preprocessing.view
        return height // STRIDES[self.layers[0]], width // STRIDES[self.layers[0]]

    @property
    def channels(self) -> tuple[int, ...]:
        """Width of each pooled level."""
        return self.embedding.channels(self.backbone_config.channels)

    @property
    def backbone_config(self) -> BackboneConfig:
        """How to load the backbone this head was trained on."""
        return BackboneConfig(
            name=self.backbone,
            layers=self.layers,
            weights=self.weights,
            precision=self.precision,
            ranges=self.ranges,
        )


class Detector(nn.Module):
    """Backbone and heads of one category: uint8 images in, scores and maps out."""

    rows: Tensor
    columns: Tensor

    def __init__(self, backbone: Backbone, heads: Heads, header: DetectorHeader) -> None:
        """Join the parts.

        Raises:
            DetectorFileError: the head was trained on another backbone, other weights or in another
                numeric mode.
        """
        super().__init__()
        refuse_other_backbone(backbone, header)
        self.backbone, self.heads, self.header = backbone, heads, header
        rows, columns = map(map_matrix, header.grid, header.preprocessing.view)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)

    @torch.inference_mode()
    def forward(self, images_BHWC: Images) -> tuple[Tensor, Tensor]:
        """Return image scores (B,) and patch scores (B, h, w); higher is more anomalous.

        Images that are cut into tiles may be of several sizes.
        """
        heads_B = [self.heads] * len(images_BHWC)
        return score_images(self.backbone, self.header.embedding, heads_B, images_BHWC)

    @torch.inference_mode()
    def score_embedded(self, pooled: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Return the bits that ``forward`` returns, from levels that are pooled already."""
        return score_embedded(self.heads, pooled, alone=self.backbone.is_on_cpu)

    @torch.inference_mode()
    def score_pooled(self, pooled: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Return what ``forward`` returns, from levels that are pooled already."""
        scores: tuple[Tensor, Tensor] = self.heads(pooled)
        return scores

    @torch.inference_mode()
    def maps(self, patch_scores_Bhw: Tensor) -> Tensor:
        """Return anomaly maps (B, H, W) at the size of the crop, or the view of a tiled image."""
        return anomaly_maps(patch_scores_Bhw, self.rows, self.columns)


def refuse_other_backbone(backbone: Backbone, header: DetectorHeader) -> None:
    """Raise DetectorFileError when heads belong to another backbone, weights or numeric mode."""
    if backbone.digest != header.backbone_digest:
        raise DetectorFileError(
            f"the head was trained on {header.backbone} weights {header.backbone_digest[:12]}, "
            f"the backbone at hand is {backbone.config.name} {backbone.digest[:12]}. "
            f"Give the weights it was trained with, or onboard the category again."
        )
    if backbone.config.precision != header.precision:
        raise DetectorFileError(
            f"the head was calibrated in {header.precision}, the backbone at hand computes in "
            f"{backbone.config.precision}. Load the backbone that the head's header describes."
        )
    if backbone.config.ranges != header.ranges:
        raise DetectorFileError(
            f"the head was calibrated in {header.precision} of other ranges than those by which "
            f"the backbone at hand is rounded. Load the backbone that the head's header describes."
        )


def save_detector(path: Path, heads: Heads, header: DetectorHeader) -> None:
    """Write the heads and their header as one safetensors file.

    Heads of ``RecipeTrainer.folded`` have matrices that are rounded already, so that the file
    scores exactly as they do.
    """
    from safetensors.torch import save_file  # noqa: PLC0415  only files need it

    tensors = {name: _stored(name, value) for name, value in heads.state_dict().items()}
    is_first = header.preprocessing.is_for_all_releases and header.ranges is None
    version = FORMAT_VERSION if is_first else NEXT_FORMAT
    has_zones = not header.zones.is_everywhere or header.preprocessing.drawn_on is not None
    is_latest = has_zones or isinstance(heads, LabelledHeads)
    fields = asdict(header) | {
        "preprocessing": header.preprocessing.to_json(),
        "format_version": LATEST_FORMAT if is_latest else version,
    }
    if header.zones.is_everywhere:
        del fields["zones"]
    if header.ranges is None:
        del fields["ranges"]
    save_file(tensors, path, metadata={HEADER_KEY: json.dumps(fields, sort_keys=True)})


def load_detector(path: Path) -> DetectorParts:
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
    try:
        fields: dict[str, Any] = json.loads(metadata.get(HEADER_KEY, "{}"))
        return _reader(path, fields.pop("format_version", None))(fields, tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise DetectorFileError(f"{path} has a damaged header or tensors: {error}") from error


def _stored(name: str, value: Tensor) -> Tensor:
    """Return a tensor as it is written: matrices in half precision, the rest in float32."""
    if value.dim() < 2:
        return value.contiguous()
    half = value.half().contiguous()
    assert torch.equal(half.float(), value), f"{name} is not rounded to half precision"
    return half


def _reader(path: Path, version: Any) -> Reader:
    """Return what reads a format version."""
    if version in READABLE:
        return READABLE[version]
    newer = isinstance(version, int) and version > max(READABLE)
    raise DetectorFileError(
        f"{path} has format version {version}, this Nightshift reads "
        f"{', '.join(map(str, READABLE))}. {'Upgrade to' if newer else 'Use'} the release that "
        f"wrote it, or onboard the category again."
    )


def _read(fields: dict[str, Any], tensors: Mapping[str, Tensor]) -> DetectorParts:
    """Read header and heads, every field and shape checked."""
    parts = {
        "layers": tuple(fields["layers"]),
        "embedding": Embedding(**fields["embedding"]),
        "preprocessing": Preprocessing.from_json(fields["preprocessing"]),
        "ranges": read_ranges(fields.get("ranges")),
        "zones": read_zones(fields.get("zones", {})),
    }
    header = DetectorHeader(**fields | parts)
    header.backbone_config  # noqa: B018  checks the backbone's name and the layers
    if header.precision == "int8" and header.ranges is None:
        raise ValueError("int8 without the ranges by which the backbone is rounded")
    if header.detector not in KINDS:
        raise ValueError(f"no detector {header.detector!r}; known: {', '.join(KINDS)}")
    values = {name: value.float() for name, value in tensors.items()}
    try:
        return header, _read_heads(values, header).with_zones(header.zones)
    except (KeyError, ValueError) as error:
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        raise ValueError(f"tensors {shapes} do not fit its header: {error}") from error


def _read_heads(values: Mapping[str, Tensor], header: DetectorHeader) -> Heads:
    read = partial(read_heads, header.detector, header.preprocessing.tiles)
    if not is_labelled(values):
        return read(values, header.channels)
    labels = read_label_head(values, header.channels)
    return LabelledHeads(read(of_kind(values), header.channels), labels)


# A later format adds its reader and keeps the others.
READABLE: dict[int, Reader] = dict.fromkeys((FORMAT_VERSION, NEXT_FORMAT, LATEST_FORMAT), _read)
