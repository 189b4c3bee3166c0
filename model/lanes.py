"""Small products side by side on several cores, and what makes an image's bits its own.

In which order a product is summed up depends on the kernel that PyTorch chooses for it. On a CPU
the choice is the same for every batch and on however many cores under three conditions, measured
with EfficientNet-Lite0, ResNet-18 and WideResNet-50 at 64, 128 and 224 pixels on 2 to 16 threads:
never one thread (which also takes a third more CPU time for 1x1 convolutions), never a lone image
in the backbone, and every image alone in the heads.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch

Result = TypeVar("Result")

LEAST_THREADS = 2
LEAST_IMAGES = 2
_making = threading.Lock()


@contextmanager
def enough_threads() -> Iterator[None]:
    """Let this thread's products be shared among at least two, for the block."""
    before = torch.get_num_threads()
    if before < LEAST_THREADS:
        torch.set_num_threads(LEAST_THREADS)
    try:
        yield
    finally:
        if before < LEAST_THREADS:
            torch.set_num_threads(before)


def side_by_side(compute: Callable[[slice], Result], runs: Sequence[slice]) -> list[Result]:
    """Return ``compute`` of all runs, in their order; as many at a time as torch may use threads.

    Products too small for all cores mostly wait for each other; in a lane of their own they need
    not.
    """
    num_lanes = torch.get_num_threads()
    alike = torch.inference_mode(torch.is_inference_mode_enabled())  # a mode is each thread's own
    with _making:
        lanes = _lanes(num_lanes)
    return list(lanes.map(alike(compute), runs))


@cache
def _lanes(num_lanes: int) -> ThreadPoolExecutor:
    lanes = ThreadPoolExecutor(num_lanes, "lanes", _begin)
    everybody = threading.Barrier(num_lanes)
    list(lanes.map(lambda _: everybody.wait(), range(num_lanes)))
    torch.set_num_threads(num_lanes)  # what a thread sets is also what later threads begin with
    return lanes


def _begin() -> None:
    torch.get_num_threads()  # a thread's first look at the number sets it to everybody's
    torch.set_num_threads(LEAST_THREADS)
