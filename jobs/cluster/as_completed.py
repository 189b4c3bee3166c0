"""Wait for many tasks of a study, and show how far they are."""

from collections.abc import Iterator, Mapping
from typing import Any

import ray

from jobs.terminal.progress import Display

PLENTY = 10_000  # tasks to share a cluster out among: each gets the least there is


def as_completed(work: Mapping[str, Any], stage: str) -> Iterator[tuple[str, Any]]:
    """Yield the outcome of every task, or what it died of, as they come in."""
    running = {reference: key for key, reference in work.items()}
    with Display("tuning").shown() as display:
        while running:
            done, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
            for reference in done:
                key = running.pop(reference)
                try:
                    yield key, ray.get(reference)
                except Exception as error:  # noqa: BLE001  the caller knows what it means
                    yield key, error
            display.update({stage: (stage, len(work) - len(running), len(work))})
