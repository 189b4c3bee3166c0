"""How much may be decoded before it is scored: images that are cut into tiles are whole until then.

An image counts with the pixels of its tiles. Whoever is about to decode one waits while there are
too many; one that is larger than all that may wait is decoded when nothing else does.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Given = TypeVar("Given")
Result = TypeVar("Result")

MOST_PIXELS = 2**24  # of tiles: 256 of 256 x 256


class WaitingPixels:
    """Pixels of tiles that are decoded, or about to be, and not scored yet."""

    def __init__(self, most: int = MOST_PIXELS) -> None:
        self.most, self.num_pixels = most, 0
        self._changed = threading.Condition()
        self._is_over = False

    def begin(self) -> None:
        """Count anew: nothing waits yet, whatever became of what was scored before."""
        with self._changed:
            self.num_pixels, self._is_over = 0, False

    def add(self, num_pixels: int, *, waits: bool = True) -> None:
        """Wait until there is room for so many, and take it.

        Who holds room that is given back only after this takes more without waiting.
        """
        with self._changed:
            if waits:
                self._changed.wait_for(lambda: self._has_room(num_pixels))
            self.num_pixels += num_pixels

    def remove(self, num_pixels: int) -> None:
        """Give the room back."""
        with self._changed:
            self.num_pixels -= num_pixels
            self._changed.notify_all()

    @contextmanager
    def over_with_errors(self) -> Iterator[None]:
        """Let nobody wait any more once the block fails: nothing is going to be scored."""
        try:
            yield
        except BaseException:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()
            raise

    def guarded(self, function: Callable[[Given], Result]) -> Callable[[Given], Result]:
        """Return a function whose errors are told so."""

        def call(given: Given) -> Result:
            with self.over_with_errors():
                return function(given)

        return call

    def _has_room(self, num_pixels: int) -> bool:
        room = self.most - self.num_pixels
        return self._is_over or num_pixels <= room or self.num_pixels == 0
