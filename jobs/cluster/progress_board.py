"""What many jobs are doing, gathered in one place."""

import time
from typing import Any

import ray
from ray.exceptions import RayError

from jobs.cluster.beside import beside

REPORT_EVERY_S = 0.5  # a job tells no more often than this
READ_TIMEOUT_S = 2.0

JobProgress = dict[str, tuple[str, int, int]]  # by job: its stage, done and in all
DONE, FAILED = "done", "failed"  # the last stages


class ProgressBoard:
    """An actor that jobs tell how far they are."""

    def __init__(self) -> None:
        self.state: JobProgress = {}

    def tell(self, job: str, stage: str, done: int, total: int) -> None:
        """Note that ``job`` has done ``done`` of ``total`` in ``stage``."""
        self.state[job] = (stage, done, total)

    def read(self) -> JobProgress:
        """Return the last word of every job."""
        return self.state


def start_board() -> Any:
    """Return the handle of a fresh board, beside its reader."""
    return beside(ProgressBoard)


def read_board(board: Any) -> JobProgress:
    """Return the last word of every job; nothing while the board does not answer.

    Progress is only shown: work goes on without it.
    """
    try:
        words: JobProgress = ray.get(board.read.remote(), timeout=READ_TIMEOUT_S)
    except RayError:
        return {}
    return words


class Reporter:
    """A job's end of the board; drops what comes too fast."""

    def __init__(self, board: Any, job: str) -> None:
        self.board, self.job = board, job
        self.last = ("", 0.0)

    def tell(self, stage: str, done: int, total: int) -> None:
        """Report progress unless the same stage was reported a moment ago."""
        now = time.monotonic()
        is_new = stage != self.last[0] or done == total
        if is_new or now - self.last[1] >= REPORT_EVERY_S:
            self.last = (stage, now)
            self.board.tell.remote(self.job, stage, done, total)
