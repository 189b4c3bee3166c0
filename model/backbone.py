"""Frozen, pretrained backbones behind one small interface.

A backbone turns uint8 images into the feature maps of the levels asked for and computes
nothing deeper. BatchNorm is folded into the convolutions once, at loading: it is exact, and the
same network then trains heads and scores images. Then it is brought to its numeric mode, which
``model/precision.py`` says more of. To add a backbone, add a line to BACKBONES.

Shapes: B images, H x W pixels or positions, C channels.
Source: SimpleNet, Liu et al. 2023 (arXiv:2303.15140), section 3.1.
"""

import copy
import itertools
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.cpu_engine import OPENVINO, PYTORCH, ForOneImage, for_one_image
from model.efficientnet_lite import EfficientNetLite0
from model.int8 import Ranges, measure_ranges, rounded
from model.made_images import made_images
from model.precision import PRECISIONS, Precision, disable_tf32, no_int8, require
from model.seeded import seeded
from model.thread_pool import map_threads
from model.weights import (
    RANDOM,
    StateDict,
    WeightsError,
    digest,
    load_into,
    packaged_efficientnet_lite0,
    read_weights,
    torchvision_weights,
)

STRIDES = {1: 4, 2: 8, 3: 16, 4: 32}
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
MADE_IMAGES = 32  # on which int8's ranges are measured

Trunk = Callable[[tuple[int, ...]], nn.Module]  # layers -> network returning {name: map}


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """What the catalogue's ``backbone:`` may name."""

    channels: tuple[int, int, int, int]  # of levels 1 to 4
    trunk: Trunk
    source: Callable[[], StateDict]  # its own pretrained weights
    mean: tuple[float, float, float] = IMAGENET_MEAN  # grey levels, 0 to 255
    std: tuple[float, float, float] = IMAGENET_STD


def _torchvision(name: str, weights: str) -> BackboneSpec:
    """Describe a torchvision residual network, cut behind the deepest level by its own extraction.

    torchvision takes seconds to import and not every detector needs it.
    """

    def trunk(layers: tuple[int, ...]) -> nn.Module:
        from torchvision.models import get_model  # noqa: PLC0415
        from torchvision.models.feature_extraction import create_feature_extractor  # noqa: PLC0415

        nodes = [f"layer{layer}" for layer in layers]
        extractor: nn.Module = create_feature_extractor(get_model(name, weights=None).eval(), nodes)
        return extractor

    widths = (64, 128, 256, 512) if name == "resnet18" else (256, 512, 1024, 2048)
    return BackboneSpec(channels=widths, trunk=trunk, source=torchvision_weights(weights))


BACKBONES = {
    "wide_resnet50_2": _torchvision("wide_resnet50_2", "Wide_ResNet50_2_Weights.IMAGENET1K_V1"),
    "resnet18": _torchvision("resnet18", "ResNet18_Weights.IMAGENET1K_V1"),
    "resnet50": _torchvision("resnet50", "ResNet50_Weights.IMAGENET1K_V1"),
    "resnet101": _torchvision("resnet101", "ResNet101_Weights.IMAGENET1K_V1"),
    "efficientnet_lite0": BackboneSpec(
        channels=(24, 40, 112, 320),
        trunk=EfficientNetLite0,
        source=packaged_efficientnet_lite0,
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
    ),
}


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Which frozen network, where its weights are and which of its levels are read."""

    name: str = "wide_resnet50_2"
    layers: tuple[int, ...] = (2, 3)  # any subset of 1..4, ascending
    weights: str | None = None  # None: the backbone's own; "random"; or a local file
    sha256: str | None = None  # of the weights file
    precision: Precision = "float32"  # numeric mode; images of another one go through it apart
    ranges: Ranges | None = None  # of int8; None: measured when the network is loaded

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)}; got {self.precision!r}"
            )
        if self.ranges is not None and self.precision != "int8":
            raise ValueError(f"ranges belong to int8, not to {self.precision}")
        if self.name not in BACKBONES:
            raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}; got {self.name!r}")
        if not self.layers or list(self.layers) != sorted(set(self.layers) & set(STRIDES)):
            raise ValueError(
                f"layers must be an ascending subset of {list(STRIDES)}, got {list(self.layers)}"
            )

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each level that is read."""
        return tuple(BACKBONES[self.name].channels[layer - 1] for layer in self.layers)


class Backbone(nn.Module):
    """A frozen network that maps uint8 images to level maps; it never trains."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.num_images_seen = 0  # proves that features are computed once per image
        spec = BACKBONES[config.name]
        with seeded(0):  # "random" is a known network too
            trunk = spec.trunk(config.layers).eval()
        if config.weights != RANDOM:
            load_into(trunk, _state(config, spec), config.name)
        self.digest = digest(trunk.state_dict())
        _fold_batch_norm(trunk)
        disable_tf32()
        self.trunk = trunk.requires_grad_(False).to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(spec.mean), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std), persistent=False)
        self._round()

    def in_precision(self, precision: Precision) -> "Backbone":
        """Return a copy in another numeric mode; only from float32 is it the network itself."""
        assert self.config.precision == "float32", "what was rounded does not come back"
        other = copy.deepcopy(self)
        other.config = replace(self.config, precision=precision)
        other._round()
        return other

    def _round(self) -> None:
        """Bring the network to its numeric mode."""
        if self.config.precision == "int8":
            ranges = self.config.ranges or self._measure_ranges()
            try:
                self.trunk = rounded(self.trunk, ranges)
            except ValueError as error:
                raise WeightsError(
                    f"{self.config.name} cannot be rounded to int8 as the detector says: {error}. "
                    f"Onboard the category again."
                ) from error
            self.config = replace(self.config, ranges=ranges)
        self.trunk.to(PRECISIONS[self.config.precision])

    def _measure_ranges(self) -> Ranges:
        pixels = (self._pixels(image) for image in made_images(MADE_IMAGES).split(1))
        return measure_ranges(self.trunk, pixels)

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode: statistics are frozen too."""
        return super().train(False)

    @torch.inference_mode()
    def forward(self, images_BHWC: Tensor) -> list[Tensor]:
        """Return one (B, C, H / stride, W / stride) map per level, finest first, in float32.

        On a CPU every image is computed alone, on one thread (``thread_pool.py``), in float32 by
        OpenVINO (``cpu_engine.py``): its features have the same bits in whatever batch and on
        however many cores. Images are uint8 RGB, H and W multiples of 32.

        Raises:
            PrecisionError: the device does not have the numeric mode.
        """
        self.admit(len(images_BHWC))
        return self.compute(images_BHWC)

    def compute(self, images_BHWC: Tensor) -> list[Tensor]:
        """Return what ``forward`` returns, of images that do not count as seen."""
        if not self.is_on_cpu:
            return self.levels(images_BHWC)
        maps = map_threads(self.for_one_image(images_BHWC.shape[1:3]), images_BHWC.split(1))
        return [torch.cat(level) for level in zip(*maps, strict=True)]

    @property
    def is_on_cpu(self) -> bool:
        """Whether images are computed one by one."""
        return self.mean.device.type == "cpu"

    def admit(self, num_images: int) -> None:
        """Count images that are about to be computed, if this device can.

        Raises:
            PrecisionError: the device does not have the numeric mode.
        """
        require(self.config.precision, self.mean.device)
        self.num_images_seen += num_images

    def for_one_image(self, size: Sequence[int]) -> ForOneImage:
        """Return what computes the levels of an image (1, H, W, 3) alone, on a CPU.

        It is called in ``map_threads``; this is not, because it asks how many threads there are.
        """
        return self._in_openvino(size) or self.levels

    def engine(self, size: Sequence[int]) -> str:
        """Say what computes images of a height and width, and on what: "OpenVINO on cpu".

        The last bit of a sum tips roundings over, and int8 has many: its engine is of one release
        and one kind of machine.

        Raises:
            PrecisionError: nothing here has the numeric mode.
        """
        require(self.config.precision, self.mean.device)
        name = OPENVINO if self.is_on_cpu and self._in_openvino(size) else PYTORCH
        device = self.mean.device.type
        if self.config.precision == "int8":
            return f"{name} {metadata.version('openvino')} on {platform.machine()} {device}"
        return f"{name} on {device}"

    def _in_openvino(self, size: Sequence[int]) -> ForOneImage | None:
        if self.config.precision == "bfloat16":
            return None
        config = self.config
        identity = f"{config.name} {config.layers} {self.digest} {config.ranges}"
        found = for_one_image(identity, lambda: _OneImage(self), size)
        if found is None and config.precision == "int8":
            raise no_int8("it cannot be used on this one (the log says why)")
        return found

    def levels(self, images_BHWC: Tensor) -> list[Tensor]:
        """Return what ``forward`` returns, in one pass of PyTorch that a graph can be traced of.

        In int8 it differs from ``forward`` by what sums in another order tip over.
        """
        maps = self.trunk(self._pixels(images_BHWC).to(PRECISIONS[self.config.precision])).values()
        return [level.float() for level in maps]

    def _pixels(self, images_BHWC: Tensor) -> Tensor:
        """Return images as the network reads them, (B, 3, H, W)."""
        width = images_BHWC.shape[2]
        # A row of pixels and colours at a time: three numbers at a time take four times as long.
        rows = images_BHWC.to(self.mean.device).flatten(2).float()
        rows = rows.sub_(self.mean.repeat(width)).div_(self.std.repeat(width))
        pixels: Tensor = rows.unflatten(2, (width, 3))
        return pixels.permute(0, 3, 1, 2)


class _OneImage(nn.Module):
    """Pixels of an image to maps with their channels last: what OpenVINO is given."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.trunk, self.mean, self.std = backbone.trunk, backbone.mean, backbone.std

    def forward(self, image_1HWC: Tensor) -> tuple[Tensor, ...]:
        pixels = ((image_1HWC.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        return tuple(level.permute(0, 2, 3, 1) for level in self.trunk(pixels).values())


def _state(config: BackboneConfig, spec: BackboneSpec) -> StateDict:
    if config.weights is None:
        return spec.source()
    if "://" in config.weights:
        raise WeightsError(f"{config.weights} must be fetched to a local file first.")
    return read_weights(Path(config.weights), config.sha256)


def _fold_batch_norm(network: nn.Module) -> None:
    """Fold every BatchNorm into the convolution registered right before it."""
    for parent in list(network.modules()):
        children = list(parent.named_children())
        for (conv_name, conv), (norm_name, norm) in itertools.pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, nn.Identity())
