"""``python -m tests.bench.slots_asleep``: what a second slot is worth where training costs no CPU.

On machines whose slots share the CPUs, two of them are hardly faster than one. Here jobs sleep, in
runs of Ray Train that take them from the queue as training does: what is left of the ideal, half
the time, is what starting and steering the runs costs.
"""

import argparse
import os
import tempfile
import time
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from rich.console import Console

from jobs.cluster.join import WORKER_ENVIRONMENT, Resources, cluster
from jobs.cluster.slot_worker import work_through
from jobs.cluster.slots import Slots
from jobs.cluster.work_queue import Job


def sleep(config: dict[str, Any]) -> None:
    """Work through the queue, asleep; what a run's worker does."""
    work_through(config["queue"], config["slot"], lambda job, _: time.sleep(job.size))


def timed(num_slots: int, jobs: list[Job]) -> float:
    """Return the seconds that so many slots take for all jobs, the start of their runs included."""
    with tempfile.TemporaryDirectory() as runs, cluster(num_cpus=num_slots):
        resources = Resources(num_jobs=num_slots, cpus=1, gpus=0)
        slots = Slots(loop=sleep, config={}, resources=resources, runs=runs)
        started = time.monotonic()
        ended = list(slots.work_through(jobs, lambda progress: None))
        taken = time.monotonic() - started
    assert [each.error for each in ended] == [None] * len(jobs)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.slots_asleep")
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--seconds", type=int, default=10)
    asked = parser.parse_args()
    os.environ.update(WORKER_ENVIRONMENT)
    jobs = [Job(name=f"job{number}", size=asked.seconds) for number in range(asked.jobs)]
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
        one_s, two_s = timed(1, jobs), timed(2, jobs)
    told = f"{asked.jobs} jobs of {asked.seconds} s: one slot {one_s:.0f} s, two {two_s:.0f} s"
    Console(highlight=False).print(f"{told}, {two_s / one_s:.2f} of the time")


if __name__ == "__main__":
    main()
