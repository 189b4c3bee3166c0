"""What runs on each host, and how it is brought back when it was lost."""

import os
import shutil
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from infra.laptop import process, servers
from infra.laptop.process import Server
from infra.laptop.settings import Settings
from jobs.local.s3 import OWNER
from tests.bench.multihost.network import Network

PATIENCE_S = 180.0
RAY_PORT = 6379  # every host has all ports to itself


class Hosts:
    """The servers of one run, by host."""

    def __init__(self, network: Network, folder: Path, settings: Settings) -> None:
        self.network, self.settings = network, settings
        self.pids, self.logs = folder / "pids", folder / "logs"
        for made in (self.pids, self.logs):
            made.mkdir(exist_ok=True)
        database = servers.database(folder / "postgres", settings)
        self.database = "PostgreSQL" if database.server else f"SQLite: {database.reason}"
        self.store = self._on("stores", servers.object_store(folder / "object-store", settings))
        self.mlflow = self._on("stores", servers.mlflow(folder / "mlflow", settings, database.uri))
        self.tables = self._on("stores", database.server) if database.server else None
        self.ray = {host: self._ray(host) for host in ("head", "worker-a", "worker-b")}

    def environment(self) -> dict[str, str]:
        """What a shell on the head needs for ``nightshift``."""
        head = f"{self.network.address('head')}:{RAY_PORT}"
        return {**self.settings.client_environment(), "RAY_ADDRESS": head}

    @contextmanager
    def owner(self) -> Iterator[None]:
        """Let this process write to every bucket for the block; the jobs never may."""
        before = {name: os.environ[name] for name in self.settings.s3_environment(OWNER)}
        os.environ.update(self.settings.s3_environment(OWNER))
        try:
            yield
        finally:
            os.environ.update(before)

    def start(self, *wanted: Server) -> None:
        """Start servers side by side and wait for all of them."""
        deadline = time.monotonic() + PATIENCE_S
        for server in wanted:
            process.start(self.pids, self.logs, server)
        for server in wanted:
            process.wait_until_healthy(self.pids, self.logs, server, deadline)

    def restart(self, server: Server) -> None:
        """Kill a server and start it again at once, as its supervisor would."""
        process.stop(self.pids, server.name, server.end_by, patience_s=3)
        self.start(server)

    def is_lost(self, host: str) -> bool:
        """Say whether a Ray node has ended, for example because the head gave it up."""
        return process.running(self.pids, self.ray[host].name) is None

    def _on(self, host: str, server: Server) -> Server:
        """Run a server on a host: in its namespace, as the user it asks for."""
        become: list[str] = []
        if server.user is not None:
            become = [
                "setpriv",
                f"--reuid={server.user}",
                f"--regid={server.user}",
                "--clear-groups",
            ]
        command = [*self.network.inside(host), *become, *server.command]
        return replace(server, command=command, user=None)

    def _ray(self, host: str) -> Server:
        """A Ray node: the head leads, each worker has one core."""
        address = self.network.address(host)
        ray = shutil.which("ray", path=sysconfig.get_path("scripts")) or "ray"
        scratch = Path(tempfile.gettempdir(), f"{self.network.name}{host[-1]}")
        options = {
            "head": ["--head", f"--port={RAY_PORT}", "--num-cpus=0", "--include-dashboard=false"],
        }.get(host, [f"--address={self.network.address('head')}:{RAY_PORT}", "--num-cpus=1"])
        log = self.logs / f"ray-{host}.log"
        cores = sorted(os.sched_getaffinity(0))
        core = cores[(host == "worker-b") % len(cores)]
        pinned = [] if host == "head" else ["taskset", "--cpu-list", str(core)]
        return Server(
            name=f"ray-{host}",
            command=[
                *(*self.network.inside(host), *pinned, ray, "start", *options, "--block"),
                *(f"--node-ip-address={address}", f"--temp-dir={scratch}"),
                *("--disable-usage-stats", "--object-store-memory=300000000"),
            ],
            home=Path("/"),
            environment=self._node_environment(),
            healthy=lambda: (
                log.exists() and "Ray runtime started" in log.read_text(errors="replace")
            ),
        )

    def _node_environment(self) -> Mapping[str, str]:
        return {**self.settings.s3_environment("jobs"), **self.settings.ray_environment()}
