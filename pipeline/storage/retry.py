"""How long a night waits for a storage that does not answer, before it gives up."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from model.errors import ServiceAway

Result = TypeVar("Result")


@dataclass
class Retry:
    """Tries again with growing, random pauses; gives up for good when nothing works any more.

    One object that never comes is that object's trouble. Many in a row are the storage's: then
    every further image would wait as long, and the night had better stop.
    """

    attempts: int = 7
    first_pause_s: float = 0.5  # doubled after every attempt, and never the same for two threads
    longest_pause_s: float = 15.0
    max_given_up: int = 16  # in a row
    _given_up: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def gave_up(self) -> bool:
        """Whether the storage as a whole must be taken for away."""
        return self._given_up >= self.max_given_up

    def call(self, function: Callable[[], Result]) -> Result:
        """Return what ``function`` returns.

        Raises:
            ServiceAway: as often as it was tried.
        """
        for attempt in range(1, self.attempts + 1):
            try:
                result = function()
            except ServiceAway:
                if attempt == self.attempts or self.gave_up:
                    self._note(self._given_up + 1)
                    raise
                pause_s = min(self.first_pause_s * 2 ** (attempt - 1), self.longest_pause_s)
                time.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311  no secret
            else:
                self._note(0)
                return result
        raise AssertionError("the last attempt returns or raises")

    def _note(self, given_up: int) -> None:
        with self._lock:
            self._given_up = given_up
