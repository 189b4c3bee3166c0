"""What many jobs are doing, gathered in one place and shown while they work."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

REPORT_EVERY_S = 0.5  # a job tells no more often than this
PLAIN_LINE_EVERY_S = 15.0
READ_TIMEOUT_S = 2.0


class ProgressBoard:
    """An actor that jobs tell how far they are."""

    def __init__(self) -> None:
        self.state: dict[str, tuple[str, int, int]] = {}

    def tell(self, job: str, stage: str, done: int, total: int) -> None:
        """Note that ``job`` has done ``done`` of ``total`` in ``stage``."""
        self.state[job] = (stage, done, total)

    def read(self) -> dict[str, tuple[str, int, int]]:
        """Return the last word of every job."""
        return self.state


def start_board() -> Any:
    """Return the handle of a fresh board, beside its reader: no lost worker node takes it."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(num_cpus=0)(ProgressBoard).options(scheduling_strategy=here).remote()


def read_board(board: Any) -> dict[str, tuple[str, int, int]]:
    """Return the last word of every job; nothing while the board does not answer.

    Progress is only shown: work goes on without it.
    """
    try:
        words: dict[str, tuple[str, int, int]] = ray.get(
            board.read.remote(), timeout=READ_TIMEOUT_S
        )
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


@dataclass
class Display:
    """Progress bars on a terminal, a plain line now and then elsewhere; always on stderr."""

    title: str
    console: Console = field(default_factory=lambda: Console(file=sys.stderr))

    def __post_init__(self) -> None:
        columns = (TextColumn("{task.fields[job]:<20}"), TextColumn("{task.description:<12}"))
        self.bars = Progress(
            *(*columns, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()),
            *(TimeRemainingColumn(), TextColumn("{task.fields[note]}")),
            console=self.console,
        )
        self.tasks: dict[str, Any] = {}
        self.last_line = 0.0

    @contextmanager
    def shown(self) -> Iterator["Display"]:
        """Show the bars for the length of the block."""
        if not self.console.is_terminal:
            yield self
            return
        with self.bars:
            yield self

    def update(self, state: dict[str, tuple[str, int, int]], note: str = "") -> None:
        """Draw the state of all jobs; the note is about all of them."""
        if not self.console.is_terminal:
            self._plain(state, note)
            return
        for job, (stage, done, total) in state.items():
            if job not in self.tasks:
                self.tasks[job] = self.bars.add_task(stage, job=job, total=total, note="")
            self.bars.update(
                self.tasks[job], description=stage, completed=done, total=total, note=note
            )

    def _plain(self, state: dict[str, tuple[str, int, int]], note: str) -> None:
        now = time.monotonic()
        if state and now - self.last_line >= PLAIN_LINE_EVERY_S:
            self.last_line = now
            words = [f"{job} {stage} {done}/{total}" for job, (stage, done, total) in state.items()]
            words = [*words[:8], *([note] if note else [])]
            self.console.print(f"{self.title}: " + ", ".join(words), highlight=False)
