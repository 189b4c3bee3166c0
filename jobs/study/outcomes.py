"""Wait for many tasks of a study, and show how far they are."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ray

from jobs.cluster.as_completed import as_completed
from jobs.terminal.progress import Display

PLENTY = 10_000  # tasks to share a cluster out among: each gets the least there is


def outcomes(work: Mapping[str, Callable[[], Any]], stage: str) -> Iterator[tuple[str, Any]]:
    """Yield the outcome of every task, or what it died of, as they come in."""
    with Display("tuning").shown() as display:
        for number, (key, reference) in enumerate(as_completed(work.items()), start=1):
            try:
                yield key, ray.get(reference)
            except Exception as error:  # noqa: BLE001  the caller knows what it means
                yield key, error
            display.update({stage: (stage, number, len(work))})
