"""A worker's next category, made ready while this one trains.

Making ready is reading and decoding, which wait for storage and for CPUs; training on a GPU waits
for neither. One category is made ready at a time, so that a worker holds two at most.
"""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from threading import Thread
from typing import Any

from jobs.cluster.work_queue import Job
from model.errors import NightshiftError
from pipeline.onboarding.feature_cache import CacheTooSmall
from pipeline.onboarding.prepare import PreparedCategory

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A category ready to train."""

    prepared: PreparedCategory
    state: Mapping[str, Any] | None  # of its trainer, where an earlier one was cut off

    def taken_up(self) -> "Begun":
        """Return the same, with the time until now left out of what training takes."""
        now, prepared = time.monotonic(), self.prepared
        started = now - (prepared.embedded - prepared.started)
        return replace(self, prepared=replace(prepared, started=started, embedded=now))


class Ahead:
    """What makes jobs ready, one of them in a thread of its own."""

    def __init__(self, begin: Callable[[Job], Begun]) -> None:
        """Take what makes a job ready; it may be called by two threads at a time."""
        self._begin = begin
        self._name, self._begun = "", Future[Begun]()  # of the thread
        self._begun.cancel()

    def start(self, job: Job | None) -> None:
        """Make a job ready in the thread, if there is one and the thread is not at another."""
        if job is None or not self._begun.done():
            return
        self._name, self._begun = job.name, Future()
        Thread(target=self._work, args=(job, self._begun), name="ahead", daemon=True).start()

    def take(self, job: Job) -> Begun:
        """Return a job made ready, by the thread or now.

        Raises:
            Exception: whatever making it ready raises.
        """
        begun, is_ahead = self._begun, self._name == job.name
        if begun.done() or is_ahead:  # kept no longer: it may be large
            self._name, self._begun = "", Future()
            self._begun.cancel()
        if not is_ahead:
            return self._begin(job)
        try:
            return begun.result().taken_up()
        except Exception as error:
            if isinstance(error, NightshiftError) and not isinstance(error, CacheTooSmall):
                raise  # trying again would not help
            logger.info("%s is made ready once more, alone", job.name, exc_info=True)
        return self._begin(job)

    def _work(self, job: Job, begun: Future[Begun]) -> None:
        try:
            begun.set_result(self._begin(job))
        except BaseException as error:  # noqa: BLE001  whoever takes the job gets it
            begun.set_exception(error)
