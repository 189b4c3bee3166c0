"""Feature files of a study on object storage, copied to this machine while somebody reads them.

Every process that reads a set holds a shared lock on its folder, so that one copy serves all of
them; the last one to end removes it. What a process left that was killed goes when the next one
begins: a study's copies never outlive it for longer than that.
"""

import atexit
import fcntl
import os
import shutil
import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from pipeline import storage

PREFIX = "nightshift-study-"
LOCK = ".lock"


class FeatureCopies:
    """The copies that one process reads."""

    def __init__(self, root: Path) -> None:
        """Remove what dead processes left below ``root``, where the copies go."""
        self.root = root
        self.held: dict[Path, BinaryIO] = {}
        for folder in root.glob(f"{PREFIX}*"):
            remove_unused(folder)

    def fetch(self, features: str, name: str) -> Path:
        """Return a file of a set of features, fetched unless a copy is there."""
        folder = self.root / f"{PREFIX}{sha256(features.encode()).hexdigest()[:16]}"
        self._hold(folder)
        path = folder / name
        if not path.exists():
            with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
                file.write(storage.read_bytes(storage.join(features, name)))
            Path(file.name).rename(path)
        return path

    def close(self) -> None:
        """Give all copies back; what is mapped into memory can still be read."""
        while self.held:
            folder, lock = self.held.popitem()
            lock.close()
            remove_unused(folder)

    def _hold(self, folder: Path) -> None:
        while folder not in self.held:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock = (folder / LOCK).open("ab")
            except FileNotFoundError:  # its last reader has just removed it
                continue
            fcntl.flock(lock, fcntl.LOCK_SH)
            if os.fstat(lock.fileno()).st_nlink:
                self.held[folder] = lock
            else:
                lock.close()


def remove_unused(folder: Path) -> None:
    """Remove a folder of copies unless a process holds it."""
    try:
        lock = (folder / LOCK).open("rb")
    except OSError:  # another process is about to make it, or has just removed it
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(folder, ignore_errors=True)


@cache
def own_copies() -> FeatureCopies:
    """Return this process's copies, which are given back at its end."""
    copies = FeatureCopies(Path(tempfile.gettempdir()))
    atexit.register(copies.close)
    return copies
