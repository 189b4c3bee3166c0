"""What many jobs are doing, shown while they work."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jobs.cluster.progress_board import DONE, FAILED, JobProgress

PLAIN_LINE_EVERY_S = 15.0
NAMED_IN_A_LINE = 8  # jobs


@dataclass
class Display:
    """Progress bars on a terminal, a plain line now and then elsewhere; always on stderr.

    Where it is told how many jobs there are, a bar counts them, and only those that work have bars
    of their own: a thousand fit into a terminal.
    """

    title: str
    num_jobs: int | None = None
    console: Console = field(default_factory=lambda: Console(file=sys.stderr))

    def __post_init__(self) -> None:
        columns = (TextColumn("{task.fields[job]:<20}"), TextColumn("{task.description:<12}"))
        self.bars = Progress(
            *(*columns, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()),
            *(TimeRemainingColumn(), TextColumn("{task.fields[note]}")),
            console=self.console,
        )
        self.tasks: dict[str, TaskID] = {}
        self.last_line = 0.0

    @contextmanager
    def shown(self) -> Iterator["Display"]:
        """Show the bars for the length of the block."""
        if not self.console.is_terminal:
            yield self
            return
        with self.bars:
            yield self

    def update(self, state: JobProgress, note: str = "") -> None:
        """Draw the state of all jobs; the note is about all of them."""
        ended = [stage for stage, _, _ in state.values() if stage in {DONE, FAILED}]
        shown = state
        if self.num_jobs is not None:
            shown = {job: word for job, word in state.items() if word[0] not in {DONE, FAILED}}
            note = f"{ended.count(FAILED)} failed" if FAILED in ended else note
        if self.console.is_terminal:
            self._draw(shown, len(ended), note)
        elif state:
            self._print(shown, len(ended), note)

    def _draw(self, shown: JobProgress, num_ended: int, note: str) -> None:
        bars = dict(shown)
        if self.num_jobs is not None:
            bars[self.title] = ("", num_ended, self.num_jobs)
        for job in [job for job in self.tasks if job not in bars]:
            self.bars.remove_task(self.tasks.pop(job))
        for job, (stage, done, total) in bars.items():
            if job not in self.tasks:
                self.tasks[job] = self.bars.add_task(stage, job=job, total=total, note="")
            own = note if self.num_jobs is None or job == self.title else ""
            self.bars.update(
                self.tasks[job], description=stage, completed=done, total=total, note=own
            )

    def _print(self, shown: JobProgress, num_ended: int, note: str) -> None:
        now = time.monotonic()
        if now - self.last_line < PLAIN_LINE_EVERY_S:
            return
        self.last_line = now
        words = [f"{job} {stage} {done}/{total}" for job, (stage, done, total) in shown.items()]
        words = [*words[:NAMED_IN_A_LINE], *([note] if note else [])]
        if self.num_jobs is not None:
            words.insert(0, f"{num_ended} of {self.num_jobs} done")
        self.console.print(f"{self.title}: " + ", ".join(words), highlight=False)
