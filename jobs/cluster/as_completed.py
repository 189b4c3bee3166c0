"""Start many Ray tasks, not too many at a time, and take each as it ends."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray

POLL_S = 0.5

Key = TypeVar("Key")


def as_completed(
    work: Iterable[tuple[Key, Callable[[], Any]]],
    in_flight: int | None = None,
    watch: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Key, Any]]:
    """Yield every key with the reference of its task once that has ended, well or not.

    Args:
        work: for each key what starts its task, in the order in which they are started.
        in_flight: tasks that run at a time; None: all of them.
        watch: called between looks at the tasks, twice a second at least.
    """
    waiting = deque(work)
    most = len(waiting) if in_flight is None else in_flight
    running: dict[Any, Key] = {}
    while waiting or running:
        while waiting and len(running) < most:
            key, start = waiting.popleft()
            running[start()] = key
        ended, _ = ray.wait(list(running), num_returns=1, timeout=POLL_S)
        for reference in ended:
            yield running.pop(reference), reference
        watch()
