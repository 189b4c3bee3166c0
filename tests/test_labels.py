"""Labels come back in: every line is checked, the latest counts, twice is once."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from labelled import import_file
from night_maker import NIGHT, NightMaker
from typer.testing import CliRunner

from jobs.cli.app import app
from pipeline.labels.label import LabelsError, labels_of
from pipeline.labels.label_table import LabelTable
from pipeline.night.folder import NightError, NightFolder

MORNING = dt.datetime(2026, 3, 13, 6, 0, tzinfo=dt.UTC)


@pytest.fixture
def night(tmp_path: Path) -> NightMaker:
    maker = NightMaker(tmp_path / "out")
    for category in ("bottle", "cable"):
        maker.add_champion(category)
        for index in range(4):
            maker.add_scored(category, f"bad{index}.png", 2.0)
        maker.add_scored(category, "good.png", 0.5)
    maker.add_unscored("bottle", "torn.png", "unreadable")
    maker.write()
    return maker


def line(maker: NightMaker, name: str, label: str, minute: int = 0, **changed: Any) -> str:
    category, _, file = name.partition("/")
    entry = {
        "image_uri": f"{maker.out}/dump/{category}/{file}",
        "image_etag": "e",
        "category": category,
        "label": label,
        "night": NIGHT,
        "model_name": f"nightshift.{category}",
        "model_version": "1",
        "labelled_at": (MORNING + dt.timedelta(minutes=minute)).isoformat(),
    }
    kept = {key: value for key, value in (entry | changed).items() if value != "leave out"}
    return json.dumps(kept)


def write(folder: Path, lines: list[str], name: str = "labels.jsonl") -> str:
    (folder / name).write_text("\n".join(lines) + "\n")
    return str(folder / name)


def stored(out: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in (out / "labels").rglob("*") if path.is_file()}


def values(maker: NightMaker) -> dict[str, str]:
    said = labels_of(rows_of(maker), {})
    return {uri.rpartition("dump/")[2]: label for uri, label in said.items()}


def rows_of(maker: NightMaker) -> pa.Table:
    """Every label of the night."""
    return LabelTable(str(maker.out)).of_night(NIGHT, ["bottle", "cable"])


def test_a_night_without_labels_has_none(night: NightMaker) -> None:
    assert values(night) == {}


def test_imported_labels_are_read_back_whole(night: NightMaker, tmp_path: Path) -> None:
    file = write(tmp_path, [line(night, "bottle/bad0.png", "defect")])
    import_file(file, str(night.out))
    [row] = rows_of(night).to_pylist()
    said = json.loads(line(night, "bottle/bad0.png", "defect")) | {"labelled_at": MORNING}
    none = dict.fromkeys(("kind", "regions", "labelled_by"))
    assert row == said | none | {"chosen": "flagged"}


def test_the_same_file_twice_changes_nothing(night: NightMaker, tmp_path: Path) -> None:
    lines = [line(night, "bottle/bad0.png", "defect"), line(night, "cable/bad1.png", "good")]
    [first] = import_file(write(tmp_path, lines), str(night.out))
    before = stored(night.out)
    [second] = import_file(write(tmp_path, lines), str(night.out))
    assert stored(night.out) == before
    assert (first.num_new, first.num_changed, first.num_unchanged) == (2, 0, 0)
    assert (second.num_new, second.num_changed, second.num_unchanged) == (0, 0, 2)


@pytest.mark.parametrize("earlier_first", [True, False])
def test_the_later_label_of_an_image_wins_whatever_the_order_of_the_files(
    night: NightMaker, tmp_path: Path, earlier_first: bool
) -> None:
    earlier = write(tmp_path, [line(night, "bottle/bad0.png", "defect", 1)], "earlier.jsonl")
    later = write(tmp_path, [line(night, "bottle/bad0.png", "good", 2)], "later.jsonl")
    order = [earlier, later] if earlier_first else [later, earlier]
    done = [import_file(file, str(night.out))[0] for file in order]
    assert values(night) == {"bottle/bad0.png": "good"}
    assert done[1].num_changed == (1 if earlier_first else 0)


def test_the_later_label_wins_within_a_file_and_the_later_line_at_the_same_moment(
    night: NightMaker, tmp_path: Path
) -> None:
    lines = [
        line(night, "bottle/bad0.png", "good", 5),
        line(night, "bottle/bad0.png", "defect", 1),
        line(night, "bottle/bad1.png", "good", 3),
        line(night, "bottle/bad1.png", "defect", 3),
    ]
    import_file(write(tmp_path, lines), str(night.out))
    assert values(night) == {"bottle/bad0.png": "good", "bottle/bad1.png": "defect"}


def test_times_of_other_zones_compare_as_moments(night: NightMaker, tmp_path: Path) -> None:
    lines = [  # 06:30 at +02:00 is 04:30 UTC, before 05:00 UTC
        line(night, "bottle/bad0.png", "good", labelled_at="2026-03-13T05:00:00Z"),
        line(night, "bottle/bad0.png", "defect", labelled_at="2026-03-13T06:30:00+02:00"),
    ]
    import_file(write(tmp_path, lines), str(night.out))
    assert values(night) == {"bottle/bad0.png": "good"}


def test_precision_counts_the_flagged_images_that_people_call_a_defect(
    night: NightMaker, tmp_path: Path
) -> None:
    lines = [line(night, f"bottle/bad{index}.png", "defect") for index in range(3)]
    lines.append(line(night, "bottle/bad3.png", "good"))
    lines.append(line(night, "bottle/good.png", "defect"))  # a miss: not flagged
    lines.append(line(night, "cable/good.png", "good"))
    [done] = import_file(write(tmp_path, lines), str(night.out))
    assert done.precision == {
        "bottle": {
            "labelled": 5, "defects": 4, "flagged_labelled": 4, "flagged_defects": 3,
            "precision": 0.75,
        },
        "cable": {
            "labelled": 1, "defects": 0, "flagged_labelled": 0, "flagged_defects": 0,
            "precision": None,
        },
    }  # fmt: skip


def test_precision_counts_the_labels_of_earlier_files_too(
    night: NightMaker, tmp_path: Path
) -> None:
    import_file(write(tmp_path, [line(night, "bottle/bad0.png", "good")]), str(night.out))
    later = write(tmp_path, [line(night, "bottle/bad1.png", "defect")])
    [done] = import_file(later, str(night.out))
    assert done.precision["bottle"]["precision"] == 0.5


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "label": ({"label": "maybe"}, "line 2: label 'maybe' is neither 'defect' nor 'good'"),
    "key": ({"lable": "defect"}, "line 2: unknown key 'lable'"),
    "missing": ({"category": "leave out"}, "line 2: category is missing"),
    "night": ({"night": "2026-02-30"}, "line 2: night '2026-02-30' is no date"),
    "escape": ({"night": "../../etc"}, "line 2: night '../../etc' is no date"),
    "other night": ({"night": "2026-03-11"}, "line 2: no image .* of night 2026-03-11"),
    "image": (
        {"image_uri": "s3://else/x.png", "category": "gear"},
        "line 2: no image 's3://else/x.png' of category 'gear'",
    ),
    "box": ({"regions": [[0.5, 0.5, 0.6, 0.1]]}, r"line 2: regions: .*0\.6, 0\.1\] is no box"),
    "chosen": ({"chosen": "by me"}, "line 2: chosen: .*'audit'"),
    "category": ({"category": "cable"}, "line 2: category 'cable', but the results say 'bottle'"),
    "changed": ({"image_etag": "f"}, r"has changed since it was labelled \(etag 'f', now 'e'\)"),
    "time": ({"labelled_at": "yesterday"}, "line 2: labelled_at: "),
    "zone": ({"labelled_at": "2026-03-13T06:00:00"}, "line 2: labelled_at: .*timezone"),
    "first year": ({"labelled_at": "0001-01-01T00:00:00+14:00"}, "line 2: .* is no time in UTC"),
    "last year": ({"labelled_at": "9999-12-31T23:00:00-12:00"}, "line 2: .* is no time in UTC"),
    "future": (
        {"labelled_at": "2026-03-21T12:00:01Z"},  # a day after the file is read, and a second
        r"line 2: labelled_at 2026-03-21T12:00:01\+00:00 is in the future",
    ),
    "number": ({"model_version": 1}, "line 2: model_version: .*string"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_line_is_named_and_nothing_of_its_file_is_stored(
    night: NightMaker, tmp_path: Path, kind: str
) -> None:
    changed, message = BAD[kind]
    lines = [line(night, "bottle/bad0.png", "good"), line(night, "bottle/bad1.png", "good")]
    lines[1] = line(night, "bottle/bad1.png", **({"label": "good"} | changed))
    with pytest.raises(LabelsError, match=message) as caught:
        import_file(write(tmp_path, lines), str(night.out))
    assert "1 of 2 lines cannot be imported, so none was" in str(caught.value)
    assert stored(night.out) == {}


@pytest.mark.parametrize(
    "bad", [b"{", b"[]", b'"text"', b"null", b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000]
)
def test_what_is_no_json_object_is_named_by_its_line(
    night: NightMaker, tmp_path: Path, bad: bytes
) -> None:
    good = line(night, "bottle/bad0.png", "good").encode()
    (tmp_path / "labels.jsonl").write_bytes(b"\n".join([good, b"", bad, good]))
    with pytest.raises(LabelsError, match=r"1 of 3 lines .*line 3: "):
        import_file(str(tmp_path / "labels.jsonl"), str(night.out))
    assert stored(night.out) == {}


def test_clocks_may_differ_by_a_day(night: NightMaker, tmp_path: Path) -> None:
    tomorrow = line(night, "bottle/bad0.png", "good", labelled_at="2026-03-21T12:00:00Z")
    import_file(write(tmp_path, [tomorrow]), str(night.out))
    assert values(night) == {"bottle/bad0.png": "good"}


def test_a_file_that_is_nested_beyond_all_sense_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_bytes(b'{"images":' + b"[" * 100_000)
    with pytest.raises(LabelsError, match="1 of 1 lines"):
        import_file(str(tmp_path / "labels.json"), str(tmp_path / "out"))


def test_a_long_list_of_bad_lines_is_cut(night: NightMaker, tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match=r"50 of 50 lines .*line 20: .*and 30 more") as caught:
        import_file(write(tmp_path, ["{}"] * 50), str(night.out))
    assert "line 21" not in str(caught.value)


def test_editors_of_other_systems_do_no_harm(night: NightMaker, tmp_path: Path) -> None:
    text = line(night, "bottle/bad0.png", "good") + "\r\n\r\n"
    (tmp_path / "labels.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    import_file(str(tmp_path / "labels.jsonl"), str(night.out))
    assert values(night) == {"bottle/bad0.png": "good"}


def test_a_failed_image_can_be_labelled_and_is_no_flag(night: NightMaker, tmp_path: Path) -> None:
    file = write(tmp_path, [line(night, "bottle/torn.png", "defect")])
    [done] = import_file(file, str(night.out))
    assert done.precision["bottle"]["flagged_labelled"] == 0


def test_damaged_labels_and_a_wrong_night_are_refused(night: NightMaker) -> None:
    folder = night.out / "labels" / f"night={NIGHT}"
    folder.mkdir(parents=True)
    (folder / "x.parquet").write_bytes(b"no parquet")
    with pytest.raises(LabelsError, match=r"x\.parquet does not hold labels"):
        rows_of(night)
    with pytest.raises(NightError, match="YYYY-MM-DD"):
        NightFolder(str(night.out), "../../etc")


def test_the_command_prints_counts_and_precision(night: NightMaker, tmp_path: Path) -> None:
    lines = [line(night, "bottle/bad0.png", "defect"), line(night, "bottle/bad1.png", "good")]
    arguments = ["labels", "import", write(tmp_path, lines), "--out", str(night.out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0
    assert f"night {NIGHT}: 2 new labels, 0 changed, 0 as before" in done.stdout
    assert ["bottle", "2", "1", "2", "1", "50%"] in [
        row.split() for row in done.stdout.splitlines()
    ]
    again = CliRunner().invoke(app, [*arguments, "--json"])
    [answer] = json.loads(again.stdout)
    assert (answer["num_new"], answer["num_unchanged"]) == (0, 2)
    assert answer["precision"]["bottle"]["precision"] == 0.5


def test_the_command_exits_with_1_when_a_line_is_bad(night: NightMaker, tmp_path: Path) -> None:
    import subprocess
    import sys

    file = write(tmp_path, ["{}"])
    command = [sys.executable, "-m", "jobs", "labels", "import", file, "--out", str(night.out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("nightshift: ")
    assert "line 1: image_uri is missing" in done.stderr
