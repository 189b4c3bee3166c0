"""Images side by side on several cores, each computed by one core alone.

However many threads share a product decides in which order its parts are summed up: an image
that two threads compute differs in its last bits from the same image computed by one. Here every
image is one thread's, so that it has the same bits on whatever machine; and cores that never wait
for each other are at least as fast as cores that share every product.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Result = TypeVar("Result")

MOST_IMAGES = 8  # of a run: products over more images are summed up in another order
_making = threading.Lock()


def side_by_side(compute: Callable[[slice], Result], num_images: int) -> list[Result]:
    """Return ``compute`` of runs of images that together are all of them, in their order.

    There are as many runs at a time as torch may use threads, and each has one.
    """
    num_threads = torch.get_num_threads()
    runs = list(_runs(num_images, num_threads))
    if num_threads == 1:
        return [compute(run) for run in runs]
    alike = torch.inference_mode(torch.is_inference_mode_enabled())  # a mode is each thread's own
    with _making:
        lanes = _lanes(num_threads)
    return list(lanes.map(alike(compute), runs))


def _runs(num_images: int, num_threads: int) -> Iterator[slice]:
    size = min(MOST_IMAGES, -(-num_images // num_threads))
    for start in range(0, num_images, size):
        yield slice(start, min(start + size, num_images))


@cache
def _lanes(num_threads: int) -> ThreadPoolExecutor:
    """Threads that compute alone, as many as a product would otherwise be shared among."""
    lanes = ThreadPoolExecutor(num_threads, "lanes", _compute_alone)
    everybody = threading.Barrier(num_threads)
    list(lanes.map(lambda _: everybody.wait(), range(num_threads)))
    torch.set_num_threads(num_threads)  # what a thread sets is also what later threads begin with
    return lanes


def _compute_alone() -> None:
    torch.get_num_threads()  # a thread's first look at the number sets it to everybody's
    torch.set_num_threads(1)
