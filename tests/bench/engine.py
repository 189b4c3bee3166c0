"""The engine of CPUs beside PyTorch: ``python -m tests.bench.engine``.

One image at a time on one thread, which is what every core does with its own images. Both sides
take turns, so that whatever slows the machine down slows both; CPU time is compared.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from unittest.mock import patch

import torch
from rich.console import Console

from jobs.cluster.join import WORKER_ENVIRONMENT
from model import backbone as backbones
from model.backbone import Backbone, BackboneConfig
from tests.bench.gpu import Setting, make_detector, make_images
from tests.bench.measure import Ratio, alternate, in_fresh_process

# Least ratios: of AVX2, where PyTorch's own kernels are closer than where there is AVX-512.
TARGETS = {"efficientnet_lite0": 1.3, "resnet18": 1.05}
NUM_IMAGES = 32
SIDE = 224


def engine() -> Iterator[Ratio]:
    """CPU time of an image in PyTorch over that in the engine, with heads and without."""
    for name in TARGETS:
        yield from in_fresh_process(_ratios, name)


def _ratios(name: str) -> list[Ratio]:
    torch.set_num_threads(1)
    backbone = Backbone(BackboneConfig(name=name, weights="random"))
    images = make_images(NUM_IMAGES, SIDE)
    started = time.process_time()
    assert backbone.engine((SIDE, SIDE)) == "OpenVINO on cpu"
    loaded = f"loaded in {time.process_time() - started:.2f} s of CPU"
    detector = make_detector(Setting(backbone=name, side=SIDE), backbone)
    bare = _ratio(name, "", lambda: backbone(images), loaded)
    return [bare, _ratio(name, " with heads", lambda: detector(images), "heads included")]


def _ratio(name: str, what: str, compute: Callable[[], object], more: str) -> Ratio:
    def in_pytorch() -> None:
        with patch.object(backbones, "for_one_image", lambda *_: None):
            compute()

    pytorch, engine = alternate(in_pytorch, compute)
    ms = [1e3 * cost.cpu_s / NUM_IMAGES for cost in (pytorch, engine)]
    detail = f"CPU ms/image {ms[0]:.1f}, engine {ms[1]:.1f}; {more}"
    full, value = f"engine {name}{what}", ms[0] / ms[1]
    return Ratio(name=full, value=value, target=TARGETS[name], detail=detail)


def main() -> None:
    argparse.ArgumentParser(prog="python -m tests.bench.engine", description=__doc__).parse_args()
    os.environ.update(WORKER_ENVIRONMENT)
    console = Console(highlight=False, soft_wrap=True)
    for ratio in engine():
        console.print(ratio.line)


if __name__ == "__main__":
    main()
