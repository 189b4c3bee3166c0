"""Servers that outlive the command that starts them, and are ended only if they are still ours.

A pid alone may belong to somebody else by now; with the moment of its start it names one process.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.local import process as local
from model.errors import NightshiftError


class LaptopError(NightshiftError):
    """A server of the laptop's is not installed, ended, or did not answer in time."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """How one server is started, seen to be well, and ended."""

    name: str
    command: Sequence[str]
    home: Path  # its working directory
    environment: Mapping[str, str]
    healthy: Callable[[], bool]
    end_by: signal.Signals = signal.SIGTERM
    user: str | None = None  # another than ours; None: ours


def running(folder: Path, name: str) -> int | None:
    """Return the pid of a server that an earlier ``up`` started, if it is still that process."""
    try:
        noted = json.loads((folder / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None
    pid = int(noted["pid"])
    return pid if birth(pid) == noted["birth"] else None


def start(folder: Path, logs: Path, server: Server) -> None:
    """Start a server in a session of its own and note which process it is."""
    log, environment = logs / f"{server.name}.log", {**_inherited(), **server.environment}
    process = local.start(server.command, server.home, environment, log, user=server.user)
    note = {"pid": process.pid, "birth": birth(process.pid)}
    (folder / f"{server.name}.json").write_text(json.dumps(note))


def wait_until_healthy(folder: Path, logs: Path, server: Server, deadline: float) -> None:
    """Wait for a server's answer.

    Raises:
        LaptopError: it ended, or did not answer in time; with the last lines of its log.
    """
    while not server.healthy():
        has_ended = running(folder, server.name) is None
        if has_ended or time.monotonic() > deadline:
            log = logs / f"{server.name}.log"
            last = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
            what = "ended" if has_ended else "did not answer in time"
            raise LaptopError(f"{server.name} {what}. See {log}; its last lines:\n{last}")
        time.sleep(0.1)


def stop(folder: Path, name: str, end_by: signal.Signals, patience_s: float) -> bool:
    """End a server and all of its group, if it is still the one we started; False: it is not."""
    pid = running(folder, name)
    if pid is not None:
        os.killpg(pid, end_by)
        deadline = time.monotonic() + patience_s
        while running(folder, name) is not None and time.monotonic() < deadline:
            time.sleep(0.1)
        if running(folder, name) is not None:
            os.killpg(pid, signal.SIGKILL)
    (folder / f"{name}.json").unlink(missing_ok=True)
    return pid is not None


def birth(pid: int) -> str | None:
    """Return when a living process was started, in its system's own words; None: there is none."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else fields[18]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    said = subprocess.run(  # noqa: S603  not Linux
        ["ps", "-o", "lstart=", "-p", str(pid)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip() or None


def _inherited() -> dict[str, str]:
    """This shell's environment without settings that would lead a server elsewhere."""
    foreign = ("AWS_", "MLFLOW_", "RAY_", "PG")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
