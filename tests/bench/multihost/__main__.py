"""Jobs on three hosts that get lost: ``python -m tests.bench.multihost [--images N]``.

A head and two workers of one core each, an object store and MLflow on PostgreSQL, every host in a
network namespace of its own. Needs root; says why and ends with code 0 where it cannot run.
"""

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from infra.laptop.settings import load_or_make
from tests.bench.multihost.network import Network, missing

INSIDE = "NIGHTSHIFT_MULTIHOST"  # set to the network's name once we run on its head


def main() -> int:
    """Make the network and run on its head; or, on the head, run the story."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.multihost", description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--categories", type=int, default=6)
    parser.add_argument("--keep", action="store_true", help="keep logs and results")
    asked = parser.parse_args()
    if INSIDE in os.environ:
        return tell(Network(os.environ[INSIDE]), asked)
    reason = missing()
    if reason is not None:
        print(f"skipped: {reason}", file=sys.stderr)  # noqa: T201
        return 0
    network = Network(f"ns{secrets.token_hex(2)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the network is removed
    try:
        network.make()
        command = [
            *network.inside("head"),
            sys.executable,
            "-m",
            "tests.bench.multihost",
            *sys.argv[1:],
        ]
        return subprocess.run(
            command, env={**os.environ, INSIDE: network.name}, check=False
        ).returncode
    finally:
        network.remove()


def tell(network: Network, asked: argparse.Namespace) -> int:
    """Start everything, run both jobs, print the table."""
    from tests.bench.multihost.hosts import Hosts
    from tests.bench.multihost.story import Line, Story, say

    folder = Path(tempfile.gettempdir(), f"nightshift-{network.name}")
    folder.mkdir(mode=0o755)
    try:
        settings = load_or_make(folder / "settings.json", network.address("stores"))
        hosts = Hosts(network, folder, settings)
        say(f"MLflow keeps its tables in {hosts.database}")
        os.environ.update(hosts.environment())
        _start(hosts)
        story = Story(hosts, folder, asked.categories, asked.images)
        lines: list[Line] = [story.on_one_and_on_two(), story.onboarding(), story.night()]
    finally:
        if asked.keep:
            say(f"logs and results stay in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print("| job | seconds | starts | what was done to it | what was found | |")  # noqa: T201
    print("| --- | ---: | ---: | --- | --- | --- |")  # noqa: T201
    for line in lines:
        verdict = "as it should" if line.ok else "NOT AS IT SHOULD"
        cells = [line.job, f"{line.seconds:.0f}", str(line.starts), "; ".join(line.disturbed)]
        print("|", " | ".join([*cells, line.found, verdict]), "|")  # noqa: T201
    return 0 if all(line.ok for line in lines[1:]) else 1  # the first one only measures


def _start(hosts: "Hosts") -> None:  # type: ignore[name-defined]  # noqa: F821
    from infra.laptop.settings import BUCKETS
    from jobs.local.s3 import OWNER, make_buckets
    from tests.bench.multihost.story import say

    if hosts.tables is not None:
        hosts.start(hosts.tables)
    hosts.start(hosts.store, hosts.mlflow, hosts.ray["head"])
    make_buckets(hosts.settings.s3_environment(OWNER), BUCKETS)
    hosts.start(hosts.ray["worker-a"])
    say("the stores, the head and one worker are up")


if __name__ == "__main__":
    sys.exit(main())
