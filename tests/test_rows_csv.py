"""A night's rows as CSV: every row once, and nothing in it that a spreadsheet would run."""

import csv
import io
from pathlib import Path

import pytest
from command_line import Run
from factory import score_without_cluster, write_images
from night_maker import HOSTILE_NAMES, NightMaker, hostile_night

from pipeline import storage
from pipeline.night.folder import NightFolder
from pipeline.night.results import RESULT_SCHEMA, read_night
from pipeline.night.rows_csv import write_csv


def read(uri: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(storage.read_bytes(uri).decode(), newline="")))


def test_every_row_is_there_once_with_all_its_columns(tmp_path: Path) -> None:
    folder, uri = hostile_night(tmp_path), f"{tmp_path}/new/rows.csv"
    write_csv(folder, uri)
    expected = {row["image_uri"]: row for row in read_night(folder).to_pylist()}
    written = read(uri)
    assert sorted(row["image_uri"] for row in written) == sorted(expected)
    for row in written:
        stored = expected[row["image_uri"]]
        assert list(row) == RESULT_SCHEMA.names
        assert (row["category"], row["error"]) == (stored["category"], stored["error"] or "")
        assert row["flagged"] == str(stored["flagged"]).lower()
        assert row["p_value"] == "" if stored["p_value"] is None else float(row["p_value"])
    first = next(row for row in written if row["status"] == "ok")
    assert first["scored_at"] == "2026-03-13 02:15:00.000000Z"


@pytest.mark.parametrize("start", list("=+-@\t\r\n＝＋－＠"))
def test_a_text_that_begins_as_a_formula_has_a_quote_in_front(tmp_path: Path, start: str) -> None:
    maker, evil = NightMaker(tmp_path), f'{start}HYPERLINK("http://evil";"click")'
    maker.add_unscored(evil, "1.png", "unrouted", evil)
    write_csv(maker.write(), f"{tmp_path}/rows.csv")
    (row,) = read(f"{tmp_path}/rows.csv")
    assert (row["category"], row["error"]) == (f"'{evil}", f"'{evil}")


def test_other_texts_and_negative_numbers_stay_as_they_are(tmp_path: Path) -> None:
    maker = NightMaker(tmp_path)
    maker.add_champion("bottle")
    for name in HOSTILE_NAMES:
        maker.add_scored("bottle", name, -0.5)
    write_csv(maker.write(), f"{tmp_path}/rows.csv")
    rows = read(f"{tmp_path}/rows.csv")
    names = {row["image_uri"].removeprefix(f"{tmp_path}/dump/bottle/") for row in rows}
    assert names == set(HOSTILE_NAMES)
    assert {float(row["score"]) for row in rows} == {-0.5}


def test_the_file_may_lie_on_s3(s3: str, tmp_path: Path) -> None:
    folder = hostile_night(tmp_path)
    write_csv(folder, f"{s3}/rows.csv")
    write_csv(folder, f"{tmp_path}/rows.csv")
    assert storage.read_bytes(f"{s3}/rows.csv") == storage.read_bytes(f"{tmp_path}/rows.csv")
    with pytest.raises(storage.StorageError):
        write_csv(folder, "s3://no-such-bucket-here/rows.csv")


def test_the_command_line_writes_them_on_request(
    run: Run, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")  # scored already: no cluster is needed
    folder = NightFolder(str(tmp_path / "out"), "2026-03-12")
    write_images(tmp_path / "dump/steel", range(700, 702))
    fleet = score_without_cluster(tmp_path / "dump", folder, {"steel": package})
    digest = fleet.store(folder.out)
    assert run("fleet", "pin", folder.out, "--digest", digest).code == 0
    arguments = ["--out", folder.out, "--night", folder.night, "--csv", "rows.csv"]
    assert run("score", tmp_path / "dump", *arguments).code == 0
    assert [row["status"] for row in read(f"{tmp_path}/rows.csv")] == ["ok", "ok"]
