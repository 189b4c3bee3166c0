"""The data files beside the page: what they hold, how they are cut, that nothing escapes them."""

import base64
import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import s3fs
from champions import made_up_champion
from labelled import import_file
from night_maker import HOSTILE_NAMES, NIGHT, NightMaker
from numpy.typing import NDArray
from recount import recount

from model.preprocessing import Preprocessing
from model.zones import Zones
from pipeline import storage
from pipeline.calibration import CalibrationConfig
from pipeline.night.fleet.fleet import Fleet
from pipeline.night.folder import NightFolder
from pipeline.night.results import RESULT_SCHEMA, write_shard
from pipeline.night.scoring.pictures import write_pictures
from pipeline.night.summary import write_summary
from pipeline.report import data as report_data
from pipeline.report import rows as report_rows
from pipeline.report.data import DEFECT, DISCOVERY, FLAGGED, GOOD, PAGE_ROWS, data_files
from pipeline.report.writing import write_report

EVIL = (
    *HOSTILE_NAMES,
    "</script><script>alert(1)</script>",
    "`${alert(1)}`",
    "\u2028line\u2029breaks",
    '");alert(1);("',
    "\x00\x1b[31m\x7f",
    "file:///dump/%ff%fe.png",
    "😀.png",
)


def image(uri: str, category: str = "bottle", **changed: Any) -> dict[str, Any]:
    row = dict.fromkeys(RESULT_SCHEMA.names) | {"image_uri": uri, "image_etag": "e"}
    row |= {"category": category, "status": "ok", "score": 2.0, "p_value": 0.01, "flagged": True}
    row |= {"flagged_fdr": False}
    return row | {"model_name": "nightshift.x", "model_version": "1", "shard": "s"} | changed


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, RESULT_SCHEMA)


def content(data: bytes) -> Any:
    """What the page's function gets, by a reader that knows JSON only."""
    text = data.decode("ascii")
    assert text.startswith("nightshift(")
    assert text.endswith(")\n")
    return json.loads(f"[{text[len('nightshift(') : -2]}]")


def files_of(
    images: list[dict[str, Any]], failed: list[dict[str, Any]] | None = None, **labels: str
) -> dict[str, Any]:
    categories = list(dict.fromkeys(row["category"] for row in [*images, *(failed or [])]))
    files = data_files(categories, table(images), table(failed or []), labels)
    return {
        name.partition("-")[2].removesuffix(".js"): content(data) for name, data in files.items()
    }


def decoded(text: str, kind: str) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text), kind)


def test_every_file_names_itself_and_the_index_comes_first() -> None:
    files = files_of([image("a"), image("b", "cable")], [image("c", status="missing")])
    assert list(files) == ["index", "images-0-0", "images-1-0", "failures-0"]
    assert all(name == inside for name, (inside, _) in files.items())


def test_evil_names_and_errors_come_back_as_they_were_and_never_as_markup() -> None:
    rows = [image(name, category=name) for name in EVIL]
    failed = [image(name, status="unreadable", error=name) for name in EVIL]
    files = data_files(EVIL, table(rows), table(failed), {})
    for data in files.values():
        assert b"<" not in data
        assert max(data) < 128
        assert min(data.rstrip(b"\n")) >= 32
    pages = [content(data) for data in files.values()]
    assert pages[0][1]["categories"] == list(EVIL)
    shown = [page["folder"] + uri for _, page in pages[1:] for uri in page["uri"]]
    assert shown == [*EVIL, *EVIL]
    assert pages[-1][1]["error"] == list(EVIL)
    assert all(re.fullmatch(r"data/[0-9a-f]{12}-[a-z0-9-]+\.js", name) for name in files)


def test_a_page_holds_one_category_and_at_most_its_limit() -> None:
    many = [image(f"s3://d/b/{index:04d}.png") for index in range(2 * PAGE_ROWS + 1)]
    files = files_of([*many, image("s3://d/c/1.png", "cable")])
    sizes = {name: len(page["uri"]) for name, (_, page) in files.items() if name != "index"}
    assert sizes == {
        "images-0-0": PAGE_ROWS, "images-0-1": PAGE_ROWS, "images-0-2": 1, "images-1-0": 1,
    }  # fmt: skip
    index = files["index"][1]
    assert index["images"]["counts"] == [2 * PAGE_ROWS + 1, 1]
    assert index["page_rows"] == PAGE_ROWS


def test_rows_lie_in_the_order_of_the_pages_categories() -> None:
    rows = table([image("a", "a"), image("b1", "b"), image("b2", "b"), image("c", "c")])
    files = list(data_files(["c", "a", "b"], rows, table([]), {}).values())
    uris = [page["folder"] + uri for _, page in map(content, files[1:]) for uri in page["uri"]]
    assert uris == ["c", "a", "b1", "b2"]


def test_the_index_holds_numbers_bits_and_the_beginning_of_each_pictures_name() -> None:
    rows = [
        image("a", score=3.5, p_value=0.005),
        image("b", score=1.25, p_value=0.05, flagged=False),
        image("c", score=float("nan"), p_value=0.02),
    ]
    rows = [row | {"flagged_fdr": c} for row, c in zip(rows, (True, False, False), strict=True)]
    listed = table(rows)
    files = data_files(["bottle"], listed, table([]), {"a": "good", "c": "defect"})
    images = content(next(iter(files.values())))[1]["images"]
    bits = [FLAGGED | DISCOVERY | GOOD, 0, FLAGGED | DEFECT]
    assert decoded(images["bits"], "u1").tolist() == bits
    assert decoded(images["score"], "<f4").tolist()[:2] == [3.5, 1.25]
    assert np.isnan(decoded(images["score"], "<f4")[2])
    assert decoded(images["p_value"], "<f4") == pytest.approx([0.005, 0.05, 0.02])
    names = [hashlib.sha256(uri.encode()).hexdigest() for uri in "abc"]
    assert decoded(images["key"], "<u4").tolist() == [int(name[:8], 16) for name in names]


def test_a_page_of_images_holds_what_a_label_needs() -> None:
    rows = [image("s3://d/b/1.png"), image("s3://d/b/2.png", model_version="2", image_etag=None)]
    page = files_of(rows, **{"s3://d/b/2.png": "good"})["images-0-0"][1]
    assert [page["folder"] + uri for uri in page["uri"]] == ["s3://d/b/1.png", "s3://d/b/2.png"]
    assert page["etag"] == ["e", None]
    assert [page["models"][place] for place in page["model"]] == [
        ["nightshift.x", "1"], ["nightshift.x", "2"],
    ]  # fmt: skip
    assert page["label"] == [None, "good"]
    assert page["picture"][0] == hashlib.sha256(b"s3://d/b/1.png").hexdigest()[:32]


def test_statistics_are_handed_over_where_the_results_have_them() -> None:
    listed = table([image("a") | {"brightness": 0.25}, image("b")])
    files = list(data_files(["bottle"], listed, table([]), {}).values())
    assert content(files[1])[1]["statistics"] == {"brightness": [0.25, None]}
    assert files_of([image("a")])["images-0-0"][1]["statistics"] == {}


def test_regions_are_boxes_in_pixels_of_the_picture_that_is_shown() -> None:
    """Of 200 x 400 pixels the middle 200 x 200 are seen, on 64 x 64 with a grid of 8 x 8."""
    region = {"x": 150, "y": 50, "width": 100, "height": 25}
    known = {"image_width": 400, "image_height": 200, "regions": [region], "num_regions": 17}
    rows = [image("a", **known, area_share=0.03125), image("b"), image("c", "cable")]
    way, config = Preprocessing(resize=64, crop=64), CalibrationConfig(false_alarm_rate=0.1)
    whole = made_up_champion("bottle", range(9), config, preprocessing=way)
    zones = Zones(ignored=("01100011", *["00000000"] * 7))
    partly = dataclasses.replace(whole.reference, zones=zones)
    champions = {"bottle": whole, "cable": dataclasses.replace(whole, reference=partly)}
    files = data_files(["bottle", "cable"], table(rows), table([]), {}, champions)
    _, (_, bottle), (_, cable) = map(content, files.values())
    assert (bottle["size"], bottle["boxes"]) == ([64, 64], [[[16, 16, 32, 8]], []])
    assert (bottle["regions"], bottle["area_share"]) == ([17, None], [0.0312, None])
    assert ("ignored" in bottle, "boxes" in cable, cable["size"]) == (False, False, [64, 64])
    assert cable["ignored"] == [[8, 0, 16, 8], [48, 0, 16, 8]]


def test_failures_are_indexed_by_category_and_status_and_long_errors_cut() -> None:
    failed = [
        image("b", "bottle", status="missing", error=None),
        image("c", "bottle", status="unreadable", error="x" * 9000),
    ]
    files = files_of([], failed)
    index = files["index"][1]["failures"]
    places = decoded(index["status"], "u1").tolist()
    assert [index["statuses"][place] for place in places] == ["missing", "unreadable"]
    assert files["failures-0"][1]["error"] == ["", "x" * report_data.MAX_ERROR]


def test_other_content_has_another_prefix() -> None:
    def prefix(score: float) -> str:
        files = data_files(["bottle"], table([image("a", score=score)]), table([]), {})
        [found] = {name.partition("-")[0] for name in files}
        return found

    assert prefix(1.0) == prefix(1.0)
    assert prefix(1.0) != prefix(2.0)


def test_a_report_written_again_leaves_no_data_of_the_earlier_one(tmp_path: Path) -> None:
    maker = NightMaker(tmp_path)
    maker.add_champion("bottle")
    maker.add_scored("bottle", "1.png", 3.0)
    uri = Path(write_report(maker.write()))
    first = sorted(path.name for path in (uri.parent / "data").iterdir())
    line = {"image_uri": maker.rows[0]["image_uri"], "category": "bottle", "label": "defect"}
    line |= {"night": NIGHT, "labelled_at": "2026-03-13T06:00:00Z"}
    (tmp_path / "labels.jsonl").write_text(json.dumps(line))
    import_file(str(tmp_path / "labels.jsonl"), str(tmp_path))
    write_report(NightFolder(str(tmp_path), NIGHT))
    second = sorted(path.name for path in (uri.parent / "data").iterdir())
    assert len(second) == len(first) == 2
    assert not set(first) & set(second)
    [page] = [path for path in (uri.parent / "data").iterdir() if "images" in path.name]
    assert content(page.read_bytes())[1]["label"] == ["defect"]
    prefix = second[0].partition("-")[0]
    assert f'data-files="data/{prefix}-"' in uri.read_text()


def test_on_object_storage_a_browser_is_told_what_each_file_is(s3: str) -> None:
    out = f"{s3}/factory/out"
    folder, shown = NightFolder(out, NIGHT), "s3://dump/bottle/1.png"
    maker = NightMaker(Path("unused"))
    maker.add_champion("bottle")
    fleet = Fleet(champions=maker.champions)
    write_summary(folder, recount(table([image(shown)]), fleet))
    write_pictures(
        folder, "bottle", shown, np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.uint8)
    )
    write_shard(folder, "00000", table([image(shown)]))
    uri = write_report(folder, fleet)
    write_shard(folder, "00001", table([image("s3://dump/bottle/2.png")]))
    assert write_report(folder, fleet) == uri == f"{out}/report/night={NIGHT}/index.html"
    names = storage.list_names(f"{out}/report/night={NIGHT}/data")
    assert [name.partition("-")[2] for name in names] == ["images-0-0.js", "index.js"]
    kinds = {
        uri: "text/html; charset=utf-8",
        f"{out}/report/night={NIGHT}/data/{names[0]}": "text/javascript; charset=utf-8",
        folder.picture("bottle", shown, "maps"): "image/png",
        folder.picture("bottle", shown, "thumbnails"): "image/jpeg",
    }
    reader = s3fs.S3FileSystem(skip_instance_cache=True)
    assert {address: reader.info(address)["ContentType"] for address in kinds} == kinds


def test_flagged_images_come_first_then_those_with_a_small_p_value(tmp_path: Path) -> None:
    rows = [
        image("calm", score=0.5, p_value=0.4, flagged=False),
        image("near", score=1.4, p_value=0.05, flagged=False),
        image("bad", score=1.5, p_value=0.04),
        image("worst", score=9.0, p_value=0.01),
        image("other", "cable", score=99.0),
        image("lost", status="missing", score=None, p_value=None, flagged=False),
        image("new", "new", status="unrouted", score=None, p_value=None, flagged=False),
    ]
    for place, row in enumerate(rows):
        write_shard(NightFolder(str(tmp_path), NIGHT), f"{place:05d}", table([row]))
    gathered = report_rows.read_report_rows(NightFolder(str(tmp_path), NIGHT))
    assert gathered.notable["image_uri"].to_pylist() == ["worst", "bad", "near", "other"]
    assert gathered.failed["image_uri"].to_pylist() == ["lost"]
    assert gathered.drawn.num_rows == 7
    assert (gathered.num_notable, gathered.num_failed) == (4, 1)


def test_too_many_images_keep_flags_and_the_worst_of_each_category() -> None:
    rows = [image(f"b{index}", score=float(index)) for index in range(10)]
    rows += [image(f"c{index}", "cable", score=float(index)) for index in range(3)]
    rows += [image("calm", "apple", score=99.0, flagged=False)]
    kept = report_rows.worst_images(table(rows), 5)["image_uri"].to_pylist()
    assert kept == ["b9", "b8", "b7", "c2", "c1"]


def test_too_many_failures_keep_some_of_each_kind() -> None:
    rows = [image(f"m{index}", status="missing") for index in range(9)]
    rows += [image("t", status="too_large"), image("z", "zip", status="missing")]
    kept = report_rows.first_failures(table(rows), 4)["image_uri"].to_pylist()
    assert kept == ["m0", "m1", "t", "z"]


def test_a_thinned_night_keeps_what_sorting_it_whole_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(3)
    rows = [
        image(f"{index:04d}", f"c{random.integers(7)}", score=float(random.normal()),
              flagged=bool(random.random() < 0.6))
        for index in range(600)
    ]  # fmt: skip
    for start in range(0, 600, 20):
        write_shard(
            NightFolder(str(tmp_path), NIGHT), f"{start:05d}", table(rows[start : start + 20])
        )
    monkeypatch.setattr(report_rows, "MAX_IMAGES", 37)
    gathered = report_rows.read_report_rows(NightFolder(str(tmp_path), NIGHT))
    expected = report_rows.worst_images(table(rows), 37)
    assert gathered.notable["image_uri"].to_pylist() == expected["image_uri"].to_pylist()
    assert gathered.num_notable == 600


@pytest.mark.parametrize(
    ("columns", "ranks"),
    [
        ([["a", "a", "b", "b", "b"]], [0, 1, 0, 1, 2]),
        ([["a", "a", "a", "b"], ["x", "y", "y", "y"]], [0, 0, 1, 0]),
        ([[]], []),
    ],
)
def test_ranks_within_runs(columns: list[list[str]], ranks: list[int]) -> None:
    chunked = [pa.chunked_array([pa.array(column, pa.string())]) for column in columns]
    assert report_rows.rank_within(chunked).tolist() == ranks
