"""The engine of CPUs beside PyTorch, and int8 beside float32.

One image at a time on one thread, which is what every core does with its own images. Both sides
take turns, so that whatever slows the machine down slows both; CPU time is compared.
"""

import time
from collections.abc import Callable, Iterator

import torch

from model.backbone import Backbone, BackboneConfig
from tests.bench.gpu import Setting, make_detector, make_images
from tests.bench.measure import Ratio, alternate, in_fresh_process

# Least ratios: of AVX2, where PyTorch's own kernels are closer than where there is AVX-512.
TARGETS = {"efficientnet_lite0": 1.3, "resnet18": 1.05, "wide_resnet50_2": 1.0}
INT8_TARGETS = {"efficientnet_lite0": 1.2, "resnet18": 1.7, "wide_resnet50_2": 1.7}  # bare
HEADS = 0.8  # of a ratio, once both sides have heads, which no mode makes faster
NUM_IMAGES = 16
SIDE = 224


def engine() -> Iterator[Ratio]:
    """CPU time of an image in PyTorch over that in the engine, and of float32 over int8."""
    for name in TARGETS:
        yield from in_fresh_process(_ratios, name)


def _ratios(name: str) -> list[Ratio]:
    torch.set_num_threads(1)
    backbone = Backbone(BackboneConfig(name=name, weights="random"))
    images = make_images(NUM_IMAGES, SIDE)
    started = time.process_time()
    assert backbone.engine((SIDE, SIDE)) == "OpenVINO on cpu"
    loaded = f"engine loaded in {time.process_time() - started:.2f} s of CPU"
    started = time.process_time()
    rounded = backbone.in_precision("int8")
    rounded.engine((SIDE, SIDE))
    measured = f"rounded and loaded in {time.process_time() - started:.2f} s of CPU"
    small, large = (
        make_detector(Setting(backbone=name, side=SIDE), one) for one in (rounded, backbone)
    )
    return [
        _ratio(
            f"engine {name}",
            (lambda: _in_pytorch(backbone, images), lambda: backbone(images)),
            TARGETS[name],
            loaded,
        ),
        _ratio(
            f"int8 {name}",
            (lambda: backbone(images), lambda: rounded(images)),
            INT8_TARGETS[name],
            measured,
        ),
        _ratio(
            f"int8 {name} with heads",
            (lambda: large(images), lambda: small(images)),
            INT8_TARGETS[name] * HEADS,
            "heads included",
        ),
    ]


def _in_pytorch(backbone: Backbone, images_BHWC: torch.Tensor) -> None:
    with torch.inference_mode():
        for image in images_BHWC.split(1):
            backbone.levels(image)


def _ratio(
    name: str, sides: tuple[Callable[[], object], Callable[[], object]], target: float, more: str
) -> Ratio:
    ms = [1e3 * cost.cpu_s / NUM_IMAGES for cost in alternate(*sides)]
    detail = f"CPU ms/image {ms[0]:.1f}, {ms[1]:.1f}; {more}"
    return Ratio(name=name, value=ms[0] / ms[1], target=target, detail=detail)
