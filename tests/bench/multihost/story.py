"""What happens to the hosts while they work, and what must be true afterwards.

Runs on the head. A worker host is powered off in the middle of each job and the other one's cable
is out for 20 seconds; MLflow and the object store are restarted. Whoever runs the job starts it
again until it is done, as a person or a CronJob would.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.laptop.process import Server
from pipeline import storage
from pipeline.night.folder import NightFolder
from pipeline.night.results import read_night, stored_shards
from tests.bench.multihost import products
from tests.bench.multihost.hosts import Hosts

NIGHT = "2026-03-12"
CUT_S = 20
SHARE_OF_TWO = 0.6  # of one host's time that two should take
MOST_STARTS = 5
LIMIT_S = 1800.0


@dataclass
class Line:
    """One row of the result table."""

    job: str
    seconds: float = 0.0
    starts: int = 0  # how often the command had to be run
    disturbed: list[str] = field(default_factory=list)
    found: str = ""
    ok: bool = False


@dataclass
class Story:
    """One run: its hosts, how much they get to do, what came of it."""

    hosts: Hosts
    folder: Path
    num_categories: int
    num_images: int

    def onboarding(self) -> Line:
        """Onboard every category; each must end with one version, one run, one champion."""
        catalogue = self.folder / "catalogue.yaml"
        with self.hosts.owner():
            catalogue.write_text(products.upload_onboarding(self.num_categories))
        line = Line("onboarding")
        command = ["onboard", str(catalogue), "--json"]
        if not self._run(command, line, self._jobs_begun, self.hosts.mlflow):
            return line
        answer = json.loads((self.folder / "answer.json").read_text())
        wanted = dict.fromkeys(products.names(self.num_categories), 1)
        versions, runs = _registered(wanted)
        line.ok = versions == runs == wanted and all(one["is_champion"] for one in answer)
        line.found = (
            f"{len(answer)} categories, {sum(versions.values())} versions, "
            f"{sum(runs.values())} finished runs"
        )
        return line

    def on_one_and_on_two(self) -> Line:
        """Onboard as many categories with one worker host and with both; starts the second.

        With the default training: otherwise the start of processes would be all that is measured.
        """
        line = Line("onboarding, one worker host and two")
        # Programs and weights are read from the disk once.
        self._onboard_quietly("warm", 1, passes=products.SHORT)
        one_s = self._onboard_quietly("single", self.num_categories)
        say(f"onboarding on one worker host took {one_s:.0f} s")
        self.hosts.start(self.hosts.ray["worker-b"])
        two_s = self._onboard_quietly("double", self.num_categories)
        say(f"onboarding on both took {two_s:.0f} s")
        line.seconds, line.starts, line.ok = one_s + two_s, 2, two_s / one_s <= SHARE_OF_TWO
        line.found = f"{one_s:.0f} s and {two_s:.0f} s: {two_s / one_s:.2f} of the time"
        return line

    def _onboard_quietly(self, kind: str, num_categories: int, passes: int | None = None) -> float:
        catalogue = self.folder / f"{kind}.yaml"
        with self.hosts.owner():
            catalogue.write_text(products.upload_onboarding(num_categories, kind, passes))
        started = time.monotonic()
        code = self._start(["onboard", str(catalogue), "--json"]).wait(LIMIT_S)
        if code:
            raise RuntimeError(f"onboarding in peace ended with code {code}, see nightshift.log")
        return time.monotonic() - started

    def night(self) -> Line:
        """Score a dump; each of its images must have one row, with a score."""
        with self.hosts.owner():
            expected = products.upload_dump(self.num_categories, self.num_images)
        line = Line("night")
        command = ["score", "s3://dump/", "--out", "s3://results", "--night", NIGHT, "--json"]
        if not self._run(command, line, self._shards_done, self.hosts.store):
            return line
        rows = read_night(NightFolder("s3://results", NIGHT))
        uris, statuses = Counter(rows["image_uri"].to_pylist()), Counter(rows["status"].to_pylist())
        lost, doubled = len(expected - uris.keys()), sum(uris.values()) - len(uris)
        line.ok = uris.keys() == expected and not doubled and set(statuses) == {"ok"}
        line.found = f"{len(uris)} images, {lost} lost, {doubled} doubled, {dict(statuses)}"
        return line

    def _jobs_begun(self) -> bool:
        """Whether two of this job's categories have left something of their training."""
        return (
            _count(lambda: [name for name in storage.list_names("s3://runs") if _is_ours(name)])
            >= 2
        )

    def _shards_done(self) -> bool:
        return _count(lambda: stored_shards(NightFolder("s3://results", NIGHT))) >= 1

    def _run(
        self, command: list[str], line: Line, is_midway: Callable[[], bool], victim: Server
    ) -> bool:
        """Run a command until it is done; disturb its first start in the middle."""
        started = time.monotonic()
        while line.starts < MOST_STARTS:
            line.starts += 1
            done = self._start(command)
            if line.starts == 1:
                _wait(lambda done=done: is_midway() or done.poll() is not None)  # type: ignore[misc]
                self._disturb(line, done, victim)
            code = self._supervise(done)
            say(f"{line.job}: start {line.starts} ended with code {code}")
            if code == 0:
                break
        line.found = f"ended with code {code}, see nightshift.log (--keep)"
        line.seconds = time.monotonic() - started
        for host in ("worker-a", "worker-b"):  # the night begins with all hosts again
            if self.hosts.is_lost(host):
                self.hosts.start(self.hosts.ray[host])
        return code == 0

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        log = (self.folder / "logs" / "nightshift.log").open("ab")
        answer = (self.folder / "answer.json").open("wb")
        run = [sys.executable, "-m", "jobs", *command]
        return subprocess.Popen(run, cwd=self.folder, stdout=answer, stderr=log)

    def _disturb(self, line: Line, job: subprocess.Popen[bytes], victim: Server) -> None:
        network = self.hosts.network
        during = "in the middle" if job.poll() is None else "too late"
        killed = network.power_off("worker-b")
        line.disturbed.append(f"worker-b off {during} ({killed} processes)")
        time.sleep(3)
        network.cut("worker-a")
        time.sleep(CUT_S)
        network.cut("worker-a", connected=True)
        line.disturbed.append(f"worker-a cut off for {CUT_S} s")
        self.hosts.restart(victim)
        line.disturbed.append(f"{victim.name} restarted")

    def _supervise(self, job: subprocess.Popen[bytes]) -> int:
        """Wait for the job; a node that the head gave up is started again, as on a cluster."""

        def ended() -> bool:
            if self.hosts.is_lost("worker-a"):
                say("worker-a was given up and is started again")
                self.hosts.start(self.hosts.ray["worker-a"])
            return job.poll() is not None

        _wait(ended)
        return job.wait()


def _registered(wanted: Collection[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Count versions and finished runs of categories, from the registry itself."""
    from mlflow import MlflowClient

    client = MlflowClient()
    versions = Counter(v.name.removeprefix("nightshift.") for v in client.search_model_versions())
    experiment = client.get_experiment_by_name("nightshift")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'")
    finished = Counter(run.data.tags["nightshift.category"] for run in runs)
    return (
        {name: count for name, count in versions.items() if name in wanted},
        {name: count for name, count in finished.items() if name in wanted},
    )


def _is_ours(run: str) -> bool:
    return run.startswith(products.KIND)


def _count(listing: Callable[[], Any]) -> int:
    try:
        return len(listing())
    except (storage.StorageError, storage.StorageAway):  # nothing yet
        return 0


def _wait(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing happened for {LIMIT_S:g} s")
        time.sleep(0.5)


def say(line: str) -> None:
    """Tell the person; the table alone goes to stdout."""
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)  # noqa: T201
