"""The night at size: many categories in one batch, a thousand resident, a million rows again."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from model.folding import FoldedHeads
from model.recipe import PRESETS
from pipeline.night.dumps import NIGHT_SCHEMA, NightImages, store_images, take_in
from pipeline.night.fleet.fleet import Fleet
from pipeline.night.folder import NightFolder
from pipeline.night.manifest import shards
from pipeline.night.record import SettledRecord, fingerprint, write_record
from pipeline.night.results import stored_shards
from pipeline.night.scoring import plan as planning
from pipeline.night.scoring.detectors import Detectors, _size_bytes
from pipeline.night.scoring.plan import plan_night, result_name
from pipeline.night.scoring.scorer import ShardScorer
from tests.bench.material import NIGHT, dump_of, onboard, write_pictures
from tests.bench.measure import Ratio, alternate, in_fresh_process, peak_mib
from tests.support.folded_heads import empty_head

BATCH = 64
MANY = 1000  # categories
NUM_GOOD = 40
NUM_SCORED = 512
ROWS = 1_000_000
WIDE = (512, 1024)  # channels of levels 2 and 3 of WideResNet-50


def mixed_batch() -> Iterator[Ratio]:
    """A batch of 64 categories beside a batch of one category."""
    for backbone in ("efficientnet_lite0", "resnet18"):
        yield in_fresh_process(_mixed_batch, backbone)


def many_categories() -> Iterator[Ratio]:
    """Images/s of a shard of each of many categories beside as many images of one."""
    yield in_fresh_process(_many_categories)


def resident_heads() -> Iterator[Ratio]:
    """Memory of a thousand categories' default heads with WideResNet-50."""
    yield in_fresh_process(_resident_heads)


def corrupt_images() -> Iterator[Ratio]:
    """Time of a night with one image in a hundred damaged beside a sound one."""
    yield in_fresh_process(_corrupt_images)


def nothing_new() -> Iterator[Ratio]:
    """Seconds to find that a million rows are scored already."""
    yield in_fresh_process(_nothing_new)


def _mixed_batch(backbone: str) -> Ratio:
    with tempfile.TemporaryDirectory() as scratch:
        fleet = _fleet_of(Path(scratch), backbone, BATCH)
        detectors = Detectors(fleet.champions)
        images = torch.zeros(BATCH, 224, 224, 3, dtype=torch.uint8).random_(256)
        names = sorted(fleet.champions)
        same, mixed = alternate(
            lambda: detectors.score([names[0]] * BATCH, images),
            lambda: detectors.score(names, images),
        )
    detail = (
        f"{1e3 * mixed.wall_s / BATCH:.1f} ms/image, one category {1e3 * same.wall_s / BATCH:.1f}"
    )
    value = mixed.wall_s / same.wall_s
    return Ratio(
        name=f"mixed_batch {backbone}", value=value, target=1.15, at_most=True, detail=detail
    )


def _many_categories() -> Ratio:
    with tempfile.TemporaryDirectory() as scratch:
        pictures = write_pictures(Path(scratch, "good"), NUM_GOOD, "png")
        fleet = _fleet_of(Path(scratch), "resnet18", NUM_SCORED)
        manifest = dump_of(pictures, Path(scratch, "dump"), NUM_SCORED)
        spread = manifest.set_column(3, "category", pa.array(sorted(fleet.champions)))
        single = manifest.set_column(3, "category", pa.array([min(fleet.champions)] * NUM_SCORED))
        folder = NightFolder(str(Path(scratch, "out")), NIGHT)
        scorer = ShardScorer(fleet, folder)
        both = [plan_night(table, fleet, folder).tasks for table in (single, spread)]
        one, many = alternate(*(lambda tasks=tasks: scorer.score(tasks) for tasks in both))
    detail = f"{NUM_SCORED} images of {NUM_SCORED} categories, heads resident"
    value = one.wall_s / many.wall_s
    return Ratio(name="many_categories", value=value, target=0.9, detail=detail)


def _resident_heads() -> Ratio:
    recipe = PRESETS["default"].recipe
    assert recipe.image is not None
    units = [c.head.members * c.head.hidden for c in (recipe.patch, recipe.image)]
    before, held = peak_mib(), []
    for _ in range(MANY):
        heads = FoldedHeads(empty_head(WIDE, units[0]), empty_head(WIDE, units[1]))
        heads.halve()
        held.append(heads)
    gigabytes = sum(map(_size_bytes, held)) / 1e9
    detail = f"{gigabytes:.2f} GB by size, {(peak_mib() - before) / 953.7:.2f} GB of the process"
    return Ratio(
        name="resident_heads", value=gigabytes / 3.5, target=1.0, at_most=True, detail=detail
    )


def _corrupt_images() -> Ratio:
    with tempfile.TemporaryDirectory() as scratch:
        pictures = write_pictures(Path(scratch, "good"), NUM_GOOD, "jpg")
        fleet = onboard(Path(scratch, "fleet"), pictures, "resnet18")
        sound = dump_of(pictures, Path(scratch, "sound"), NUM_SCORED)
        damaged = dump_of(pictures, Path(scratch, "damaged"), NUM_SCORED)
        for uri in damaged["image_uri"].to_pylist()[::100]:
            content = Path(uri).read_bytes()
            Path(uri).unlink()  # it is a link
            Path(uri).write_bytes(content[: len(content) // 2])
        folder = NightFolder(str(Path(scratch, "out")), NIGHT)
        scorer = ShardScorer(fleet, folder)
        etags = pa.nulls(NUM_SCORED, pa.string())
        both = [
            plan_night(table.set_column(1, "image_etag", etags), fleet, folder).tasks
            for table in (sound, damaged)
        ]
        good, bad = alternate(*(lambda tasks=tasks: scorer.score(tasks) for tasks in both))
    detail = f"{len(range(0, NUM_SCORED, 100))} of {NUM_SCORED} images cut in half"
    value = bad.wall_s / good.wall_s
    return Ratio(name="corrupt_images", value=value, target=1.02, at_most=True, detail=detail)


def _nothing_new() -> Ratio:
    empty = Fleet(champions={})
    with tempfile.TemporaryDirectory() as out:
        folder = NightFolder(out, NIGHT)
        numbers = np.arange(ROWS)
        categories = pa.array([f"c{i % MANY:04d}" for i in numbers])
        uris = pa.array([f"s3://dump/c{i % MANY:04d}/line-3/{i:09d}.jpg" for i in numbers])
        etags = pa.array([f"{i:032x}" for i in numbers])
        dumps = pa.array(["s3://dump"] * ROWS)
        listed = pa.table([uris, etags, pa.array(numbers), categories, dumps], NIGHT_SCHEMA)
        store_images(NightImages(rows=listed), folder)
        for shard in shards(listed, planning.ROWS_PER_SHARD):
            path = Path(folder.shard(result_name(shard, empty)))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        record = SettledRecord(fingerprint=fingerprint(stored_shards(folder)), with_failures=())
        write_record(folder, record)
        started = time.monotonic()
        plan = plan_night(take_in(folder.manifest, folder)[0].manifest, empty, folder)
        seconds = time.monotonic() - started
        assert not plan.tasks
        size = pq.ParquetFile(folder.manifest).metadata.serialized_size
    detail = f"{seconds:.1f} s for {ROWS:,} rows in {len(plan.names):,} shards, footer {size} bytes"
    return Ratio(name="nothing_new", value=seconds / 10, target=1.0, at_most=True, detail=detail)


def _fleet_of(scratch: Path, backbone: str, count: int) -> Fleet:
    """Many categories that share one package; each has its own copy of the heads."""
    pictures = write_pictures(scratch / "fleet-good", NUM_GOOD, "png")
    (champion,) = onboard(scratch / "fleet", pictures, backbone).champions.values()
    names = [f"c{i:04d}" for i in range(count)]
    return Fleet(champions={name: replace(champion, category=name) for name in names})
