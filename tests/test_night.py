"""Settling a night: from rows as the workers left them to the rows that people read."""

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from champions import made_up_champion
from factory import score_without_cluster, write_images
from numpy.typing import NDArray
from recount import recount
from scipy import stats

from pipeline import storage
from pipeline.calibration import CalibrationConfig
from pipeline.images.decode import read_image
from pipeline.images.image_statistics import STATISTICS, image_statistics
from pipeline.night.fleet.fleet import Champion, Fleet
from pipeline.night.folder import NightFolder
from pipeline.night.results import (
    FLAGS,
    RESULT_SCHEMA,
    ResultsError,
    read_night,
    write_shard,
)
from pipeline.night.settling.settle import settle
from pipeline.night.summary import Summary, read_summary

NIGHT = "2026-03-12"


@pytest.fixture
def folder(tmp_path: Path) -> NightFolder:
    return NightFolder(str(tmp_path), NIGHT)


def read_drift(folder: NightFolder) -> pa.Table:
    return pq.read_table(pa.BufferReader(storage.read_bytes(folder.drift)))


def test_a_scored_image_brings_its_statistics_and_waits_to_be_settled(
    folder: NightFolder, package: Path, tmp_path: Path
) -> None:
    write_images(tmp_path / "dump/steel", range(700, 703))
    (tmp_path / "dump/steel/empty.png").write_bytes(b"")
    fleet = score_without_cluster(tmp_path / "dump", folder, {"steel": package})
    rows = read_night(folder)
    bad = rows.filter(pc.not_equal(rows["status"], "ok")).to_pylist()
    (unreadable,) = ([row[name] for name in (*FLAGS, *STATISTICS)] for row in bad)
    assert unreadable == [False, False, None, None, None]
    scored = rows.filter(pc.equal(rows["status"], "ok")).to_pylist()
    assert len(scored) == 3
    for row in scored:
        pixels = read_image(row["image_uri"], fleet.champions["steel"].preprocessing).pixels
        assert pixels is not None
        alone = {name: float(v[0]) for name, v in image_statistics(pixels[None]).items()}
        assert {name: row[name] for name in STATISTICS} == alone
        assert row["flagged_fdr"] is False


def champion(name: str, scores: NDArray[np.floating], **known: Any) -> Champion:
    config = CalibrationConfig(false_alarm_rate=0.1, fdr=known.pop("fdr", 0.2))
    return made_up_champion(name, scores, config, model_version="3", **known)


def fleet_of(*champions: Champion) -> Fleet:
    return Fleet(champions={each.category: each for each in champions})


def scored(owner: Champion, scores: NDArray[np.floating], **statistics: Any) -> pa.Table:
    """Rows as a scoring worker leaves them."""
    values = scores.astype(np.float32)
    num = len(values)
    known: dict[str, Any] = {
        "image_uri": [f"s3://dump/{owner.category}/{i:06d}.png" for i in range(num)],
        "category": [owner.category] * num,
        "status": ["ok"] * num,
        "score": values,
        "p_value": owner.reference.calibration.p_value(values),
        "flagged": owner.reference.calibration.flagged(values),
        "flagged_fdr": [False] * num,
        "shard": ["s"] * num,
    }
    known |= {name: np.full(num, 100.0) for name in STATISTICS} | statistics
    missing = {f.name: pa.nulls(num, f.type) for f in RESULT_SCHEMA if f.name not in known}
    return pa.table(known | missing).select(RESULT_SCHEMA.names).cast(RESULT_SCHEMA)


def unscored(category: str, status: str, num: int = 1) -> pa.Table:
    empty: dict[str, Any] = dict.fromkeys(RESULT_SCHEMA.names)
    uris = [f"s3://dump/{category}/{status}{i}.png" for i in range(num)]
    row = empty | dict.fromkeys(FLAGS, False)
    row |= {"category": category, "status": status, "shard": "s"}
    return pa.Table.from_pylist([row | {"image_uri": uri} for uri in uris], RESULT_SCHEMA)


def write(folder: NightFolder, rows: pa.Table, rows_per_shard: int = 64, seed: int = 0) -> None:
    """Shards of mixed categories."""
    order = np.random.default_rng(seed).permutation(rows.num_rows)
    for start in range(0, rows.num_rows, rows_per_shard):
        part = rows.take(order[start : start + rows_per_shard])
        write_shard(folder, f"{start:06d}-abc", part)


@pytest.fixture
def fleet() -> Fleet:
    random = np.random.default_rng(1)
    statistics = {name: tuple(np.full(30, 100.0).tolist()) for name in STATISTICS}
    made = [
        champion("bottle", random.normal(size=199), statistics=statistics),
        champion("cable", random.normal(size=49), fdr=0.1),
        champion("idle", random.normal(size=20)),
    ]
    return fleet_of(*made)


@pytest.fixture
def rows(fleet: Fleet) -> pa.Table:
    random = np.random.default_rng(2)
    bottles = np.concatenate([random.normal(size=270), random.normal(6, 1, 30)])
    bottle, cable = fleet.champions["bottle"], fleet.champions["cable"]
    parts = [scored(bottle, bottles), scored(cable, random.normal(size=100))]
    bad = [unscored("bottle", "unreadable", 3), unscored("cable", "missing")]
    return pa.concat_tables([*parts, *bad, unscored("new-part", "unrouted", 7)])


def files_of(out: Path) -> dict[str, bytes]:
    found = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in found}


def settled_anew(folder: NightFolder, fleet: Fleet) -> Summary:
    """Settle as if it had never been done; what the rows hold stays."""
    Path(folder.settled).unlink(missing_ok=True)
    return settle(folder, fleet)


def test_the_list_in_the_rows_is_the_one_of_scipy(
    fleet: Fleet, rows: pa.Table, folder: NightFolder
) -> None:
    write(folder, rows)
    summary = settle(folder, fleet)
    settled = read_night(folder)
    others = [name for name in RESULT_SCHEMA.names if name != "flagged_fdr"]
    assert settled.select(others).equals(rows.sort_by("image_uri").select(others))
    for name in ("bottle", "cable"):
        own = settled.filter(pc.equal(settled["category"], name))
        ok = own.filter(pc.equal(own["status"], "ok"))
        adjusted = stats.false_discovery_control(ok["p_value"].to_numpy())
        expected = adjusted <= fleet.champions[name].reference.calibration.fdr
        assert ok["flagged_fdr"].to_numpy(zero_copy_only=False).tolist() == expected.tolist()
        assert summary["categories"][name]["flagged_fdr"] == expected.sum()
    bottle, cable = summary["categories"]["bottle"], summary["categories"]["cable"]
    assert bottle["flagged_fdr"] >= 30
    assert (bottle["fdr"], bottle["fdr_limit"], cable["fdr"]) == (0.2, None, 0.1)
    listed = settled.filter(settled["flagged_fdr"])["p_value"]
    assert bottle["fdr_p_value"] == pc.max(listed).as_py()
    assert (cable["flagged_fdr"], cable["fdr_p_value"]) == (0, None)
    assert "49 calibration images" in (cable["fdr_limit"] or "")
    bad = settled.filter(pc.not_equal(settled["status"], "ok"))
    assert set(bad["flagged_fdr"].to_pylist()) == {False}


def test_what_was_counted_from_a_table_is_counted_from_shards(
    fleet: Fleet, rows: pa.Table, folder: NightFolder
) -> None:
    """But for why there is no discovery and for drift; medians to a 4,096th."""
    write(folder, rows)
    absent = dataclasses.replace(fleet, without_images=frozenset({"hinge", "zip"}))
    summary = settle(folder, absent)
    expected = recount(read_night(folder), absent)
    assert summary["categories_without_images"] == ["hinge", "idle", "zip"]
    for name, category in expected["categories"].items():
        found = summary["categories"][name]
        median = category["median_score"]
        assert found["median_score"] == (median and pytest.approx(median, rel=2**-12))
        for key in ("median_score", "fdr_p_value", "fdr_limit", "drift"):
            category[key] = found[key]
    assert summary == expected
    assert read_summary(folder) == summary


def test_settling_again_writes_no_shard_and_says_the_same(
    fleet: Fleet, rows: pa.Table, folder: NightFolder, tmp_path: Path
) -> None:
    write(folder, rows)
    first = settle(folder, fleet)
    files = files_of(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*.parquet")}
    assert settle(folder, fleet) == first  # known by its etags
    assert settled_anew(folder, fleet) == first  # counted again
    assert files_of(tmp_path) == files
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_flags_that_an_earlier_release_left_null_are_no_reason_to_write_a_shard(
    fleet: Fleet, rows: pa.Table, folder: NightFolder
) -> None:
    write(folder, rows)
    expected = settle(folder, fleet)
    for path in Path(folder.results).glob("*.parquet"):
        old = pq.read_table(path)
        for name in FLAGS:
            null = pc.if_else(pc.equal(old["status"], "ok"), old[name], None)
            old = old.set_column(old.schema.get_field_index(name), name, null)
        pq.write_table(old, path)
    before = {path: path.read_bytes() for path in Path(folder.results).iterdir()}
    assert settled_anew(folder, fleet) == expected
    assert {path: path.read_bytes() for path in before} == before
    assert read_night(folder)["flagged_fdr"].null_count == 0


def test_shards_in_any_order_and_size_give_the_same_night(
    fleet: Fleet, rows: pa.Table, tmp_path: Path
) -> None:
    nights = []
    for place, size, seed in (("a", 64, 0), ("b", 7, 1), ("c", 1000, 2)):
        folder = NightFolder(str(tmp_path / place), NIGHT)
        write(folder, rows, size, seed)
        summary = settle(folder, fleet)
        nights.append((summary, read_drift(folder), read_night(folder)))
    assert nights[0] == nights[1] == nights[2]


@pytest.mark.parametrize("num_written", [0, 1, 3])
def test_a_run_that_died_between_two_shards_is_mended(
    fleet: Fleet, rows: pa.Table, tmp_path: Path, num_written: int
) -> None:
    """Some shards are as they were before settling, one has lists of another day."""
    intact, torn = (NightFolder(str(tmp_path / name), NIGHT) for name in ("whole", "died"))
    write(intact, rows)
    whole = settle(intact, fleet)
    write(torn, rows)
    shards = sorted((tmp_path / "died/results").rglob("*.parquet"))
    for path in shards[:num_written]:
        shutil.copy(tmp_path / "whole" / path.relative_to(tmp_path / "died"), path)
    name = shards[-1].name.removesuffix(".parquet")
    last = read_night(torn)
    last = last.filter(pc.is_in(last["image_uri"], pq.read_table(shards[-1])["image_uri"]))
    place = last.schema.get_field_index("flagged_fdr")
    wrong = pc.equal(last["status"], "ok")
    write_shard(
        torn,
        name,
        last.set_column(place, "flagged_fdr", wrong),
    )
    mended = settle(torn, fleet)
    assert mended == whole
    found = read_night(torn)
    assert found.equals(read_night(intact))


def test_a_shard_that_is_scored_again_is_settled_again(
    fleet: Fleet, rows: pa.Table, folder: NightFolder
) -> None:
    write(folder, rows)
    before = settle(folder, fleet)
    more = scored(fleet.champions["cable"], np.full(60, 9.0))
    uris = pa.array([f"s3://dump/cable/new{i}.png" for i in range(60)])
    write_shard(folder, "999999-abc", more.set_column(0, "image_uri", uris))
    after = settle(folder, fleet)
    assert after["categories"]["cable"]["flagged_fdr"] >= 60
    assert after["images"] == before["images"] + 60


def test_a_summary_that_is_damaged_is_written_again(
    fleet: Fleet, rows: pa.Table, folder: NightFolder
) -> None:
    write(folder, rows)
    summary = settle(folder, fleet)
    for damage in ("{", "[]", "{}", '"settled"'):
        Path(folder.summary).write_text(damage)
        assert settle(folder, fleet) == summary
    Path(folder.drift).unlink()
    assert settle(folder, fleet) == summary
    assert Path(folder.drift).exists()


def test_an_image_that_is_there_twice_is_refused_and_named(
    fleet: Fleet, rows: pa.Table, folder: NightFolder
) -> None:
    write(folder, rows)
    write_shard(folder, "again-abc", rows.slice(5, 1))
    with pytest.raises(
        ResultsError, match=r"1 of 411 images .* first s3://dump/bottle/000005\.png"
    ):
        settle(folder, fleet)


def test_images_scored_by_no_champion_of_the_fleet_are_refused(
    fleet: Fleet, rows: pa.Table, folder: NightFolder
) -> None:
    write(folder, rows)
    fleet = fleet_of(fleet.champions["bottle"], fleet.champions["idle"])
    with pytest.raises(ResultsError, match="category 'cable' has scored images, but"):
        settle(folder, fleet)


def test_p_values_of_another_calibration_are_refused(
    fleet: Fleet, rows: pa.Table, folder: NightFolder
) -> None:
    write(folder, rows)
    other = champion("bottle", np.arange(150.0))
    with pytest.raises(ResultsError, match=r"'bottle' has p-values .* champion's 150 calibration"):
        settle(folder, fleet_of(*fleet.champions.values(), other))


@pytest.mark.parametrize("known", [{}, {"bottle": 1}])
def test_a_night_without_rows_is_settled(
    fleet: Fleet, known: dict[str, int], folder: NightFolder
) -> None:
    own = fleet_of(*(fleet.champions[name] for name in known))
    summary = settle(folder, own)
    assert (summary["images"], summary["flagged_fdr"], summary["drifted"]) == (0, 0, [])
    assert read_drift(folder).num_rows == 0


def test_a_category_that_got_darker_raises_one_alert_with_its_reason(
    fleet: Fleet, folder: NightFolder, tmp_path: Path
) -> None:
    random = np.random.default_rng(3)
    light = {"brightness": tuple(np.sort(random.normal(104, 2, 199)).tolist())}
    known = {
        name: champion(name, random.normal(size=199), statistics=light)
        for name in ("dark", "bright")
    }
    known["older"] = champion("older", random.normal(size=199))
    same = {"brightness": random.normal(104, 2, 200)}
    dark = {"brightness": random.normal(82, 2, 200)}
    shifted = random.normal(1.5, 1, 200)
    parts = [
        scored(known["dark"], shifted, **dark),
        scored(known["bright"], random.normal(size=200), **same),
        scored(known["older"], random.normal(size=200), **dark),
    ]
    write(folder, pa.concat_tables(parts))
    summary = settle(folder, fleet_of(*known.values()))
    assert summary["drifted"] == ["dark"]
    drift = summary["categories"]["dark"]["drift"]
    assert drift["shifted"] == ["brightness", "score"]
    median = np.median(dark["brightness"].astype(np.float32))
    assert re.fullmatch(
        rf"images are darker than at onboarding: median brightness {median:.3g}, was 104; "
        r"scores are higher than at onboarding: median 1\.\d+, was -?0\.\d+",
        drift["reason"] or "",
    )
    older = summary["categories"]["older"]["drift"]
    assert older["score_ks"] is not None
    assert (older["brightness_ks"], older["alert"], older["reason"]) == (None, False, None)
    table = read_drift(folder)
    alerts = {(row["category"], row["statistic"]) for row in table.to_pylist() if row["alert"]}
    assert alerts == {("dark", "brightness"), ("dark", "score")}
    assert table.num_rows == 5  # two of dark and bright each, one of older
    every = pq.read_table(tmp_path / "drift", partitioning=None)  # as others read all nights
    assert every.equals(table)


def test_a_night_is_settled_on_s3_as_on_disk(
    s3: str, fleet: Fleet, rows: pa.Table, folder: NightFolder
) -> None:
    in_bucket = NightFolder(s3, NIGHT)
    for place in (in_bucket, folder):
        write_shard(place, "00000-abc", rows.slice(0, 200))
        write_shard(place, "00001-abc", rows.slice(200))
    on_disk, on_s3 = settle(folder, fleet), settle(in_bucket, fleet)
    assert on_s3 == on_disk
    assert read_night(in_bucket).equals(read_night(folder))
    assert settle(in_bucket, fleet) == on_s3
