"""``python -m tests.bench.many_onboarded``: what it costs to onboard many small categories.

A category's own time is what it reads, embeds, trains, calibrates and evaluates; the rest of what
the slots spend is overhead: starting, steering, registering. Beside it: the memory of everything
that is not a training worker, the same command again, and again with one head setting changed.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from jobs.cluster.join import WORKER_ENVIRONMENT, cluster
from jobs.onboard.onboard import OnboardingOptions, Outcome, onboard
from pipeline.catalogue.catalogue import Category
from pipeline.feature_store.place import named_place
from pipeline.onboarding.overview import seconds_of
from tests.support.factory import category, make_category
from tests.support.ray_watch import ancestors

SLOTS = 2
LOOK_EVERY_S = 2.0
TRAINS = (b"RayTrainWorker", b"ray::execute.")  # a worker is called by what it does while it starts


@dataclass
class HeadMemory:
    """The most memory of this process and its children that train nothing, in bytes."""

    most: int = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(LOOK_EVERY_S):
                self.most = max(self.most, sum(_steering()))

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _steering() -> Iterator[int]:
    """Yield the bytes of each process of ours but the training workers; shared ones are split."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if any(word in (path / "cmdline").read_bytes() for word in TRAINS):
                continue
            if os.getpid() not in {int(path.name), *ancestors(int(path.name))}:
                continue
            lines = (path / "smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended
            continue
        yield sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.many_onboarded")
    parser.add_argument("--categories", type=int, default=64)
    number = parser.parse_args().categories
    os.environ.update(WORKER_ENVIRONMENT)
    console = Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory() as scratch, Path(os.devnull).open("w") as nowhere:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{scratch}/mlflow.db"
        folders = [make_category(Path(scratch, f"c{n}"), seed=n) for n in range(number)]
        catalogue = [category(folder, name=folder.name) for folder in folders]
        features = named_place(f"{scratch}/features", 10)
        options = OnboardingOptions(runs=f"{scratch}/runs", features=features)
        memory = HeadMemory()
        with redirect_stderr(nowhere), cluster(num_cpus=SLOTS), memory.watched():
            seconds, outcomes = timed(catalogue, options)
            again_s, again = timed(catalogue, options)
            changed = [category(f, name=f.name, training={"sigma": 0.9}) for f in folders]
            changed_s, others = timed(changed, options)
    assert {outcome.status.value for outcome in outcomes + others} == {"onboarded"}
    assert {outcome.status.value for outcome in again} == {"unchanged"}
    own = sum(seconds_of(vars(outcome)) or 0 for outcome in outcomes)
    overhead = (seconds * SLOTS - own) / number
    passes = sum(o.features["images"] - o.features["from_store"] for o in others if o.features)
    console.print(f"{number} categories of 40 images, {SLOTS} slots: {seconds:.0f} s")
    console.print(f"own time of a category {own / number:.2f} s, overhead {overhead:.2f} s")
    console.print(f"memory of what trains nothing: {memory.most / 1e9:.2f} GB at most")
    console.print(f"again, nothing changed: {again_s:.1f} s")
    console.print(f"again, one head setting changed: {changed_s:.0f} s, {passes} backbone passes")


def timed(catalogue: Sequence[Category], options: OnboardingOptions) -> tuple[float, list[Outcome]]:
    """Onboard everything; return the seconds it took beside the outcomes."""
    started = time.monotonic()
    outcomes = onboard(catalogue, options)
    return time.monotonic() - started, outcomes


if __name__ == "__main__":
    main()
