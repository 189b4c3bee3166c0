"""Why an image was flagged: its row, made again from the files of its night."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import Run
from factory import score_without_cluster, write_images
from PIL import Image

from pipeline import storage
from pipeline.night.feedback.explanation import explain, find_row
from pipeline.night.fleet.fleet import Fleet
from pipeline.night.folder import NightError, NightFolder
from pipeline.night.results import read_night

NIGHT = "2026-03-12"


@pytest.fixture
def folder(package: Path, tmp_path: Path) -> NightFolder:
    """A scored night of three images, an unreadable one and an unrouted one."""
    folder, dump = NightFolder(str(tmp_path / "out"), NIGHT), tmp_path / "dump"
    write_images(dump / "steel", range(700, 703), scratched=True)
    write_images(dump / "new", range(1))
    (dump / "steel/empty.png").write_bytes(b"")
    score_without_cluster(dump, folder, {"steel": package})
    return folder


def test_a_score_is_made_again_to_the_bit(folder: NightFolder) -> None:
    for row in read_night(folder).to_pylist():
        if row["status"] != "ok":
            continue
        explanation = explain(row["image_uri"], folder)
        assert explanation.row == row
        assert (explanation.score, explanation.difference) == (row["score"], 0.0)
        assert explanation.picture is not None
        assert explanation.picture.shape == (64, 128, 3)
        json.dumps(explanation.to_json(), default=str)


def test_regions_are_found_again_framed_and_said(run: Run, folder: NightFolder) -> None:
    reference = Fleet.read(folder.fleet).champions["steel"].reference
    assert reference.regions is not None
    (uri, row) = next(
        (row["image_uri"], row) for row in read_night(folder).to_pylist() if row["num_regions"]
    )
    explanation = explain(uri, folder)
    assert explanation.regions["num_regions"] == row["num_regions"]
    found, stored = explanation.regions["regions"], row["regions"]
    for name in ("x", "y", "width", "height", "area"):
        assert [each[name] for each in found] == [each[name] for each in stored]
    assert explanation.picture is not None
    corner = round(found[0]["y"] * 64 / 96), 64 + round(found[0]["x"] * 64 / 96)
    assert explanation.picture[corner].tolist() == [255, 255, 255]
    answer = run("explain", uri, "--out", folder.out, "--night", NIGHT)
    assert f"region     {found[0]['width']} x {found[0]['height']} at " in answer.out


def test_what_cannot_be_made_again_says_why(folder: NightFolder, tmp_path: Path) -> None:
    empty = explain(f"{tmp_path}/dump/steel/empty.png", folder)
    assert (empty.status, empty.score, empty.picture) == ("unreadable", None, None)
    unrouted = explain(f"{tmp_path}/dump/new/000000.png", folder)
    assert (unrouted.status, unrouted.champion) == ("unrouted", None)
    write_images(tmp_path / "dump/steel", range(700, 701))
    replaced = explain(f"{tmp_path}/dump/steel/000700.png", folder)
    assert (replaced.status, replaced.score) == ("changed", None)
    assert replaced.row["score"] is not None


def test_a_row_is_found_with_and_without_the_nights_manifest(
    folder: NightFolder, tmp_path: Path
) -> None:
    uri = f"{tmp_path}/dump/steel/000701.png"
    row = find_row(uri, folder)
    assert row["image_uri"] == uri
    storage.delete(folder.manifest)
    assert find_row(uri, folder) == row
    with pytest.raises(NightError, match="no row of /nowhere"):
        find_row("/nowhere", folder)


def test_the_command_line_explains_and_writes_the_picture(
    run: Run, folder: NightFolder, tmp_path: Path
) -> None:
    uri = f"{tmp_path}/dump/steel/000701.png"
    place = ["--out", folder.out, "--night", NIGHT]
    answer = run("explain", uri, *place, "--picture", tmp_path / "why.png")
    row = find_row(uri, folder)
    assert answer.code == 0
    assert f"score      {row['score']:.4g}, threshold {row['threshold']:.4g}" in answer.out
    assert row["model_digest"] in answer.out
    assert "difference 0" in answer.out
    picture = np.asarray(Image.open(tmp_path / "why.png"))
    assert np.array_equal(picture, explain(uri, folder).picture)
    document = json.loads(run("explain", uri, *place, "--json").out)
    assert document["now"]["score"] == document["row"]["score"]
    assert document["calibration"]["num_images"] == 9
    gone = run("explain", f"{tmp_path}/dump/steel/empty.png", *place)
    assert gone.code == 3
    assert "cannot be made again: unreadable" in gone.out
    assert "no row of" in run("explain", "/nowhere.png", *place).refusal()
