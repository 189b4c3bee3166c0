"""Looks at jobs on a local Ray cluster from outside: how far they are, and in which process."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from jobs.cluster.beside import beside
from pipeline import storage
from pipeline.onboarding.unfinished import STATE_FILE

PATIENCE_S = 300.0
LOOK_EVERY_S = 0.05  # a look asks Ray or a storage, and they should be busy with their work


@dataclass
class Watch:
    """What the board of a running job said, every new word of it."""

    board: Any = None
    words: list[tuple[str, int]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def beside(self, kind: type, *arguments: Any) -> Any:
        """Start what the job starts, and look at it from then on."""
        self.board = beside(kind, *arguments)
        return self.board

    def follow(self) -> None:
        while not self.ended.wait(LOOK_EVERY_S):
            if self.board is None:
                continue
            for stage, done, _ in ray.get(self.board.read.remote()).values():
                if not self.words or self.words[-1] != (stage, done):
                    self.words.append((stage, done))

    def passes(self, start: int = 0) -> list[int]:
        return [done for stage, done in self.words[start:] if stage == "training"]


def wait_until(happened: Callable[[], Any]) -> Any:
    started = time.monotonic()
    while time.monotonic() - started < PATIENCE_S:
        found = happened()
        if found:
            return found
        time.sleep(LOOK_EVERY_S)
    raise AssertionError(f"nothing happened for {PATIENCE_S:g} s")


def checkpoints(runs: str) -> set[str]:
    """Etags of the checkpoints below a place right now; each replaces the one before."""
    try:
        found = list(storage.list_objects(runs))
    except (storage.StorageError, storage.StorageAway):  # nothing yet, or a folder has gone
        return set()
    return {item.etag for item in found if item.uri.endswith(f"/{STATE_FILE}")}


def training_workers() -> list[int]:
    """Processes of our own cluster in which Ray Train trains."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            is_worker = b"RayTrainWorker" in (path / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if is_worker and os.getpid() in ancestors(int(path.name)):
            found.append(int(path.name))
    return found


def ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return
        yield pid
