"""Load a backbone wherever its weights are, and choose what it computes in."""

import dataclasses
import logging
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from model.backbone import Backbone, BackboneConfig
from model.precision import has_bfloat16
from pipeline import storage

PROBE_IMAGES, PROBE_ROUNDS = 8, 3
WORTHWHILE = 1.2  # times as fast bfloat16 must be to be chosen

logger = logging.getLogger(__name__)


def fetch_backbone(config: BackboneConfig) -> Backbone:
    """Load a frozen backbone; weights on object storage are fetched first.

    Raises:
        WeightsError, StorageError: there are none, or they are of another network.
    """
    if config.weights is None or "://" not in config.weights:
        return Backbone(config)
    with TemporaryDirectory(prefix="nightshift-weights-") as folder:
        path = Path(folder) / config.weights.rsplit("/", 1)[-1]
        path.write_bytes(storage.read_bytes(config.weights))
        return Backbone(dataclasses.replace(config, weights=str(path)))


@torch.inference_mode()
def choose_precision(backbone: Backbone, crop: int) -> Backbone:
    """Return a float32 backbone as it is or in bfloat16, whichever its device is faster in.

    Both take turns on the same images; whatever slows the machine down meanwhile slows both.
    """
    device = backbone.mean.device
    if not has_bfloat16(device):
        return backbone
    rounded = backbone.in_precision("bfloat16")
    images_BHWC = torch.zeros(PROBE_IMAGES, crop, crop, 3, dtype=torch.uint8)
    seconds: list[tuple[float, float]] = []
    for _ in range(1 + PROBE_ROUNDS):  # the first round warms up
        seconds.append((_seconds(backbone, images_BHWC), _seconds(rounded, images_BHWC)))
    exact_s, rounded_s = (statistics.median(times) for times in zip(*seconds[1:], strict=True))
    chosen = rounded if exact_s >= WORTHWHILE * rounded_s else backbone
    logger.info(
        "%s on %s: bfloat16 is %.1f times as fast as float32; taking %s",
        *(backbone.config.name, device.type, exact_s / rounded_s, chosen.config.precision),
    )
    return chosen


def _seconds(backbone: Backbone, images_BHWC: torch.Tensor) -> float:
    """Return how long one batch takes; such images do not count as seen."""
    started = time.perf_counter()
    for level in backbone.levels(images_BHWC):
        level[0, 0, 0, 0].item()  # waits for a device that works on its own
    return time.perf_counter() - started
