"""Scoring shards, without a cluster: every image has its one row, and the row is right."""

import dataclasses
import datetime as dt
import io
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from factory import backbone, detector, make_fleet, texture, with_champion
from faulty_proxy import FaultyProxy
from pictures import encoded, png_header
from PIL import Image

from model.backbone import Backbone, BackboneConfig
from pipeline import storage
from pipeline.calibration import CalibrationConfig, fit
from pipeline.images.decode import read_image
from pipeline.images.regions import RegionRule
from pipeline.night.fleet.fleet import Champion, Fleet
from pipeline.night.folder import NightFolder
from pipeline.night.listing import list_dump
from pipeline.night.manifest import MANIFEST_SCHEMA, Shard, shards
from pipeline.night.results import RESULT_SCHEMA, read_night
from pipeline.night.scoring import detectors
from pipeline.night.scoring.observer import Observer
from pipeline.night.scoring.plan import result_name
from pipeline.night.scoring.scorer import ShardScorer
from pipeline.night.scoring.task import Task
from pipeline.package import Package
from pipeline.storage.retry import Retry

NIGHT = "2026-03-12"
NOW = dt.datetime(2026, 3, 13, 1, 2, 3, 456789, tzinfo=dt.UTC)
TOLERANCE = 2e-3  # another batch is another order of sums, before rounding to half precision


@pytest.fixture
def fleet(packages: dict[str, Path], tmp_path: Path) -> Fleet:
    return make_fleet(NightFolder(str(tmp_path), NIGHT), packages)


@pytest.fixture(autouse=True)
def loads(monkeypatch: pytest.MonkeyPatch) -> list[BackboneConfig]:
    """Every backbone that is loaded; the network itself is there already."""
    asked: list[BackboneConfig] = []

    def fetch(config: BackboneConfig) -> Backbone:
        asked.append(config)
        return backbone()

    monkeypatch.setattr(detectors, "fetch_backbone", fetch)
    return asked


def write_dump(dump: str, num_images: int = 5) -> pa.Table:
    """Textures of both categories, some scratched, and one of everything that goes wrong."""
    for name, first in (("steel", 700), ("wood", 10_700)):
        for i in range(num_images):
            picture = Image.fromarray(texture(first + i, scratched=i % 2 == 1))
            storage.write_bytes(f"{dump}/{name}/{i}.png", encoded(picture))
    storage.write_bytes(f"{dump}/steel/empty.png", b"")
    storage.write_bytes(f"{dump}/steel/huge.png", png_header(20_000, 20_000))
    storage.write_bytes(f"{dump}/new-part/0.png", encoded(Image.fromarray(texture(1))))
    storage.write_bytes(f"{dump}/stray.png", encoded(Image.fromarray(texture(2))))
    return list_dump(dump).images


def tasks_of(manifest: pa.Table, fleet: Fleet, rows_per_shard: int = 1000) -> list[Task]:
    cut = shards(manifest, rows_per_shard)
    return [Task(result_name(shard, fleet), shard) for shard in cut]


def score(fleet: Fleet, out: Path | str, manifest: pa.Table) -> pa.Table:
    return scorer(fleet, out).score(tasks_of(manifest, fleet))


def scorer(fleet: Fleet, out: Path | str) -> ShardScorer:
    return ShardScorer(fleet, NightFolder(str(out), NIGHT), clock=lambda: NOW)


def by_name(rows: pa.Table) -> dict[str, dict[str, Any]]:
    return {"/".join(row["image_uri"].split("/")[-2:]): row for row in rows.to_pylist()}


def with_calibration(fleet: Fleet, category: str, scores: list[float], rate: float = 0.1) -> Fleet:
    made = fit(np.array(scores), CalibrationConfig(false_alarm_rate=rate))
    reference = dataclasses.replace(fleet.champions[category].reference, calibration=made)
    return with_champion(fleet, category, reference=reference)


def test_every_row_of_the_manifest_has_its_row_in_the_same_order(
    fleet: Fleet, tmp_path: Path
) -> None:
    manifest = write_dump(f"{tmp_path}/dump")
    tasks = tasks_of(manifest, fleet, 3)
    rows = scorer(fleet, tmp_path).score(tasks)
    assert rows.schema == RESULT_SCHEMA
    listed = pa.concat_tables([task.shard.rows for task in tasks])
    for name in ("image_uri", "image_etag", "category"):
        assert rows[name].to_pylist() == listed[name].to_pylist()
    names = [task.name for task in tasks for _ in range(task.shard.rows.num_rows)]
    assert rows["shard"].to_pylist() == names
    assert set(rows["scored_at"].to_pylist()) == {NOW}


def test_what_cannot_be_scored_has_a_status_and_a_reason_and_nothing_else(
    fleet: Fleet, tmp_path: Path
) -> None:
    manifest = write_dump(f"{tmp_path}/dump")
    gone = {"image_uri": f"{tmp_path}/dump/steel/gone.png", "category": "steel"}
    listed = pa.concat_tables([manifest, pa.Table.from_pylist([gone], MANIFEST_SCHEMA)])
    rows = by_name(score(fleet, tmp_path, listed))
    statuses = {name: row["status"] for name, row in rows.items() if row["status"] != "ok"}
    assert statuses == {
        "steel/empty.png": "unreadable",
        "steel/huge.png": "too_large",
        "steel/gone.png": "missing",
        "new-part/0.png": "unrouted",
        "dump/stray.png": "unrouted",
    }
    for name in statuses:
        assert rows[name]["error"]
        for field in ("score", "p_value", "threshold", "model_name", "map_uri"):
            assert rows[name][field] is None
        assert (rows[name]["flagged"], rows[name]["flagged_fdr"]) == (False, False)
    assert "'new-part' has no champion" in rows["new-part/0.png"]["error"]
    assert all(row["error"] is None for row in rows.values() if row["status"] == "ok")


def test_scores_are_the_detectors_own_and_the_row_names_its_champion(
    fleet: Fleet, packages: dict[str, Path], tmp_path: Path
) -> None:
    rows = score(fleet, tmp_path, write_dump(f"{tmp_path}/dump")).to_pylist()
    scored = [row for row in rows if row["status"] == "ok"]
    assert len(scored) == 10
    for row in scored:
        champion = fleet.champions[row["category"]]
        own = detector(Package.read(packages[row["category"]]))
        pixels = read_image(row["image_uri"], champion.preprocessing).pixels
        assert pixels is not None
        expected = own(torch.from_numpy(pixels)[None])[0].item()
        assert row["score"] == pytest.approx(expected, abs=TOLERANCE)
        assert row["model_name"] == f"nightshift.{row['category']}"
        assert (row["model_version"], row["model_digest"]) == ("1", champion.model_digest)
        assert row["threshold"] == pytest.approx(champion.reference.calibration.threshold)
        assert row["false_alarm_rate"] == 0.1


def test_flags_are_strictly_above_the_threshold_and_p_values_count_the_calibration(
    fleet: Fleet, tmp_path: Path
) -> None:
    manifest = write_dump(f"{tmp_path}/dump")
    first = score(fleet, tmp_path, manifest).to_pylist()
    scores = sorted(row["score"] for row in first if row["category"] == "steel" and row["score"])
    assert len(set(scores)) == 5
    # n = 9 at rate 0.1: k = ceil(10 * 0.9) = 9, so the largest calibration score is the threshold.
    held_out = [scores[0]] * 4 + [scores[1]] * 2 + [scores[2]] * 2 + [scores[3]]
    rows = score(with_calibration(fleet, "steel", held_out), tmp_path, manifest).to_pylist()
    decided = {row["score"]: row for row in rows if row["category"] == "steel" and row["score"]}
    assert [decided[score]["flagged"] for score in scores] == [False, False, False, False, True]
    # 1 + how many of the 9 are at least as large, out of 10
    expected = [1.0, 0.6, 0.4, 0.2, 0.1]
    assert [decided[score]["p_value"] for score in scores] == pytest.approx(expected)


def test_a_flagged_image_has_a_map_on_its_champions_scale_and_an_ordinary_one_has_none(
    fleet: Fleet, packages: dict[str, Path], tmp_path: Path
) -> None:
    fleet = with_calibration(fleet, "steel", [-1e6] * 9)
    fleet = with_calibration(fleet, "wood", [1e6] * 9)
    rows = score(fleet, tmp_path, write_dump(f"{tmp_path}/dump")).to_pylist()
    scored = [row for row in rows if row["status"] == "ok"]
    own = detector(Package.read(packages["steel"]))
    for row in scored:
        assert row["flagged"] == (row["category"] == "steel")
        assert (row["map_uri"] is not None) == row["flagged"]
        if not row["flagged"]:
            continue
        assert row["map_uri"].startswith(f"{tmp_path}/maps/night={NIGHT}/steel/")
        picture = Image.open(io.BytesIO(storage.read_bytes(row["map_uri"])))
        assert (picture.mode, picture.size) == ("L", (64, 64))
        pixels = read_image(row["image_uri"], fleet.champions["steel"].preprocessing).pixels
        assert pixels is not None
        expected = fleet.champions["steel"].reference.map_scale.to_grey(
            own.maps(own(torch.from_numpy(pixels)[None])[1])[0].numpy()
        )
        assert np.abs(np.asarray(picture, int) - expected.astype(int)).max() <= 2
    assert len({row["map_uri"] for row in scored}) == 6  # five of steel, and None


def test_an_unusual_image_below_the_threshold_has_a_map_too(fleet: Fleet, tmp_path: Path) -> None:
    """p = 2 / 101 is above the rate of 0.01 and below 0.05."""
    calm = with_calibration(fleet, "steel", [-1e6] * 99 + [1e6], rate=0.01)
    manifest = write_dump(f"{tmp_path}/dump", num_images=1)
    row = by_name(score(calm, tmp_path, manifest))["steel/0.png"]
    assert row["p_value"] == pytest.approx(2 / 101)
    assert not row["flagged"]
    assert storage.exists(row["map_uri"])


def test_images_have_regions_where_their_champion_has_a_level_for_them(
    fleet: Fleet, tmp_path: Path
) -> None:
    """And they do not depend on whether a map is kept."""
    levels = {"steel": RegionRule(threshold=-1e6, rate=0.1, num_images=9), "wood": None}
    for name, rule in levels.items():
        reference = dataclasses.replace(fleet.champions[name].reference, regions=rule)
        fleet = with_champion(fleet, name, reference=reference)
    fleet = with_calibration(fleet, "steel", [1e6] * 9)
    manifest = write_dump(f"{tmp_path}/dump", num_images=1)
    rows = by_name(score(fleet, tmp_path, manifest))
    steel, wood = rows["steel/0.png"], rows["wood/0.png"]
    assert (steel["map_uri"], steel["num_regions"]) == (None, 1)
    assert (steel["image_width"], steel["image_height"]) == (96, 96)
    (region,) = steel["regions"]
    assert [region[name] for name in ("x", "y", "width", "height")] == [0, 0, 96, 96]
    assert (steel["area_share"], wood["image_width"]) == (1.0, 96)
    assert [wood[name] for name in ("regions", "num_regions", "area_share")] == [None] * 3
    failed = rows["steel/empty.png"]
    assert [failed[name] for name in ("regions", "num_regions", "image_width")] == [None] * 3


def test_an_image_has_the_same_bits_in_whatever_company(fleet: Fleet, tmp_path: Path) -> None:
    manifest = write_dump(f"{tmp_path}/dump", num_images=11)  # more than one batch
    together = score(fleet, tmp_path, manifest)
    alone = [scorer(fleet, tmp_path).score([task]) for task in tasks_of(manifest, fleet, 1)]
    others = by_name(pa.concat_tables(alone))
    for name, row in by_name(together).items():
        assert row | {"shard": None} == others[name] | {"shard": None}


def test_one_backbone_serves_all_categories_and_sees_each_image_once(
    fleet: Fleet, tmp_path: Path, loads: list[BackboneConfig]
) -> None:
    manifest = write_dump(f"{tmp_path}/dump", num_images=9)
    before = backbone().num_images_seen
    worker = scorer(fleet, tmp_path)
    for task in tasks_of(manifest, fleet, 7):
        worker.score([task])
    assert backbone().num_images_seen - before == 18
    assert len(loads) == 1


def test_what_is_written_is_read_again_as_the_nights_rows(fleet: Fleet, tmp_path: Path) -> None:
    manifest = write_dump(f"{tmp_path}/dump")
    worker = scorer(fleet, tmp_path)
    tasks = tasks_of(manifest, fleet, 3)
    written = worker.write(tasks)
    assert {shard.name for shard in written} == {task.name for task in tasks}
    statuses = sum((Counter(shard.statuses) for shard in written), Counter())
    assert statuses == {"ok": 10, "unrouted": 2, "unreadable": 1, "too_large": 1}
    stored = read_night(NightFolder(str(tmp_path), NIGHT))
    assert stored.equals(worker.score(tasks).sort_by("image_uri"))
    assert sum(shard.num_flagged for shard in written) == stored["flagged"].to_pylist().count(True)
    worker.write(tasks)
    assert read_night(NightFolder(str(tmp_path), NIGHT)).equals(stored)


def test_a_night_on_s3_has_the_rows_of_the_same_night_on_disk(
    s3: str, packages: dict[str, Path], tmp_path: Path
) -> None:
    rows = {}
    for place in (s3, str(tmp_path)):
        fleet = make_fleet(NightFolder(place, NIGHT), packages)
        fleet = with_calibration(fleet, "steel", [-1e6] * 9)
        manifest = write_dump(f"{place}/dump")
        scorer(fleet, place).write(tasks_of(manifest, fleet))
        rows[place] = by_name(read_night(NightFolder(place, NIGHT)))
    for name, row in rows[s3].items():
        assert row["image_uri"].startswith(f"{s3}/dump/")
        assert row["map_uri"] is None or storage.exists(row["map_uri"])
        other = rows[str(tmp_path)][name]
        for field in ("status", "score", "p_value", "flagged", "model_digest"):
            assert row[field] == other[field]
        assert (row["map_uri"] is None) == (other["map_uri"] is None)


def only_shard(rows: pa.Table) -> Shard:
    (shard,) = shards(rows, 1000)
    return shard


def test_results_are_named_by_rows_and_champions_and_nothing_else(
    fleet: Fleet, tmp_path: Path
) -> None:
    manifest = write_dump(f"{tmp_path}/dump")
    steel = manifest.filter(pc.equal(manifest["category"], "steel"))
    name = result_name(only_shard(steel), fleet)
    first, second, *_ = shards(steel, 2)
    reordered = Fleet(champions=dict(reversed(fleet.champions.items())))
    moved = with_champion(fleet, "steel", package="s3://elsewhere")
    moved = with_champion(moved, "wood", model_digest="0" * 64)
    chunked = pa.concat_tables([steel.slice(0, 2), steel.slice(2)])
    assert result_name(only_shard(steel), reordered) == name
    assert result_name(only_shard(steel), moved) == name
    assert result_name(only_shard(chunked), fleet) == name

    other_digest = with_champion(fleet, "steel", model_digest="0" * 64)
    other_version = with_champion(fleet, "steel", model_version="2")
    only_wood = Fleet(champions={"wood": fleet.champions["wood"]})
    new_etag = steel.set_column(1, "image_etag", pa.array(["e"] * steel.num_rows))
    new_category = steel.set_column(3, "category", pa.array(["wood"] * steel.num_rows))
    names = {
        name,
        result_name(only_shard(steel), other_digest),
        result_name(only_shard(steel), other_version),
        result_name(only_shard(steel), only_wood),  # unrouted is another answer
        result_name(only_shard(steel.slice(1)), fleet),
        result_name(only_shard(new_etag), fleet),
        result_name(only_shard(new_category), fleet),
        result_name(first, fleet),
        result_name(second, fleet),
    }
    assert len(names) == 9


class Refusing:
    """A storage that lets nobody read some images, and notes how often it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refused: Callable[[str], bool]) -> None:
        self.asked: Counter[str] = Counter()
        read = storage.read_bytes

        def read_bytes(uri: str, *arguments: Any) -> bytes:
            self.asked[uri] += 1
            if refused(uri):
                raise storage.StorageAway(f"{uri}: the server does not answer")
            return read(uri, *arguments)

        monkeypatch.setattr(storage, "read_bytes", read_bytes)


def test_a_champion_that_cannot_be_used_costs_its_own_images_only(
    fleet: Fleet, tmp_path: Path
) -> None:
    manifest = write_dump(f"{tmp_path}/dump")
    usable = Fleet(
        champions={"wood": fleet.champions["wood"]}, unusable={"steel": "its package is damaged"}
    )
    rows = score(usable, tmp_path, manifest).to_pylist()
    reasons = {(row["status"], row["error"]) for row in rows if row["category"] == "steel"}
    assert reasons == {("broken_model", "its package is damaged")}
    assert {row["status"] for row in rows if row["category"] == "wood"} == {"ok"}


def test_heads_that_are_gone_are_asked_for_once_and_cost_their_own_images_only(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_dump(f"{tmp_path}/dump")
    storage.delete(f"{fleet.champions['steel'].package}/head.safetensors")
    asked: list[str] = []
    load = Champion.load_heads
    monkeypatch.setattr(
        Champion,
        "load_heads",
        lambda champion: [asked.append(champion.category), load(champion)][1],
    )
    rows = score(fleet, tmp_path, manifest).to_pylist()
    (reason,) = {(row["status"], row["error"]) for row in rows if row["category"] == "steel"}
    assert reason[0] == "broken_model"
    assert "head.safetensors does not exist" in reason[1]
    assert {row["status"] for row in rows if row["category"] == "wood"} == {"ok"}
    assert sorted(asked) == ["steel", "wood"]


def test_heads_and_stored_rows_are_asked_for_again(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_dump(f"{tmp_path}/dump")
    expected = score(fleet, tmp_path, manifest)
    tasks = tasks_of(manifest, fleet)
    scorer(fleet, tmp_path).write(tasks)
    again = [dataclasses.replace(task, reuse=(task.name,)) for task in tasks]
    seen: set[str] = set()

    def once(uri: str) -> bool:
        first = uri not in seen and ("/packages/" in uri or "/results/" in uri)
        seen.add(uri)
        return first

    refusing = Refusing(monkeypatch, once)
    worker = ShardScorer(
        fleet, NightFolder(str(tmp_path), NIGHT), clock=lambda: NOW, retry=Retry(first_pause_s=0)
    )
    assert worker.score(again) == expected
    assert any("/results/" in uri for uri in refusing.asked)
    assert worker.score(tasks) == expected
    assert any("/packages/" in uri for uri in refusing.asked)


def test_an_image_that_never_comes_is_unreachable_and_its_neighbours_are_scored(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_dump(f"{tmp_path}/dump")
    refusing = Refusing(monkeypatch, lambda uri: uri.endswith("steel/3.png"))
    worker = ShardScorer(
        fleet, NightFolder(str(tmp_path), NIGHT), retry=Retry(attempts=3, first_pause_s=0)
    )
    rows = by_name(worker.score(tasks_of(manifest, fleet)))
    assert rows["steel/3.png"]["status"] == "unreachable"
    assert "the server does not answer" in rows["steel/3.png"]["error"]
    assert sum(row["status"] == "ok" for row in rows.values()) == 9
    assert refusing.asked[f"{tmp_path}/dump/steel/3.png"] == 3


def test_a_storage_that_gives_nothing_any_more_stops_the_night(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_dump(f"{tmp_path}/dump", num_images=30)
    Refusing(monkeypatch, lambda uri: "/dump/" in uri)
    retry = Retry(attempts=2, first_pause_s=0, max_failures=5)
    worker = ShardScorer(fleet, NightFolder(str(tmp_path), NIGHT), retry=retry)
    with pytest.raises(storage.StorageAway, match="does not answer"):
        worker.write(tasks_of(manifest, fleet))
    assert (
        read_night(NightFolder(str(tmp_path), NIGHT)).num_rows <= 2
    )  # unrouted ones, which nobody reads


def test_what_happens_to_images_is_told(fleet: Fleet, tmp_path: Path) -> None:
    class Listener(Observer):
        def __init__(self) -> None:
            self.stages: Counter[str] = Counter()
            self.images: Counter[str] = Counter()
            self.flagged = 0

        def took(self, stage: str, seconds: float) -> None:
            assert seconds >= 0
            self.stages[stage] += 1

        def finished(self, status: str, num_images: int, num_flagged: int) -> None:
            self.images[status] += num_images
            self.flagged += num_flagged

    heard = Listener()
    manifest = write_dump(f"{tmp_path}/dump")
    written = ShardScorer(fleet, NightFolder(str(tmp_path), NIGHT), observer=heard).write(
        tasks_of(manifest, fleet)
    )
    assert heard.images == {"ok": 10, "unrouted": 2, "unreadable": 1, "too_large": 1}
    assert heard.flagged == sum(shard.num_flagged for shard in written)
    assert heard.stages["fetch"] == heard.stages["decode"] == 12  # all but the unrouted ones
    assert heard.stages["score"] == 2  # batches
    assert heard.stages["write"] >= len(written)


def test_a_storage_on_a_bad_day_changes_no_row(s3: str, packages: dict[str, Path]) -> None:
    """Every fifth request fails in some way: 500, 503, hung up before or in the middle, slow."""
    manifest = write_dump(f"{s3}/dump", num_images=20)
    fleet = make_fleet(NightFolder(s3, NIGHT), packages)
    expected = score(fleet, f"{s3}/quiet", manifest)
    retry = Retry(first_pause_s=0.01)
    with (
        FaultyProxy(os.environ["AWS_ENDPOINT_URL"], share=0.2) as proxy,
        pytest.MonkeyPatch.context() as bad_day,
    ):
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            bad_day.setenv(name, proxy.endpoint_url)
        worker = ShardScorer(fleet, NightFolder(s3, NIGHT), clock=lambda: NOW, retry=retry)
        worker.write(tasks_of(manifest, fleet))
    assert proxy.faults.total() - proxy.faults[""] >= 5
    found = read_night(NightFolder(s3, NIGHT))
    places = {"map_uri": None}
    for row, other in zip(
        found.to_pylist(), expected.sort_by("image_uri").to_pylist(), strict=True
    ):
        assert row | places == other | places
