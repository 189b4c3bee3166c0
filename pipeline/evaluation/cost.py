"""What a detector costs where it scores: time of an image, and room of a category."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from model.detector import Detector
from model.preprocessing import Preprocessing
from pipeline.images.decode import read_image

MOST_IMAGES = 8


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one detector."""

    ms_per_image: float  # CPU time of an image alone, backbone included; on a GPU, of its clock
    megabytes: float  # of a category's heads in a file, 10^6 bytes


def measure_cost(detector: Detector, images: Iterable[NDArray[np.uint8]]) -> Cost | None:
    """Score some images (H, W, 3) one by one; None without any.

    They are RGB as the detector is given them: of its size, or to be cut. Only so many are asked
    for as are scored, and how long they take to read does not count.
    """
    on_cpu = detector.backbone.is_on_cpu
    clock = time.process_time if on_cpu else time.perf_counter
    num_images, seconds = 0, 0.0
    for pixels in islice(images, MOST_IMAGES):
        batch = torch.from_numpy(pixels)[None]
        if not num_images:
            detector(batch)  # what is made once is made now
        started = clock()
        scores, _ = detector(batch)
        scores.cpu()
        seconds += clock() - started
        num_images += 1
    if not num_images:
        return None
    return Cost(
        ms_per_image=1000 * seconds / num_images, megabytes=detector.heads.stored_bytes / 1e6
    )


def read_as_scored(
    uris: Iterable[str], preprocessing: Preprocessing
) -> Iterator[NDArray[np.uint8]]:
    """Yield those images that can be read as a night scores them: to be cut, the whole of each."""
    for uri in uris:
        pixels = read_image(uri, preprocessing).pixels
        if pixels is not None:
            yield pixels
