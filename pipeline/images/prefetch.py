"""Read many images at once, never more in memory than a small window."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 4  # items a thread: under way, or there before they are asked for
NUM_THREADS = 8  # fetching waits for the network; decoding leaves Python's lock


def read_ahead(
    read: Callable[[Item], Result], items: Iterable[Item], num_threads: int = NUM_THREADS
) -> Generator[Result, None, None]:
    """Yield ``read(item)`` in the order of ``items``, at most AHEAD a thread ahead."""
    source = iter(items)
    with ThreadPoolExecutor(num_threads) as pool:
        window: deque[Future[Result]] = deque(
            pool.submit(read, item) for item in islice(source, AHEAD * num_threads)
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


def read_as_ready(
    read: Callable[[Item], Result],
    items: Iterable[Item],
    num_threads: int = NUM_THREADS,
    ahead: int = AHEAD,
) -> Generator[Result, None, None]:
    """Yield ``read(item)`` as soon as it is there: nothing waits for one slow item.

    At most ``ahead`` a thread are under way or wait for the consumer.
    """
    source = iter(items)
    with ThreadPoolExecutor(num_threads) as pool:
        window = {pool.submit(read, item) for item in islice(source, ahead * num_threads)}
        try:
            while window:
                done, window = wait(window, return_when=FIRST_COMPLETED)
                while done:  # what the consumer has taken is not kept
                    window |= {pool.submit(read, item) for item in islice(source, 1)}
                    yield done.pop().result()
        finally:
            for waiting in window:
                waiting.cancel()
