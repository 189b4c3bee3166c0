"""Many images side by side on the cores of a CPU, each of them on one thread.

In which order a product is summed up depends on the kernel that PyTorch chooses, and the choice
depends on the size of the batch, on the number of threads and on the processor. An image that is
computed alone, on one thread, meets the same kernels in the same order whatever its company and
however many cores there are: its bits are its own by construction. It costs nothing: cores that
share one image wait for each other, cores with an image each do not.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_creating = threading.Lock()


def map_threads(compute: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return ``compute`` of every item, in order; each is computed on one thread.

    As many are computed at a time as the calling thread may use threads in torch. ``compute`` may
    call this function itself: the inner items are then computed one after the other.
    """
    num_threads = torch.get_num_threads()
    if num_threads == 1:
        return [compute(item) for item in items]
    mode = torch.inference_mode(torch.is_inference_mode_enabled())  # modes belong to a thread
    with _creating:
        pool = _pool(num_threads)
    return list(pool.map(mode(compute), items))


@cache
def _pool(num_threads: int) -> ThreadPoolExecutor:
    """Start all threads at once: later threads of the process begin with what these set last."""
    pool = ThreadPoolExecutor(num_threads, "images", _use_one_thread)
    everybody = threading.Barrier(num_threads)
    list(pool.map(lambda _: everybody.wait(), range(num_threads)))
    torch.set_num_threads(num_threads)
    return pool


def _use_one_thread() -> None:
    torch.get_num_threads()  # a thread's first look at the number sets it to everybody's
    torch.set_num_threads(1)
