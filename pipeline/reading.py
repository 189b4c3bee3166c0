"""Read many images at once, in order, never more in memory than a small window."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

NUM_THREADS = 8  # fetching waits for the network; decoding leaves Python's lock


def read_ahead(
    read: Callable[[Item], Result], items: Iterable[Item], num_threads: int = NUM_THREADS
) -> Iterator[Result]:
    """Yield ``read(item)`` in the order of ``items``, at most 4 a thread ahead of the consumer."""
    source = iter(items)
    with ThreadPoolExecutor(num_threads) as pool:
        window: deque[Future[Result]] = deque(
            pool.submit(read, item) for item in islice(source, 4 * num_threads)
        )
        try:
            while window:
                done = window.popleft()
                for item in islice(source, 1):
                    window.append(pool.submit(read, item))
                yield done.result()
        finally:
            for waiting in window:
                waiting.cancel()


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of ``size`` items; the last may be shorter."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch
