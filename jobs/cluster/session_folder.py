"""Where a local Ray keeps its session: the path of a Unix socket has at most 107 bytes."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.cluster.probe import ClusterError

LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107  # bytes
# What Ray adds to its folder, with the longest process id that Linux has.
LONGEST_ADDITION = len("/session_2026-03-11_23-59-59_123456_4194304/sockets/plasma_store")
SHORT_PLACES = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108  for a link in a folder of its own


@contextmanager
def session_folder() -> Iterator[str | None]:
    """Yield a folder in which Ray's sockets fit; None: they fit into the one that Ray would take.

    Where a long TMPDIR leaves no room it is a short link to Ray's folder there, removed after the
    block: files lie on the disk that TMPDIR names all the same.

    Raises:
        ClusterError: there is no short place to write a link to.
    """
    folder = Path(_temporary_folder(), "ray").absolute()
    if sockets_fit(folder):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="ns-", dir=_short_place(folder)) as short:
        folder.mkdir(parents=True, exist_ok=True)
        link = Path(short, "ray")
        link.symlink_to(folder)
        yield str(link)


def sockets_fit(folder: Path) -> bool:
    """Whether Ray can make its sockets when its sessions are to lie in this folder."""
    return len(os.fsencode(folder)) + LONGEST_ADDITION <= LONGEST_SOCKET


def _temporary_folder() -> str:
    """Where Ray puts its folder."""
    return os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"  # noqa: S108


def _short_place(folder: Path) -> str:
    place = next((place for place in SHORT_PLACES if os.access(place, os.W_OK | os.X_OK)), None)
    if place is None:
        longest = LONGEST_SOCKET - LONGEST_ADDITION - len("/ray")
        raise ClusterError(
            f"the temporary folder {folder.parent} has too long a name: Ray's sockets leave room "
            f"for {longest} bytes, it has {len(os.fsencode(folder.parent))}, and none of "
            f"{', '.join(SHORT_PLACES)} can be written. Set TMPDIR to a folder with a shorter name."
        )
    return place
