"""Regions as files for annotation tools and spreadsheets."""

import csv
import datetime as dt
import io
import json
from pathlib import Path

import pytest
from command_line import Run
from night_maker import NIGHT, NightMaker

from pipeline.labels import coco, fiftyone
from pipeline.labels.foreign import NotUnderstood, Source
from pipeline.labels.reading import read_labels
from pipeline.night.folder import NightError, NightFolder
from pipeline.night.region_export import export_regions

REGION = {"x": 10, "y": 20, "width": 40, "height": 5, "area": 150, "share": 0.0075, "peak": 2.5}
REGION |= {"centroid_x": 30.0, "centroid_y": 22.5}
OTHER = REGION | {"x": 0, "peak": 1.5}
SHARES = [[0.05, 0.2, 0.2, 0.05], [0.0, 0.2, 0.2, 0.05]]


@pytest.fixture
def folder(tmp_path: Path) -> NightFolder:
    """Two images of 200 x 100 with regions, one that has none, one of an earlier release."""
    maker = NightMaker(tmp_path)
    for category in ("bottle", "cable"):
        maker.add_champion(category)
        maker.add_scored(category, "=a.png", 0.5)
        size = {"image_width": 200, "image_height": 100, "num_regions": 2}
        maker.rows[-1] |= size | {"regions": [REGION, OTHER], "area_share": 0.015}
    maker.add_scored("cable", "none.png", 0.5)
    maker.rows[-1] |= size | {"regions": [], "num_regions": 0, "area_share": 0.0}
    maker.add_scored("cable", "old.png", 0.5)
    for row in maker.rows:
        row["map_uri"] = "map.png"  # the audit draws no map of its own, and finds no regions in it
    maker.add_unscored("cable", "lost.png", "missing")
    return maker.write()


def test_coco_has_boxes_in_pixels_and_fiftyone_in_shares(folder: NightFolder) -> None:
    found = json.loads(export_regions(folder, "coco"))
    assert [(each["width"], each["height"]) for each in found["images"]] == [(200, 100)] * 2
    first = found["annotations"][0]
    assert (first["bbox"], first["area"], first["score"]) == ([10, 20, 40, 5], 150, 2.5)
    assert [each["image_id"] for each in found["annotations"]] == [1, 1, 2, 2]
    samples = json.loads(export_regions(folder, "fiftyone", ["cable"]))["samples"]
    (sample,) = samples
    assert sample["filepath"].endswith("cable/=a.png")
    detections = sample[fiftyone.FIELD]["detections"]
    assert [each["bounding_box"] for each in detections] == SHARES
    assert (sample["tags"], sample["nightshift"]["model_version"]) == (["cable"], "2")


def test_the_formats_are_those_that_label_imports_read(folder: NightFolder) -> None:
    """Once a tool has written the file, which drops what it does not know."""
    for module, kind in ((coco, "coco"), (fiftyone, "fiftyone")):
        document = json.loads(export_regions(folder, kind))
        images = list(module.images(document))
        assert [list(map(list, image.boxes)) for image in images] == [SHARES] * 2
        source = Source(uri="labels.json", read_at=dt.datetime(2026, 3, 13, tzinfo=dt.UTC))
        with pytest.raises(NotUnderstood, match="regions that detectors found, and no labels"):
            read_labels(json.dumps(document).encode(), source)
        del document["nightshift"]
        read = read_labels(json.dumps(document).encode(), source)
        assert [label.regions for label in read.labels.values()] == [SHARES] * 2
        assert {label.category for label in read.labels.values()} == {"bottle", "cable"}


def test_csv_has_a_line_for_each_region_and_nothing_a_spreadsheet_would_run(
    folder: NightFolder,
) -> None:
    lines = list(csv.DictReader(io.StringIO(export_regions(folder, "csv").decode())))
    assert [(line["category"], line["x"], line["peak"]) for line in lines] == [
        ("bottle", "10", "2.5"),
        ("bottle", "0", "1.5"),
        ("cable", "10", "2.5"),
        ("cable", "0", "1.5"),
    ]
    assert {line["image_width"] for line in lines} == {"200"}


def test_a_night_or_a_category_that_is_not_there_is_refused(
    folder: NightFolder, tmp_path: Path
) -> None:
    with pytest.raises(NightError, match="no images of botle"):
        export_regions(folder, "csv", ["botle"])
    with pytest.raises(NightError, match="no rows"):
        export_regions(NightFolder(str(tmp_path), "2026-03-13"), "csv")


def test_the_command_line_writes_them(run: Run, folder: NightFolder, tmp_path: Path) -> None:
    to = tmp_path / "new/regions.csv"
    done = run("regions", "export", folder.out, "--night", NIGHT, "--to", to, "--format", "csv")
    assert done.code == 0
    assert to.read_bytes() == export_regions(folder, "csv")
