"""A night as users run it: from a bucket, and by the command line however long the dump is."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
import yaml

from jobs.cluster.join import WORKER_ENVIRONMENT
from jobs.local.s3 import LocalS3
from pipeline import storage
from pipeline.images import fit
from pipeline.night.folder import NightFolder
from pipeline.night.listing import list_dump
from pipeline.night.scoring.detectors import Detectors
from pipeline.night.scoring.plan import plan_night
from pipeline.night.scoring.scorer import ShardScorer
from tests.bench.material import NIGHT, dump_of, onboard, write_pictures
from tests.bench.measure import Ratio, alternate, in_fresh_process, peak_mib
from tests.bench.scoring import against_bare
from tests.bench.soak import processes
from tests.support.decoding import decode_image

NUM_GOOD = 40
NUM_SCORED = 256
FEW, MANY = 1_000, 20_000
SAMPLE_S = 0.2
LIMIT_S = 1800


def night_from_s3() -> Iterator[Ratio]:
    """Images/s from JPEGs in a bucket to rows in a bucket over those of the backbone alone."""
    with tempfile.TemporaryDirectory() as scratch, LocalS3(Path(scratch, "s3")) as server:
        bucket = server.create_bucket("night")
        yield in_fresh_process(_from_s3, Path(scratch), bucket, server.environment())


def scaled_decoding() -> Iterator[Ratio]:
    """Time of decoding a JPEG at the least sufficient size over that at its full size."""
    yield in_fresh_process(_scaled_decoding)


def night_memory() -> Iterator[Ratio]:
    """Peak memory of the command and of its workers for twenty times the images."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pictures = write_pictures(folder / "texture", NUM_GOOD, "png")
        # As users start it: only the workers have an environment of their own.
        users = {name: os.environ[name] for name in os.environ.keys() - WORKER_ENVIRONMENT.keys()}
        environment = {**users, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        settings = {"backbone": "efficientnet_lite0", "false_alarm_rate": 0.1}
        entry = {"name": "texture", "images": str(pictures), "layout": "folder"}
        training = {"training": {"passes": 2, "health": "warn"}, "calibration_share": 0.3}
        document = {"defaults": settings | training, "categories": [entry]}
        (folder / "catalogue.yaml").write_text(yaml.safe_dump(document))
        _peaks(folder, environment, "onboard", "catalogue.yaml")
        seen = []
        for count in (FEW, MANY):
            dump_of(pictures, folder / f"dump-{count}", count)
            places = (f"dump-{count}", "--out", f"out-{count}", "--night", NIGHT)
            seen.append(_peaks(folder, environment, "score", *places))
    for name in ("command", "worker"):
        few, many = (peaks[name] for peaks in seen)
        detail = f"{few:.0f} MiB for {FEW:,} images, {many:.0f} MiB for {MANY:,}"
        yield Ratio(
            name=f"night_memory {name}", value=many / few, target=1.1, at_most=True, detail=detail
        )


def _from_s3(scratch: Path, bucket: str, environment: Mapping[str, str]) -> Ratio:
    os.environ.update(environment)
    pictures = write_pictures(scratch / "good", NUM_GOOD, "jpg")
    fleet = onboard(scratch / "fleet", pictures, "resnet18")
    contents = [path.read_bytes() for path in sorted(pictures.iterdir())]
    for index in range(NUM_SCORED):
        content = contents[index % NUM_GOOD]
        storage.write_bytes(f"{bucket}/dump/texture/{index:06d}.jpg", content)
    out = f"{bucket}/out"
    tasks = plan_night(list_dump(f"{bucket}/dump").images, fleet, NightFolder(out, NIGHT)).tasks
    scorer = ShardScorer(fleet, NightFolder(out, NIGHT))
    value, detail = against_bare("resnet18", NUM_SCORED, lambda: scorer.write(tasks))
    return Ratio(name="night_from_s3", value=value, target=0.85, detail=detail)


def _scaled_decoding() -> Ratio:
    with tempfile.TemporaryDirectory() as scratch:
        pictures = write_pictures(Path(scratch, "good"), NUM_GOOD, "jpg")
        fleet = onboard(Path(scratch, "fleet"), pictures, "resnet18")
        detectors = Detectors(fleet.champions)
        detectors.heads("texture")
        contents = [path.read_bytes() for path in sorted(pictures.iterdir())]
    preprocessing = fleet.champions["texture"].preprocessing

    def decoded(least_side: int | None) -> torch.Tensor:
        images = [decode_image(content, least_side=least_side) for content in contents]
        return torch.from_numpy(np.stack([fit.to_crop(image, preprocessing) for image in images]))

    full, scaled = alternate(lambda: decoded(None), lambda: decoded(preprocessing.least_side))
    of_full, of_scaled = (
        detectors.score(["texture"] * NUM_GOOD, decoded(side))[0]
        for side in (None, preprocessing.least_side)
    )
    moved = (of_scaled - of_full).abs()
    detail = (
        f"{1e3 * scaled.cpu_s / NUM_GOOD:.1f} ms, full {1e3 * full.cpu_s / NUM_GOOD:.1f}; scores, "
        f"deviation {of_full.std():.2f}, move by {moved.mean():.3f}, {moved.max():.3f} at most"
    )
    value = scaled.cpu_s / full.cpu_s
    return Ratio(name="scaled_decoding", value=value, target=1.0, at_most=True, detail=detail)


def _peaks(folder: Path, environment: Mapping[str, str], *command: str) -> dict[str, float]:
    """Run a command of the command line; return the peak memory of its processes in MiB."""
    running = subprocess.Popen(
        [sys.executable, "-m", "jobs", *command], cwd=folder, env=dict(environment)
    )
    peaks, deadline = {"command": 0.0, "worker": 0.0}, time.monotonic() + LIMIT_S
    while running.poll() is None:
        assert time.monotonic() < deadline
        workers = processes(running, b"ray::ScoringWorker")
        for name, pids in (("command", [running.pid]), ("worker", workers)):
            peaks[name] = max([peaks[name], *map(_peak_mib, pids)])
        time.sleep(SAMPLE_S)
    assert running.returncode == 0
    return peaks


def _peak_mib(pid: int) -> float:
    """Of any process; none of one that has ended, whose status is gone or has no such line."""
    with suppress(OSError, StopIteration):
        return peak_mib(pid)
    return 0.0
