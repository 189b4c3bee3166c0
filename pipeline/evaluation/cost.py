"""What a detector costs where it scores: time of an image, and room of a category."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from model.detector import Detector

MOST_IMAGES = 8


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one detector."""

    ms_per_image: float  # CPU time of an image alone, backbone included; on a GPU, of its clock
    megabytes: float  # of a category's heads in a file, 10^6 bytes


def measure_cost(detector: Detector, images: Sequence[NDArray[np.uint8]]) -> Cost | None:
    """Score some images one by one; None without any.

    Args:
        detector: ready to score.
        images: (H, W, 3), RGB, of the detector's size.
    """
    batches = [torch.from_numpy(pixels)[None] for pixels in images[:MOST_IMAGES]]
    if not batches:
        return None
    on_cpu = detector.backbone.is_on_cpu
    clock = time.process_time if on_cpu else time.perf_counter
    detector(batches[0])  # what is made once is made now
    started = clock()
    for batch in batches:
        scores, _ = detector(batch)
        scores.cpu()
    seconds = clock() - started
    return Cost(
        ms_per_image=1000 * seconds / len(batches),
        megabytes=detector.heads.stored_bytes / 1e6,
    )
