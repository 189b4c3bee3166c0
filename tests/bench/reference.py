"""Side by side with the method as published and released, written plainly in ``tests/``."""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torchvision.models as zoo
from torch import Tensor

from model.backbone import Backbone, BackboneConfig
from model.detector import Detector, DetectorHeader
from model.folding import FoldedHeads
from model.preprocessing import Preprocessing
from model.recipe import PRESETS
from pipeline.catalogue.catalogue import Category
from pipeline.images.batches import read_all, stack
from pipeline.onboarding.prepare import prepare
from tests.bench.material import category, write_pictures
from tests.bench.measure import Ratio, alternate, in_fresh_process, peak_mib
from tests.support.folded_heads import empty_head
from tests.support.reference_simplenet import (
    ReferenceHead,
    ReferenceSimpleNet,
    Schedule,
    official_optimisers,
)

SIDE = 288  # pixels, as in the released code
OUR_BATCH, REFERENCE_BATCH = 8, 4
# Of the two peaks whose difference is the memory of an image; both far above an empty process.
BATCHES = {"ours": (16, 32), "reference": (2, 4)}
SHARED = Path(__file__).resolve().parents[3] / "shared"  # real images beside the checkout, if any
NUM_TEXTURES = 64


def inference_vs_reference() -> Iterator[Ratio]:
    """Image to score and map with WideResNet-50 at 288: images/s, and memory per image."""
    yield in_fresh_process(_inference_speed)
    ours, reference = _memory_per_image("ours"), _memory_per_image("reference")
    detail = f"{ours:.0f} MiB/image, reference {reference:.0f}"
    yield Ratio(
        name="inference_vs_reference memory",
        value=ours / reference,
        target=0.2,
        at_most=True,
        detail=detail,
    )


def training_vs_reference() -> Iterator[Ratio]:
    """Wall time of a whole training over that of a loop that embeds anew in every pass.

    Both see every image as often as our preset's number of passes. One pass of the loop is
    timed and multiplied: its passes are all alike. It is given its images decoded.
    """
    yield in_fresh_process(_training_speed)


def _inference_speed() -> Ratio:
    ours, reference = _our_prediction(), _reference_prediction()
    images = torch.zeros(OUR_BATCH, SIDE, SIDE, 3, dtype=torch.uint8).random_(256)
    planes = torch.randn(REFERENCE_BATCH, 3, SIDE, SIDE)
    fast, slow = alternate(lambda: ours(images), lambda: reference(planes), rounds=3)
    fast_s, slow_s = fast.wall_s / OUR_BATCH, slow.wall_s / REFERENCE_BATCH
    cpu = f"CPU {slow.cpu_s / REFERENCE_BATCH / fast.cpu_s * OUR_BATCH:.1f}x"
    detail = f"{1 / fast_s:.2f} images/s, reference {1 / slow_s:.2f}; {cpu}"
    return Ratio(
        name="inference_vs_reference speed", value=slow_s / fast_s, target=4, detail=detail
    )


def _memory_per_image(which: str) -> float:
    """What one more image in a batch adds to the peak of a process that predicts one batch."""
    few, many = BATCHES[which]
    peaks = [in_fresh_process(_peak, which, size) for size in (few, many)]
    return (peaks[1] - peaks[0]) / (many - few)


def _peak(which: str, size: int) -> float:
    if which == "ours":
        _our_prediction()(torch.zeros(size, SIDE, SIDE, 3, dtype=torch.uint8))
    else:
        _reference_prediction()(torch.zeros(size, 3, SIDE, SIDE))
    return peak_mib()


def _our_prediction() -> Callable[[Tensor], object]:
    config = BackboneConfig(name="wide_resnet50_2", weights="random")
    backbone = Backbone(config)
    header = DetectorHeader(
        backbone=config.name,
        backbone_digest=backbone.digest,
        layers=config.layers,
        weights=config.weights,
        preprocessing=Preprocessing(resize=329, crop=SIDE),
    )
    shape = PRESETS["default"].recipe.patch.head
    head = empty_head(header.channels, shape.members * shape.hidden)
    for buffer in (*head.weights, head.bias, head.output):
        buffer.normal_()
    detector = Detector(backbone, FoldedHeads(head, None), header)
    return lambda images: detector.maps(detector(images)[1])


def _reference_prediction() -> Callable[[Tensor], object]:
    network = ReferenceSimpleNet(zoo.wide_resnet50_2(weights=None), ReferenceHead())
    return lambda images: network.predict(images, upsample_features=True)


def _training_speed() -> Ratio:
    with tempfile.TemporaryDirectory() as scratch:
        trained = _bottle() or category(
            write_pictures(Path(scratch, "good"), NUM_TEXTURES, "png"), "resnet18"
        )
        started = time.perf_counter()
        prepared = prepare(trained)
        for _ in prepared.trainer.run():
            pass
        ours_s = time.perf_counter() - started
        uris = prepared.good.uris
        images = stack(list(read_all(uris, trained.preprocessing)))
    passes = trained.recipe.patch.passes
    pass_s = _reference_pass_s((images.permute(0, 3, 1, 2) / 255 - 0.45) / 0.225)
    detail = f"{trained.name}, {len(uris)} images, {passes} passes: {ours_s:.0f} s, "
    detail += f"reference {passes} x {pass_s:.1f} s"
    value = passes * pass_s / ours_s
    return Ratio(name="training_vs_reference", value=value, target=5, detail=detail)


def _reference_pass_s(planes: Tensor) -> float:
    network = ReferenceSimpleNet(zoo.resnet18(weights=None), ReferenceHead())
    schedule = Schedule(passes=1)
    optimisers = official_optimisers(network.head)
    network.fit(planes[:8], schedule, optimisers)  # warm
    started = time.perf_counter()
    network.fit(planes, dataclasses.replace(schedule, passes=1), optimisers)
    return time.perf_counter() - started


def _bottle() -> Category | None:
    weights = SHARED / "weights/resnet18_to_layer3.pth"
    images = SHARED / "data/bottle"
    if not (weights.exists() and images.exists()):
        return None
    settings = {"backbone": "resnet18", "weights": str(weights), "false_alarm_rate": 0.05}
    return Category.model_validate({"name": "bottle", "images": str(images), **settings})
