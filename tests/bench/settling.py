"""Settling a night of made-up rows: its memory, and what a second call over it costs."""

import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from model.preprocessing import Preprocessing
from pipeline.calibration import CalibrationConfig, fit
from pipeline.images.image_statistics import STATISTICS, condense
from pipeline.night.fleet.fleet import Champion, Fleet
from pipeline.night.folder import NightFolder
from pipeline.night.results import REGION, RESULT_SCHEMA, write_shard
from pipeline.night.settling.settle import settle
from pipeline.package import MapScale, Reference
from tests.bench.material import NIGHT
from tests.bench.measure import Ratio, in_fresh_process, peak_mib

NUM_CATEGORIES, NUM_CALIBRATION = 200, 199
FEW, MANY = 100, 1000  # images of each category
ROWS_PER_SHARD = 1024


def settling() -> Iterator[Ratio]:
    """Peak memory for ten times the images, and a second call's share of the first one's time."""
    with tempfile.TemporaryDirectory() as few, tempfile.TemporaryDirectory() as many:
        _write_night(few, FEW)
        _write_night(many, MANY)
        peak_few, _, _ = in_fresh_process(_settle, few)
        peak_many, first_s, again_s = in_fresh_process(_settle, many)
    num_rows = NUM_CATEGORIES * MANY
    yield Ratio(
        name="settling_memory",
        value=peak_many / peak_few,
        target=1.1,
        at_most=True,
        detail=f"{peak_few:.0f} MiB for {num_rows * FEW // MANY:,} rows, {peak_many:.0f} MiB for "
        f"{num_rows:,}",
    )
    yield Ratio(
        name="settling_again",
        value=again_s / first_s,
        target=0.1,
        at_most=True,
        detail=f"{first_s / num_rows * 1e6:.1f} s per million rows, then {again_s:.2f} s",
    )


def _settle(out: str) -> tuple[float, float, float]:
    fleet = _fleet()
    times = [time.monotonic()]
    for _ in range(2):
        settle(NightFolder(out, NIGHT), fleet)
        times.append(time.monotonic())
    return peak_mib(), times[1] - times[0], times[2] - times[1]


def _fleet() -> Fleet:
    random = np.random.default_rng(0)
    champions = {}
    for number in range(NUM_CATEGORIES):
        name = f"part-{number:04d}"
        light = {each: condense(random.normal(100, 5, NUM_CALIBRATION)) for each in STATISTICS}
        champions[name] = Champion(
            category=name,
            model_name=f"nightshift.{name}",
            model_version="1",
            model_digest=f"{number:064x}",
            package="",
            reference=Reference(
                calibration=fit(random.normal(size=NUM_CALIBRATION), CalibrationConfig()),
                map_scale=MapScale(low=0.0, threshold=1.0),
                statistics=light,
            ),
            preprocessing=Preprocessing(),
        )
    return Fleet(champions=champions)


def _write_night(out: str, num_images: int) -> None:
    """A tenth of the categories has a fifth of defects; a tenth of all images have two regions."""
    random = np.random.default_rng(1)
    tables = []
    for number, champion in enumerate(_fleet().champions.values()):
        scores = random.normal(size=num_images).astype(np.float32)
        scores[: num_images // 5] += 5.0 * (number % 10 == 0)
        known = {
            "image_uri": [f"s3://dump/{champion.category}/{i:08d}.jpg" for i in range(num_images)],
            "category": [champion.category] * num_images,
            "status": ["ok"] * num_images,
            "score": scores,
            "p_value": champion.reference.calibration.p_value(scores),
            "flagged": champion.reference.calibration.flagged(scores),
            "flagged_fdr": [False] * num_images,
            "shard": ["s"] * num_images,
            **{name: random.normal(100, 5, num_images) for name in STATISTICS},
            **_regions(random, num_images),
        }
        empty = {f.name: pa.nulls(num_images, f.type) for f in RESULT_SCHEMA if f.name not in known}
        tables.append(pa.table(known | empty).select(RESULT_SCHEMA.names).cast(RESULT_SCHEMA))
    rows = pa.concat_tables(tables)
    for start in range(0, rows.num_rows, ROWS_PER_SHARD):
        name = f"{start // ROWS_PER_SHARD:05d}-0123456789ab"
        write_shard(NightFolder(out, NIGHT), name, rows.slice(start, ROWS_PER_SHARD))


def _regions(random: np.random.Generator, num_images: int) -> dict[str, Any]:
    numbers = np.where(random.random(num_images) < 0.1, 2, 0).astype(np.int32)
    fields = [
        pa.array(random.integers(0, 2000, numbers.sum()), pa.int64()).cast(f.type) for f in REGION
    ]
    parts = pa.StructArray.from_arrays(fields, fields=list(REGION))
    offsets = pa.array([0, *numbers.cumsum()], pa.int32())
    return {
        "regions": pa.ListArray.from_arrays(offsets, parts),
        "num_regions": numbers,
        "area_share": numbers / 100,
        "image_width": np.full(num_images, 2000),
        "image_height": np.full(num_images, 1500),
    }
