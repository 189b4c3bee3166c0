"""The night: how much of the bare backbone's speed is left, and whether memory stays flat."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from model.backbone import Backbone, BackboneConfig
from model.precision import Precision, has_bfloat16
from pipeline.catalogue.catalogue import Category
from pipeline.images.batches import BATCH_IMAGES
from pipeline.night.fleet.fleet import Fleet
from pipeline.night.folder import NightFolder
from pipeline.night.scoring.plan import plan_night
from pipeline.night.scoring.scorer import ShardScorer
from pipeline.onboarding.prepare import prepare
from tests.bench.material import NIGHT, category, dump_of, onboard, pin, write_pictures
from tests.bench.measure import Ratio, alternate, in_fresh_process, peak_mib

NUM_GOOD = 40
NUM_SCORED = 128
FEW, MANY = 200, 2000
PASSES = 40
TILES_A_SIDE = 2


def features_once() -> Iterator[Ratio]:
    """Backbone passes per image of a training of 40 passes."""
    with tempfile.TemporaryDirectory() as scratch:
        images = write_pictures(Path(scratch, "good"), NUM_GOOD, "png")
        prepared = prepare(category(images, "efficientnet_lite0", passes=PASSES, steps_per_pass=1))
        for _ in prepared.trainer.run():
            pass
    seen = prepared.backbone.num_images_seen
    detail = f"{seen} images embedded for {NUM_GOOD} images, {PASSES} passes"
    yield Ratio(
        name="features_once", value=seen / NUM_GOOD, target=1.0, at_most=True, detail=detail
    )


def scoring_throughput() -> Iterator[Ratio]:
    """Images/s from files to Parquet over images/s of the backbone alone, on the same threads."""
    for backbone in ("efficientnet_lite0", "resnet18"):
        for suffix in ("png", "jpg"):
            yield in_fresh_process(_throughput, backbone, suffix)


def tiles_as_images() -> Iterator[Ratio]:
    """Tiles/s of large images over images/s of plain ones of a tile's size, files to Parquet."""
    yield in_fresh_process(_tiles_as_images, "resnet18")


def scoring_precision() -> Iterator[Ratio]:
    """Images/s from files to Parquet in the other numeric modes over that in float32."""
    for backbone in ("efficientnet_lite0", "resnet18", "wide_resnet50_2"):
        yield in_fresh_process(_precision, backbone, "int8")
        if has_bfloat16(torch.device("cpu")):
            yield in_fresh_process(_precision, backbone, "bfloat16")


def scoring_memory() -> Iterator[Ratio]:
    """Peak memory of a scoring process for ten times the images."""
    with tempfile.TemporaryDirectory() as scratch:
        pictures = write_pictures(Path(scratch, "good"), NUM_GOOD, "png")
        fleet = in_fresh_process(onboard, Path(scratch, "fleet"), pictures, "efficientnet_lite0")
        few, many = (
            in_fresh_process(_scoring_peak, fleet, pictures, Path(scratch, str(count)), count)
            for count in (FEW, MANY)
        )
    detail = f"{few:.0f} MiB for {FEW} images, {many:.0f} MiB for {MANY}"
    yield Ratio(name="scoring_memory", value=many / few, target=1.1, at_most=True, detail=detail)


def _throughput(backbone: str, suffix: str) -> Ratio:
    with tempfile.TemporaryDirectory() as scratch:
        pictures = write_pictures(Path(scratch, "good"), NUM_GOOD, suffix)
        fleet = onboard(Path(scratch, "fleet"), pictures, backbone)
        manifest = dump_of(pictures, Path(scratch, "dump"), NUM_SCORED)
        out = str(Path(scratch, "out"))
        tasks = plan_night(manifest, fleet, NightFolder(out, NIGHT)).tasks
        scorer = ShardScorer(fleet, NightFolder(out, NIGHT))
        value, detail = against_bare(backbone, NUM_SCORED, lambda: scorer.write(tasks))
    name = f"scoring_throughput {backbone} {suffix}"
    return Ratio(name=name, value=value, target=0.7, detail=detail)


def _tiles_as_images(backbone: str) -> Ratio:
    tile, num_scored = 256, 512
    tiles = {"size": tile, "overlap": 0, "thumbnail": False}
    ways: tuple[dict[str, object], ...] = ({"tiles": tiles}, {"crop": tile, "fit": "stretch"})
    nights = []
    with tempfile.TemporaryDirectory() as scratch:
        for side, way in zip((TILES_A_SIDE * tile, tile), ways, strict=True):
            root, count = Path(scratch, str(side)), num_scored * tile**2 // side**2
            pictures = write_pictures(root / "good", NUM_GOOD, "png", side)
            settings = category(pictures, backbone, passes=1, steps_per_pass=2).model_dump()
            settings |= {"crop": None, "resize": None} | way
            fleet = pin(root / "fleet", Category.model_validate(settings))
            folder = NightFolder(str(root / "out"), NIGHT)
            tasks = plan_night(dump_of(pictures, root / "dump", count), fleet, folder).tasks
            nights.append(partial(ShardScorer(fleet, folder).write, tasks))
        cut, plain = alternate(*nights)
    detail = (
        f"{num_scored / cut.wall_s:.0f} tiles/s, plain {num_scored / plain.wall_s:.0f} images/s"
    )
    ms = [1e3 * side.cpu_s / num_scored for side in (cut, plain)]
    detail += f"; CPU ms {ms[0]:.1f}, {ms[1]:.1f}"
    name = f"tiles_as_images {backbone}"
    return Ratio(name=name, value=plain.wall_s / cut.wall_s, target=0.9, detail=detail)


def against_bare(backbone: str, count: int, score: Callable[[], object]) -> tuple[float, str]:
    """Return images/s of scoring ``count`` images over the backbone's alone, and in words."""
    network = Backbone(BackboneConfig(name=backbone, weights="random"))
    batch = torch.zeros(BATCH_IMAGES, 224, 224, 3, dtype=torch.uint8).random_(256)

    def bare() -> None:
        for _ in range(count // BATCH_IMAGES):
            network(batch)

    alone, whole = alternate(bare, score)
    speeds = f"{count / whole.wall_s:.0f} images/s, bare {count / alone.wall_s:.0f}"
    cpu = f"CPU ms/image {1e3 * whole.cpu_s / count:.1f}, {1e3 * alone.cpu_s / count:.1f}"
    return alone.wall_s / whole.wall_s, f"{speeds}; {cpu}"


def _precision(backbone: str, mode: Precision) -> Ratio:
    with tempfile.TemporaryDirectory() as scratch:
        pictures = write_pictures(Path(scratch, "good"), NUM_GOOD, "png")
        manifest = dump_of(pictures, Path(scratch, "dump"), NUM_SCORED)
        nights = []
        modes: tuple[Precision, ...] = (mode, "float32")
        for precision in modes:
            fleet = onboard(Path(scratch, precision), pictures, backbone, precision)
            out = str(Path(scratch, f"{precision}-out"))
            tasks = plan_night(manifest, fleet, NightFolder(out, NIGHT)).tasks
            nights.append(partial(ShardScorer(fleet, NightFolder(out, NIGHT)).write, tasks))
        fast, exact = alternate(*nights, rounds=3)
    detail = f"{NUM_SCORED / fast.wall_s:.0f} images/s, float32 {NUM_SCORED / exact.wall_s:.0f}"
    ms = [1e3 * side.cpu_s / NUM_SCORED for side in (fast, exact)]
    detail += f"; CPU ms/image {ms[0]:.1f}, {ms[1]:.1f}"
    name = f"scoring_precision {backbone} {mode}"
    return Ratio(name=name, value=exact.wall_s / fast.wall_s, target=1.0, detail=detail)


def _scoring_peak(fleet: Fleet, pictures: Path, folder: Path, count: int) -> float:
    manifest = dump_of(pictures, folder / "dump", count)
    scorer = ShardScorer(fleet, NightFolder(str(folder / "out"), NIGHT))
    for task in plan_night(manifest, fleet, NightFolder(str(folder / "out"), NIGHT)).tasks:
        scorer.write([task])
    return peak_mib()
