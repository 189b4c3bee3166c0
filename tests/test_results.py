import datetime as dt
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import storage
from pipeline.night.folder import NightError, NightFolder
from pipeline.night.results import (
    LATER,
    RESULT_SCHEMA,
    ResultsError,
    by_category,
    read_night,
    read_shard,
    remove_shards,
    stored_shards,
    write_shard,
)
from pipeline.night.summary import read_summary, write_summary

NIGHT = "2026-03-12"


@pytest.fixture
def folder(tmp_path: Path) -> NightFolder:
    return NightFolder(str(tmp_path), NIGHT)


def row(uri: str, **known: Any) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(RESULT_SCHEMA.names)
    empty |= {"flagged": False, "flagged_fdr": False}
    return empty | {"image_uri": uri, "category": "bottle", "status": "ok", "shard": "s"} | known


def scored(uri: str, score: float, flagged: bool, **known: Any) -> dict[str, Any]:
    champion = {"threshold": 1.5, "false_alarm_rate": 0.1, "model_version": "3"}
    when = dt.datetime(2026, 3, 13, 2, 0, tzinfo=dt.UTC)
    values = {"score": score, "p_value": 0.25, "flagged": flagged, "scored_at": when}
    return row(uri, **champion, **values, **known)


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=RESULT_SCHEMA)


def test_the_schema_is_the_one_that_others_read() -> None:
    expected = (
        "image_uri:string image_etag:string category:string status:string error:string score:float "
        "p_value:double flagged:bool flagged_fdr:bool threshold:float false_alarm_rate:double "
        "model_name:string model_version:string model_digest:string map_uri:string "
        "brightness:float contrast:float sharpness:float image_mode:string outside_range:float "
        "image_width:int32 image_height:int32 regions:list<item: struct<x: int32, y: int32, "
        "width: int32, height: int32, area: int64, share: float, peak: float, centroid_x: float, "
        "centroid_y: float>> num_regions:int32 area_share:float "
        "scored_at:timestamp[us, tz=UTC] shard:string"
    )
    assert " ".join(f"{field.name}:{field.type}" for field in RESULT_SCHEMA) == expected


def test_a_night_is_named_by_its_date_everywhere() -> None:
    folder = NightFolder("s3://bucket/out/", NIGHT)
    assert folder.results == "s3://bucket/out/results/night=2026-03-12"
    assert folder.shard("00001-abc") == f"{folder.results}/00001-abc.parquet"


@pytest.mark.parametrize(
    "night",
    [
        "2026-02-30",
        "20260312",
        "2026-3-12",
        "yesterday",
        "",
        "2026-03-12/..",
        "2026-03-12\n",
        "２０２６-03-12",
    ],
)
def test_what_is_no_date_is_refused_as_a_night(night: str) -> None:
    with pytest.raises(NightError, match="YYYY-MM-DD"):
        NightFolder("out", night)


def test_rows_come_back_as_they_were_written_and_sorted(folder: NightFolder) -> None:
    first = table(scored("b.png", 1.25, False), row("a.png", status="unreadable", error="0 bytes"))
    second = table(scored("c.png", 2.5, True, map_uri="m.png", model_digest="d"))
    write_shard(folder, "00001-bbb", second)
    write_shard(folder, "00000-aaa", first)
    uri = folder.shard("00000-aaa")
    assert pq.read_table(uri).to_pylist() == first.to_pylist()  # any Parquet reader will do
    expected = [first.to_pylist()[1], first.to_pylist()[0], second.to_pylist()[0]]
    night = read_night(folder)
    assert night.schema.equals(RESULT_SCHEMA)
    assert night.to_pylist() == expected


def test_columns_may_arrive_in_any_order_and_in_wider_types(folder: NightFolder) -> None:
    rows = table(scored("a.png", 1.25, False))
    wide = rows.set_column(5, "score", rows["score"].cast(pa.float64())).select(
        list(reversed(RESULT_SCHEMA.names))
    )
    write_shard(folder, "00000-aaa", wide)
    assert read_night(folder).to_pylist() == rows.to_pylist()


def test_rows_without_a_column_or_without_an_address_are_not_written(folder: NightFolder) -> None:
    rows = table(scored("a.png", 1.25, False))
    with pytest.raises(KeyError, match="shard"):
        write_shard(folder, "00000-aaa", rows.drop_columns(["shard"]))
    nameless = rows.set_column(0, "image_uri", pa.array([None], pa.string()))
    with pytest.raises(ValueError, match="null"):
        write_shard(folder, "00000-aaa", nameless)
    assert stored_shards(folder) == {}


def test_a_shard_written_twice_is_there_once(folder: NightFolder) -> None:
    write_shard(folder, "00000-aaa", table(scored("a.png", 1.0, False)))
    write_shard(folder, "00000-aaa", table(scored("a.png", 2.0, True)))
    assert read_night(folder)["score"].to_pylist() == [2.0]


def test_finished_shards_are_known_by_name_and_forgotten_on_request(folder: NightFolder) -> None:
    assert stored_shards(folder) == {}
    for name in ("00000-aaa", "00001-bbb"):
        write_shard(folder, name, table(scored(f"{name}.png", 1.0, False)))
    Path(folder.results, "notes.txt").write_text("not a shard")
    assert stored_shards(folder).keys() == {"00000-aaa", "00001-bbb"}
    remove_shards(folder, ["00000-aaa", "00009-was-never-there"])
    assert stored_shards(folder).keys() == {"00001-bbb"}


def test_a_night_without_shards_has_no_rows(folder: NightFolder) -> None:
    night = read_night(folder)
    assert night.num_rows == 0
    assert night.schema.equals(RESULT_SCHEMA)


def test_an_image_with_two_rows_is_refused_and_named_with_its_shards(folder: NightFolder) -> None:
    write_shard(folder, "00000-aaa", table(scored("a.png", 1.0, False, shard="00000-aaa")))
    again = table(
        scored("a.png", 1.0, False, shard="00000-bbb"),
        scored("b.png", 1.0, False, shard="00000-bbb"),
    )
    write_shard(folder, "00000-bbb", again)
    with pytest.raises(
        ResultsError, match=r"1 of 2 images .* a\.png in shard\(s\) 00000-aaa, 00000-bbb"
    ):
        read_night(folder)


@pytest.mark.parametrize("zeros", [slice(-20, None), slice(4, 40)])
def test_a_damaged_shard_is_named(folder: NightFolder, zeros: slice) -> None:
    write_shard(folder, "00000-aaa", table(scored("a.png", 1.0, False)))
    path = Path(folder.shard("00000-aaa"))
    content = bytearray(path.read_bytes())
    content[zeros] = bytes(len(content[zeros]))
    path.write_bytes(content)
    with pytest.raises(ResultsError, match=r"00000-aaa\.parquet does not hold result rows"):
        read_night(folder)


def test_a_shard_of_another_format_is_named(folder: NightFolder) -> None:
    write_shard(folder, "00000-aaa", table(scored("a.png", 1.0, False)))
    uri = folder.shard("00000-aaa")
    pq.write_table(pa.table({"path": ["a.png"]}), uri)
    with pytest.raises(ResultsError, match=r"00000-aaa\.parquet does not hold result rows"):
        read_night(folder)


def test_groups_hold_every_row_once() -> None:
    rows = table(*(row(f"{i}.png", category=name) for i, name in enumerate("cabacb")))
    groups = by_category(rows)
    assert {name: group["image_uri"].to_pylist() for name, group in groups.items()} == {
        "a": ["1.png", "3.png"],
        "b": ["2.png", "5.png"],
        "c": ["0.png", "4.png"],
    }
    assert by_category(table()) == {}


def test_a_row_without_a_score_of_an_earlier_release_is_flagged_by_nothing(
    folder: NightFolder,
) -> None:
    """Its flags are null on storage, and stay so: no old night is written again for it."""
    old = table(
        row("a.png", status="missing", flagged=None, flagged_fdr=None),
        scored("b.png", 2.0, True),
    )
    write_shard(folder, "00000-aaa", old)
    for rows in (read_night(folder), read_shard(folder.shard("00000-aaa"), ["flagged_fdr"])):
        assert rows["flagged_fdr"].to_pylist() == [False, False]
    assert read_night(folder)["flagged"].to_pylist() == [False, True]


def test_rows_of_an_earlier_release_do_not_know_what_later_columns_say(
    folder: NightFolder,
) -> None:
    """And they may lie beside rows that do."""
    rows = table(scored("a.png", 1.0, False)).drop_columns(list(LATER))
    (parent := Path(folder.shard("00000-aaa")).parent).mkdir(parents=True)
    pq.write_table(rows, parent / "00000-aaa.parquet")
    region = dict.fromkeys(("x", "y", "width", "height", "area"), 4) | {"share": 0.25, "peak": 2.0}
    region |= {"centroid_x": 6.0, "centroid_y": 6.0}
    known = {"image_mode": "L", "regions": [region], "num_regions": 1, "area_share": 0.25}
    write_shard(folder, "00001-bbb", table(scored("b.png", 2.0, True, **known)))
    night = read_night(folder)
    assert night.schema.equals(RESULT_SCHEMA)
    assert night["score"].to_pylist() == [1.0, 2.0]
    assert night.select(LATER).to_pylist() == [
        dict.fromkeys(LATER),
        dict.fromkeys(LATER) | known,
    ]


OLD_SUMMARY = {
    "night": NIGHT,
    "images": 2,
    "totals": {"ok": 2},
    "flagged": 1,
    "expected_false_alarms": 0.2,
    "categories": {
        "bottle": {
            "images": 2,
            "ok": 2,
            "flagged": 1,
            "failed": {},
            "unrouted": 0,
            "threshold": 1.5,
            "false_alarm_rate": 0.1,
            "expected_false_alarms": 0.2,
            "median_score": 1.75,
            "model_name": "nightshift.bottle",
            "model_version": "3",
        }
    },
}


def test_a_summary_of_an_earlier_release_is_read_with_what_it_did_not_count_left_open(
    folder: NightFolder,
) -> None:
    storage.write_bytes(folder.summary, json.dumps(OLD_SUMMARY).encode())
    summary = read_summary(folder)
    bottle = summary["categories"]["bottle"]
    assert (bottle["fdr"], bottle["flagged_fdr"], bottle["drift"]["alert"]) == (None, 0, False)
    assert (summary["drifted"], summary["categories_without_images"]) == ([], [])
    assert bottle.items() >= OLD_SUMMARY["categories"]["bottle"].items()
    write_summary(folder, summary)
    assert read_summary(folder) == summary


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '"settled"', '{"categories": {"a": {}}}'])
def test_a_damaged_summary_is_named(folder: NightFolder, damage: str) -> None:
    storage.write_bytes(folder.summary, damage.encode())
    with pytest.raises(ResultsError, match=r"summary\.json is damaged .* score the night again"):
        read_summary(folder)
