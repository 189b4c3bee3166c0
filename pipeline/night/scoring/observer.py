"""Where the time of a night goes: an observer is told, and may pass it on."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Observer:
    """Hears what happens to images on their way; this one forgets it."""

    def took(self, stage: str, seconds: float) -> None:
        """One image, or one batch or object, took this long in a stage."""

    def waiting(self, num_images: int) -> None:
        """So many images are on their way right now."""

    def finished(self, status: str, num_images: int, num_flagged: int) -> None:
        """So many images have their row."""


@contextmanager
def timed(observer: Observer, stage: str) -> Iterator[None]:
    """Tell the observer how long the block took."""
    started = time.monotonic()
    try:
        yield
    finally:
        observer.took(stage, time.monotonic() - started)
