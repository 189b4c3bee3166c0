"""What a backbone computes in where the catalogue leaves it open: whatever is faster here."""

import logging
import statistics
import time

import torch

from model.backbone import Backbone
from model.precision import has_bfloat16

PROBE_IMAGES, PROBE_ROUNDS = 8, 3
WORTHWHILE = 1.2  # times as fast bfloat16 must be to be chosen

logger = logging.getLogger(__name__)


@torch.inference_mode()
def choose_precision(backbone: Backbone, size: tuple[int, int]) -> Backbone:
    """Return a float32 backbone as it is or in bfloat16, whichever its device is faster in.

    Both take turns on the same images, of this height and width; whatever slows the machine down
    meanwhile slows both.
    """
    device = backbone.mean.device
    if not has_bfloat16(device):
        return backbone
    rounded = backbone.in_precision("bfloat16")
    images_BHWC = torch.zeros(PROBE_IMAGES, *size, 3, dtype=torch.uint8)
    seconds: list[tuple[float, float]] = []
    for _ in range(1 + PROBE_ROUNDS):  # the first round warms up
        seconds.append((_seconds(backbone, images_BHWC), _seconds(rounded, images_BHWC)))
    exact_s, rounded_s = (statistics.median(times) for times in zip(*seconds[1:], strict=True))
    chosen = rounded if is_worthwhile(exact_s, rounded_s) else backbone
    logger.info(
        "%s on %s: bfloat16 is %.1f times as fast as float32; taking %s",
        *(backbone.config.name, device.type, exact_s / rounded_s, chosen.config.precision),
    )
    return chosen


def is_worthwhile(exact_s: float, rounded_s: float) -> bool:
    """Whether bfloat16 saves enough of the time that a batch takes to be chosen."""
    return exact_s >= WORTHWHILE * rounded_s


def _seconds(backbone: Backbone, images_BHWC: torch.Tensor) -> float:
    """Return how long one batch takes; such images do not count as seen."""
    started = time.perf_counter()
    for level in backbone.compute(images_BHWC):
        level[0, 0, 0, 0].item()  # waits for a device that works on its own
    return time.perf_counter() - started
