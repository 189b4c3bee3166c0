"""``python -m tests.bench.soak``: a night under random kills and a storage on a bad day.

The night is scored by the command line against a real S3 server behind a proxy that lets a share
of requests fail. At random moments the driver, a worker or the raylet is killed with SIGKILL, and
the command is run again, until it has ended by itself. In the end every image of the dump must be
there once, with the very row of an undisturbed night.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from PIL import Image
from rich.console import Console

from jobs.local.s3 import LocalS3
from pipeline import storage
from pipeline.night.folder import NightFolder
from pipeline.night.listing import list_dump
from pipeline.night.results import read_night
from tests.support.factory import make_category, texture, write_catalogue
from tests.support.faulty_proxy import FaultyProxy
from tests.support.pictures import encoded
from tests.support.ray_watch import ancestors

NIGHT = "2026-03-12"
VICTIMS = ("driver", "worker", "raylet")
RUN_TIMEOUT_S = 600
COMPARED = ("image_uri", "category", "status", "score", "p_value", "flagged", "model_digest")
NAMES = {"worker": b"ray::ScoringWorker", "raylet": b"raylet/raylet"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--faults", type=float, default=0.05, help="share of failing requests")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, LocalS3(Path(scratch, "s3")) as server:
        os.environ.update(server.environment())
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{scratch}/mlflow.db"
        soak(arguments, Path(scratch), server)


def soak(arguments: argparse.Namespace, scratch: Path, server: LocalS3) -> None:
    console = Console(highlight=False)
    bucket = server.create_bucket("soak")
    write_dump(f"{bucket}/dump", arguments.images)
    images = {name: make_category(scratch / name, seed=seed) for seed, name in enumerate("ab")}
    catalogue = write_catalogue(scratch / "catalogue.yaml", images)
    assert run(scratch, "onboard", str(catalogue)).wait(RUN_TIMEOUT_S) == 0
    night = ["--night", NIGHT]
    quiet = run(scratch, "score", f"{bucket}/dump", "--out", f"{bucket}/quiet", *night)
    assert quiet.wait(RUN_TIMEOUT_S) == 0
    expected = read_night(NightFolder(f"{bucket}/quiet", NIGHT))

    dice, killed = random.Random(arguments.seed), Counter[str]()
    command = ["score", f"{bucket}/dump", "--out", f"{bucket}/disturbed", *night]
    runs = 0
    with FaultyProxy(server.endpoint_url, arguments.faults, arguments.seed) as proxy:
        lead_to(proxy.endpoint_url)
        while True:
            driver, runs = run(scratch, *command), runs + 1
            ended = disturb(driver, dice, killed, arguments.kills)
            if ended == 0 and killed.total() >= arguments.kills:
                break
            console.print(f"run {runs}: killed so far {dict(killed)}")
            lead_to(server.endpoint_url)
            forget(f"{bucket}/disturbed", dice)
            lead_to(proxy.endpoint_url)
        lead_to(server.endpoint_url)
    found = read_night(NightFolder(f"{bucket}/disturbed", NIGHT))
    faults = {name or "none": count for name, count in proxy.faults.items()}
    console.print(f"{runs} runs, killed {dict(killed)}, requests by fault {faults}")
    report(console, expected, found, list_dump(f"{bucket}/dump").images.num_rows)


def lead_to(endpoint_url: str) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        os.environ[name] = endpoint_url


def report(console: Console, expected: pa.Table, found: pa.Table, num_images: int) -> None:
    """Says how the two nights compare; fails when they do not."""
    lost = set(expected["image_uri"].to_pylist()) - set(found["image_uri"].to_pylist())
    doubled = found.num_rows - len(set(found["image_uri"].to_pylist()))
    same = expected.select(COMPARED).equals(found.select(COMPARED))
    console.print(f"{num_images} images: {len(lost)} lost, {doubled} doubled, rows equal: {same}")
    if lost or doubled or not same:
        sys.exit(1)


def write_dump(dump: str, count: int) -> None:
    pictures = {
        name: [
            encoded(Image.fromarray(texture(seed * 10_000 + i, scratched=i % 9 == 0)))
            for i in range(20)
        ]
        for seed, name in enumerate("ab")
    }
    for index in range(count):
        name = "ab"[index % 2]
        storage.write_bytes(f"{dump}/{name}/{index:06d}.png", pictures[name][index // 2 % 20])


def run(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "jobs", *arguments], cwd=folder)


def disturb(
    driver: subprocess.Popen[bytes], dice: random.Random, killed: Counter[str], most: int
) -> int:
    """Kills what belongs to a run at random moments; returns how it ended."""
    started = time.monotonic()
    while time.monotonic() - started < RUN_TIMEOUT_S:
        if killed.total() < most and wait_for(driver, lambda: workers(driver)):
            time.sleep(dice.uniform(0.2, 8))
            kill(driver, dice.choice(VICTIMS), killed)
        try:
            return driver.wait(1)
        except subprocess.TimeoutExpired:
            continue
    driver.kill()
    raise SystemExit(f"a run did not end within {RUN_TIMEOUT_S} s")


def wait_for(driver: subprocess.Popen[bytes], happened: Callable[[], object]) -> bool:
    while driver.poll() is None:
        if happened():
            return True
        time.sleep(0.05)
    return False


def kill(driver: subprocess.Popen[bytes], victim: str, killed: Counter[str]) -> None:
    found = [driver.pid] if victim == "driver" else processes(driver, NAMES[victim])
    for pid in found[:1]:
        killed[victim] += 1
        os.kill(pid, signal.SIGKILL)


def workers(driver: subprocess.Popen[bytes]) -> list[int]:
    return processes(driver, NAMES["worker"])


def processes(driver: subprocess.Popen[bytes], name: bytes) -> list[int]:
    """Processes of this name that the driver started."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            matches = name in (path / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if matches and driver.pid in ancestors(int(path.name)):
            found.append(int(path.name))
    return found


def forget(out: str, dice: random.Random) -> None:
    """Takes some finished shards away, so that there is something left to disturb."""
    try:
        names = storage.list_names(f"{out}/results/night={NIGHT}")
    except storage.ObjectMissing:
        return
    for name in dice.sample(names, len(names) // 2):
        storage.delete(f"{out}/results/night={NIGHT}/{name}")


if __name__ == "__main__":
    main()
