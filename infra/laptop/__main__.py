"""``python -m infra.laptop up|down|status``: a cluster's servers on this machine.

``up`` starts what does not run yet and waits until all of it answers; ``down`` ends what ``up``
started and nothing else. Data, logs and credentials lie in one folder that git ignores.
"""

import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from infra.laptop import process, servers
from infra.laptop.process import Server
from infra.laptop.settings import BUCKETS, load_or_make, write_private
from jobs.local.s3 import OWNER, make_buckets
from model.errors import NightshiftError

FOLDER = "nightshift-laptop"
PATIENCE_S = 120.0
ENDING = {  # in this order: whoever uses another goes first
    "ray-worker": signal.SIGTERM,
    "ray-head": signal.SIGTERM,
    "mlflow": signal.SIGTERM,
    "postgres": signal.SIGINT,
    "object-store": signal.SIGTERM,
}


class Laptop:
    """The folder with everything, and what runs from it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pids, self.logs = folder, folder / "pids", folder / "logs"
        for made in (self.pids, self.logs):
            made.mkdir(parents=True, exist_ok=True)

    def up(self) -> None:
        """Start what does not run yet, wait for all of it, say how to use it."""
        started = time.monotonic()
        settings = load_or_make(self.folder / "settings.json")
        database = servers.database(self.folder / "postgres", settings)
        if database.reason:
            say(f"MLflow keeps its tables in SQLite: {database.reason}.")
        store = servers.object_store(self.folder / "object-store", settings)
        head, worker = servers.ray_nodes(self.folder / "ray", self.logs, settings)
        tracking = servers.mlflow(self.folder / "mlflow", settings, database.uri)
        tables = [database.server] if database.server else []
        deadline = started + PATIENCE_S
        self._bring_up(tables, deadline)
        for server in (tracking, store, head):  # they start side by side, the slowest first
            self._start(server)
        self._bring_up([head, worker, store], deadline)
        make_buckets(settings.s3_environment(OWNER), BUCKETS)
        self._bring_up([tracking], deadline)
        exports = [
            f"export {key}='{value}'" for key, value in settings.client_environment().items()
        ]
        write_private(self.folder / "environment", "\n".join([*exports, ""]))
        say(f"Ready after {time.monotonic() - started:.0f} s; logs are in {self.logs}")
        say(f"MLflow: http://127.0.0.1:{settings.mlflow_port}, buckets: {', '.join(BUCKETS)}")
        say("Use it in this shell (the file holds credentials, only you may read it):")
        print(f"source {self.folder / 'environment'}")  # noqa: T201  the answer

    def down(self) -> None:
        """End what runs, users before what they use."""
        for name, end_by in ENDING.items():
            if process.stop(self.pids, name, end_by, patience_s=10):
                say(f"ended {name}")

    def status(self) -> None:
        """Say what runs."""
        for name in reversed(ENDING):
            pid = process.running(self.pids, name)
            print(f"{name:13} {f'runs as {pid}' if pid else 'does not run'}")  # noqa: T201

    def _start(self, server: Server) -> None:
        if process.running(self.pids, server.name) is None:
            process.start(self.pids, self.logs, server)

    def _bring_up(self, wanted: Sequence[Server], deadline: float) -> None:
        for server in wanted:
            self._start(server)
            process.wait_until_healthy(self.pids, self.logs, server, deadline)
            say(f"{server.name} answers, {PATIENCE_S - deadline + time.monotonic():.0f} s")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let one command at a time work on the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def say(line: str) -> None:
    """Tell the person; the answer alone goes to stdout."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def main() -> int:
    """Run one command."""
    if len(sys.argv) != 2 or sys.argv[1] not in ("up", "down", "status"):
        say("usage: python -m infra.laptop up|down|status")
        return 2
    folder = Path(os.environ.get("NIGHTSHIFT_LAPTOP", FOLDER)).resolve()
    try:
        with alone(folder):
            getattr(Laptop(folder), sys.argv[1])()
    except NightshiftError as error:
        say(f"nightshift: {error}\nEnd what did start with: make down")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
