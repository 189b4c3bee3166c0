"""Retries with exponential backoff for a service that does not answer, and a circuit breaker."""

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
    """Calls again after growing, random pauses; opens the circuit after many failures in a row.

    One object that never comes is that object's trouble. Many in a row are the storage's: then
    every further image would wait as long, and the night had better stop.
    """

    attempts: int = 7
    first_pause_s: float = 0.5  # doubled after every attempt, and never the same for two threads
    longest_pause_s: float = 15.0
    max_failures: int = 16  # calls in a row whose last attempt failed; then nobody retries any more
    _failures: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def gave_up(self) -> bool:
        """Whether the storage as a whole must be taken for away."""
        return self._failures >= self.max_failures

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
                    self._note(self._failures + 1)
                    raise
                pause_s = min(self.first_pause_s * 2 ** (attempt - 1), self.longest_pause_s)
                time.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311  no secret
            else:
                self._note(0)
                return result
        raise AssertionError("the last attempt returns or raises")

    def _note(self, failures: int) -> None:
        with self._lock:
            self._failures = failures
