"""``python -m tests.bench.gpu``: what ``model/`` does on a GPU, for which it needs torch alone.

Scores beside those of the CPU, images/s of the whole folded network as it is, compiled and captured
in a CUDA graph, and the time of a whole training. Weights are random: no accuracy is claimed.
"""

import argparse
import copy
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from model.anomaly_map import anomaly_maps
from model.backbone import STRIDES, Backbone, BackboneConfig
from model.detector import Detector, DetectorHeader
from model.embedding import Embedding, mean_levels
from model.feature_bank import FeatureBank
from model.folding import FoldedHeads
from model.kind import TrainingSet
from model.preprocessing import Preprocessing
from model.recipe import PRESETS, Recipe, RecipeTrainer
from tests.support.folded_heads import empty_head

# Largest difference to the CPU's scores, in units of good images' spread. What a sum's order moves
# by the last bit tips a few roundings over: of pooled features, and in bfloat16 of every layer.
TOLERANCE = {"float32": 0.02, "bfloat16": 0.25}
WARM_UP = 3


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How large everything is."""

    backbone: str = "wide_resnet50_2"
    side: int = 288
    batch: int = 128
    rounds: int = 20
    training_side: int = 224
    training_images: int = 250
    passes: int = 160  # of the patch head
    image_passes: int | None = None  # None: the preset's own


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number; ``target`` is the least, or with ``at_most`` the most, that will do."""

    name: str
    value: float
    unit: str
    target: float | None = None
    at_most: bool = False


class Network(nn.Module):
    """Image to score and map as one module."""

    def __init__(self, detector: Detector, dtype: torch.dtype) -> None:
        super().__init__()
        self.detector = detector
        detector.backbone.trunk.to(dtype)
        self.dtype = dtype

    def forward(self, images_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (B,) and maps (B, H, W)."""
        detector = self.detector
        backbone = detector.backbone
        pixels = (images_BHWC.float() - backbone.mean) / backbone.std
        levels = backbone.trunk(pixels.permute(0, 3, 1, 2).to(self.dtype)).values()
        pooled = detector.header.embedding.pool([level.float() for level in levels])
        scores, patch_scores = detector.heads(pooled)
        return scores, anomaly_maps(patch_scores, detector.rows, detector.rows)


def make_detector(setting: Setting, backbone: Backbone) -> Detector:
    """Heads of the default preset's shape with random weights, scaled by some random images."""
    header = DetectorHeader(
        backbone=setting.backbone,
        backbone_digest=backbone.digest,
        layers=backbone.config.layers,
        weights="random",
        precision=backbone.config.precision,
        ranges=backbone.config.ranges,
        preprocessing=Preprocessing(resize=setting.side, crop=setting.side),
    )
    recipe = PRESETS["default"].recipe
    assert recipe.image is not None
    generator = torch.Generator().manual_seed(0)
    heads = []
    for shape in (recipe.patch.head, recipe.image.head):
        head = empty_head(header.channels, shape.members * shape.hidden)
        for buffer in (*head.weights, head.bias, head.output):
            buffer.copy_(torch.randn(buffer.shape, generator=generator))
        head.round_to_half()
        heads.append(head)
    levels = header.embedding.pool(backbone(make_images(8, setting.side)))
    heads[0].set_scale(heads[0](levels).flatten(1).amax(dim=1))
    heads[1].set_scale(heads[1](mean_levels(levels)).flatten())
    return Detector(backbone, FoldedHeads(*heads), header)


def make_images(count: int, side: int) -> Tensor:
    """Coarse noise, so that images differ in more than their grain."""
    generator = torch.Generator().manual_seed(count)
    coarse = torch.rand(count, 3, side // 32, side // 32, generator=generator) * 255
    fine = nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return fine.permute(0, 2, 3, 1).to(torch.uint8).contiguous()


def agreement(setting: Setting, device: torch.device) -> Iterator[Figure]:
    """Scores on a device beside those of the CPU in the same numeric mode."""
    exact = Backbone(BackboneConfig(name=setting.backbone, weights="random"))
    images = make_images(4, setting.side)
    for precision in ("float32", "bfloat16"):
        backbone = exact if precision == "float32" else exact.in_precision("bfloat16")
        detector = make_detector(setting, backbone)
        expected, _ = detector(images)
        found, _ = copy.deepcopy(detector).to(device)(images)
        yield Figure(
            name=f"{precision} scores, largest difference to the CPU's",
            value=(found.cpu() - expected).abs().max().item(),
            unit="spreads of good images",
            target=TOLERANCE[precision],
            at_most=True,
        )


@torch.inference_mode()
def throughput(setting: Setting, device: torch.device) -> Iterator[Figure]:
    """Images/s from pixels on the device to scores and maps."""
    images = make_images(setting.batch, setting.side).to(device)
    exact = Backbone(BackboneConfig(name=setting.backbone, weights="random"))
    for dtype in (torch.bfloat16, torch.float16):
        detector = make_detector(setting, copy.deepcopy(exact)).to(device)
        network = Network(detector, dtype).eval()
        for name, call in _ways(network, images):
            yield Figure(
                name=f"{setting.backbone} {setting.side} px, {str(dtype)[6:]}, {name}",
                value=len(images) / _seconds(call, setting.rounds, device),
                unit="images/s",
                target=None if name == "plain" else 2000,
            )


def _ways(network: Network, images: Tensor) -> Iterator[tuple[str, Callable[[], object]]]:
    yield "plain", lambda: network(images)
    if images.device.type != "cuda":
        return
    yield "in a CUDA graph", _captured(network, images)
    compiled = torch.compile(network)
    compiled(images)
    yield "compiled, in a CUDA graph", _captured(compiled, images)


def _captured(network: Callable[[Tensor], object], images: Tensor) -> Callable[[], object]:
    """Return a replay of one forward pass, as a stream of kernels without Python between them."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            network(images)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        network(images)
    return graph.replay


def _seconds(call: Callable[[], object], rounds: int, device: torch.device) -> float:
    """Return the mean time of one call."""
    for _ in range(WARM_UP):
        call()
    _wait(device)
    started = time.perf_counter()
    for _ in range(rounds):
        call()
    _wait(device)
    return (time.perf_counter() - started) / rounds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def training(setting: Setting, device: torch.device) -> Iterator[Figure]:
    """Seconds from images on the host to folded heads, with so many passes of the patch head."""
    config = BackboneConfig(name=setting.backbone, weights="random", precision="bfloat16")
    backbone = Backbone(config).to(device)
    images = make_images(setting.training_images, setting.training_side)
    for name in ("default", "paper"):
        recipe = _with_passes(PRESETS[name].recipe, setting)
        embed(backbone, images[:8], device)  # warm
        _wait(device)
        started = time.perf_counter()
        places = torch.arange(len(images))
        bank = embed(backbone, images, device)
        folds = places % recipe.members
        trainer = RecipeTrainer(TrainingSet(bank=bank, images=places, folds=folds), recipe)
        for _ in trainer.run():
            pass
        trainer.folded()
        _wait(device)
        yield Figure(
            name=f"{setting.passes} passes of `{name}`, {len(images)} images",
            value=time.perf_counter() - started,
            unit="s",
            target=15,
            at_most=True,
        )


def embed(backbone: Backbone, images: Tensor, device: torch.device) -> FeatureBank:
    """Return the features of images, a few at a time."""
    embedding, side = Embedding(), images.shape[1]
    widths = embedding.channels(backbone.config.channels)
    shapes = [
        (width, side // STRIDES[layer], side // STRIDES[layer])
        for width, layer in zip(widths, backbone.config.layers, strict=True)
    ]
    bank = FeatureBank(len(images), shapes, device)
    for first in range(0, len(images), 16):
        bank.write(first, embedding.pool(backbone(images[first : first + 16])))
    return bank


def _with_passes(recipe: Recipe, setting: Setting) -> Recipe:
    image = recipe.image
    if image is not None and setting.image_passes is not None:
        image = replace(image, passes=setting.image_passes)
    return replace(recipe, patch=replace(recipe.patch, passes=setting.passes), image=image)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description=__doc__)
    parser.add_argument("--ready", action="store_true", help="ready pixels to scores, nothing else")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        say("skipped: PyTorch sees no CUDA device on this machine")
        return
    device, setting = torch.device("cuda"), Setting()
    machine = f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, {platform.node()}"
    say(machine)
    figures = []
    from tests.bench.gpu_ready import ready

    for measure in (ready,) if arguments.ready else (agreement, throughput, training, ready):
        for figure in measure(setting, device):
            figures.append(asdict(figure))
            say(f"{figure.name:<80}{figure.value:>12.4g} {figure.unit}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "figures": figures}, indent=2))


if __name__ == "__main__":
    main()
