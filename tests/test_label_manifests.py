"""Labels from elsewhere and for elsewhere: COCO and FiftyOne, read, written and read again."""

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import pytest
from labelled import READ_AT, import_file
from night_maker import NIGHT, NightMaker
from PIL import Image
from typer.testing import CliRunner

from jobs.cli.app import app
from pipeline.labels.export import FORMATS, Format, export_labels
from pipeline.labels.foreign import NotUnderstood, Source
from pipeline.labels.label import Label, LabelsError, standing, to_rows
from pipeline.labels.label_table import LabelTable
from pipeline.labels.reading import Read, read_labels

# One good image, one with two scratches, one unsure, one of which nothing is said.
COCO: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "a.png", "width": 200, "height": 100},
        {"id": 3, "file_name": "sub/b.png", "width": 200, "height": 100},
        {"id": 4, "file_name": "c.png"},
        {"id": 5, "file_name": "d.png"},
    ],
    "categories": [
        {"id": 1, "name": "OK"},
        {"id": 2, "name": "scratch"},
        {"id": 9, "name": "unsure"},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 1},
        {"id": 2, "image_id": 3, "category_id": 2, "bbox": [20, 10, 50, 25]},
        {"id": 3, "image_id": 3, "category_id": 2, "bbox": [0, 0, 200, 100]},
        {"id": 4, "image_id": 4, "category_id": 9},
    ],
}
BOXES = [[0.1, 0.1, 0.25, 0.25], [0.0, 0.0, 1.0, 1.0]]
FIFTYONE: dict[str, Any] = {
    "name": "inspection",
    "samples": [
        {"filepath": "a.png", "gt": {"_cls": "Classification", "label": "OK"}},
        {
            "filepath": "sub/b.png",
            "tags": ["x"],
            "gt": {
                "_cls": "Detections",
                "detections": [
                    {"_cls": "Detection", "label": "scratch", "bounding_box": box} for box in BOXES
                ],
            },
        },
        {"filepath": "c.png", "gt": {"_cls": "Classification", "label": "unsure"}},
        {"filepath": "d.png", "gt": None},
    ],
}
OWN = {"label": "good", "labelled_at": "2026-03-13T06:00:00Z"}  # what an export says beside


def read(document: dict[str, Any], **source: Any) -> Read:
    given = {"uri": "/factory/labels.json", "read_at": READ_AT, "category": "bottle", **source}
    return read_labels(json.dumps(document).encode(), Source(**given))


def change(document: dict[str, Any], part: str, number: int, **fields: Any) -> dict[str, Any]:
    changed: dict[str, Any] = json.loads(json.dumps(document))
    changed[part][number] |= fields
    return changed


@pytest.mark.parametrize("document", [COCO, FIFTYONE], ids=["coco", "fiftyone"])
def test_a_manifest_is_read_by_its_words(document: dict[str, Any]) -> None:
    done = read(document, labelled_by="anna")
    good, scratched, unsure = done.labels.values()
    assert (good.image_uri, good.label, good.kind) == ("/factory/a.png", "good", None)
    assert (scratched.image_uri, scratched.label) == ("/factory/sub/b.png", "defect")
    assert (scratched.kind, scratched.regions) == ("scratch", BOXES)
    assert (unsure.label, unsure.labelled_at, unsure.labelled_by) == ("unsure", READ_AT, "anna")
    assert (done.num_unlabelled, done.problems) == (1, {})
    assert {label.chosen for label in done.labels.values()} == {"unknown"}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (change(COCO, "categories", 0, name="goood"), "image 1: .*'goood' is near to 'good'"),
        (change(COCO, "categories", 0, name="n/a"), "image 1: .*'n/a' stands for a missing value"),
        (change(COCO, "annotations", 0, image_id=3), "contradicts itself"),
        (change(COCO, "annotations", 1, bbox=[190, 0, 20, 5]), "is no box"),
        (change(COCO, "images", 1, width=None), "it has boxes, and no width and height"),
        (change(COCO, "annotations", 1, bbox=[1, 2, 3]), "image 2: .*3] is not left, top, width"),
        (change(COCO, "images", 0, nightshift=["x"]), "image 1: .*`nightshift` is not what"),
        (change(FIFTYONE, "samples", 0, nightshift="x"), "image 1: .*`nightshift` is not what"),
        (
            change(COCO, "images", 1, nightshift={**OWN, "regions": [[1, 2], [3]], "chosen": "x"}),
            "image 2: .*'unknown'",
        ),
        (
            change(
                COCO, "images", 0, nightshift={**OWN, "labelled_at": "0001-01-01T00:00:00+14:00"}
            ),
            "image 1: .* is no time in UTC",
        ),
        (
            change(COCO, "images", 0, nightshift={**OWN, "labelled_at": "2099-01-01T00:00:00Z"}),
            r"image 1: labelled_at 2099-01-01T00:00:00\+00:00 is in the future",
        ),
        (
            change(COCO, "images", 1, file_name="a.png"),
            "image 2: /factory/a.png is image 1 too, as good; here it is scratch",
        ),
        (
            change(FIFTYONE, "samples", 2, filepath="a.png"),
            "image 3: /factory/a.png is image 1 too, as good; here it is unsure",
        ),
    ],
)
def test_what_is_no_label_is_named_by_its_image(document: dict[str, Any], message: str) -> None:
    [(place, problem)] = read(document).problems.items()
    assert re.search(message, f"{place}: {problem}")


def test_a_manifest_that_names_no_category_needs_one() -> None:
    assert "give --category" in next(iter(read(COCO, category=None).problems.values()))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (change(COCO, "annotations", 0, image_id=99), "1 images have annotations .* first id 99"),
        (change(COCO, "annotations", 0, category_id=99), "no whole COCO data set .*99"),
        (change(COCO, "images", 0, id=3), "1 ids of `images` stand for several .* first 3"),
        (change(COCO, "categories", 0, id=2), "1 ids of `categories` stand for several .* first 2"),
        ({"samples": ["a"]}, "no whole data set of FiftyOne"),
        ({"images": [{"id": 1}], "annotations": []}, "no whole COCO data set .*file_name"),
        ({"samples": [{"gt": {"_cls": "Classification", "label": "OK"}}]}, "filepath"),
        (
            change(FIFTYONE, "samples", 0, other={"_cls": "Classification", "label": "x"}),
            "several fields hold labels: gt, other",
        ),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    document: dict[str, Any], message: str
) -> None:
    with pytest.raises(NotUnderstood, match=message):
        read(document)


def fill(out: Path) -> LabelTable:
    Image.new("L", (200, 100)).save(out / "b.png")
    given = [
        ("a.png", "good", {}),
        ("b.png", "defect", {"kind": "scratch", "regions": BOXES, "image_etag": "e"}),
        ("gone.png", "defect", {"regions": BOXES[:1]}),
        ("c.png", "unsure", {"labelled_by": "ben", "night": NIGHT, "chosen": "audit"}),
        ("d.png", "undo", {}),
    ]
    when = dt.datetime(2026, 3, 13, 6, 0, 0, 123456, tzinfo=dt.UTC)
    labels = [
        Label(
            **{"image_uri": f"{out}/{name}", "category": "bottle", "label": word, **fields},
            labelled_at=when,
        )
        for name, word, fields in given
    ]
    table = LabelTable(str(out / "results"))
    table.append(to_rows(labels))
    return table


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_exported_comes_back_as_it_was(tmp_path: Path, kind: Format) -> None:
    table = fill(tmp_path)
    content = export_labels(table, kind)
    source = Source(uri=f"{tmp_path}/elsewhere/labels.json", read_at=READ_AT)
    back = read_labels(content, source)
    assert back.problems == {}
    told = standing(table.of_category("bottle"))
    assert standing(to_rows(back.labels.values())).equals(told)
    assert told.num_rows == 4


def test_coco_is_written_as_its_tools_read_it(tmp_path: Path) -> None:
    document = json.loads(export_labels(fill(tmp_path), "coco"))
    names = {entry["id"]: entry["name"] for entry in document["categories"]}
    files = {entry["id"]: entry["file_name"].rpartition("/")[2] for entry in document["images"]}
    found = [
        (files[each["image_id"]], names[each["category_id"]], each.get("bbox"))
        for each in document["annotations"]
    ]
    assert found == [
        ("a.png", "good", None),
        ("b.png", "scratch", [20.0, 10.0, 50.0, 25.0]),
        ("b.png", "scratch", [0.0, 0.0, 200.0, 100.0]),
        ("c.png", "unsure", None),
        ("gone.png", "defect", None),  # nobody can say how large it was
    ]
    assert [entry["id"] for entry in document["annotations"]] == [1, 2, 3, 4, 5]
    sized = {files[entry["id"]] for entry in document["images"] if "width" in entry}
    assert sized == {"b.png"}


def test_fiftyone_is_written_as_it_reads_it(tmp_path: Path) -> None:
    document = json.loads(export_labels(fill(tmp_path), "fiftyone"))
    first, second, *_ = document["samples"]
    assert first["ground_truth"] == {"_cls": "Classification", "label": "good"}
    assert [d["bounding_box"] for d in second["ground_truth"]["detections"]] == BOXES


def test_a_file_that_was_replaced_goes_out_and_comes_back_with_both_labels() -> None:
    samples = [
        {"filepath": "a.png", "ground_truth": {"_cls": "Classification", "label": word}}
        | {"nightshift": {"image_etag": etag}}
        for word, etag in (("good", "e"), ("dent", "f"))
    ]
    assert read({"samples": samples}).problems == {}


def test_what_another_tool_changed_in_an_export_is_new(tmp_path: Path) -> None:
    document = json.loads(export_labels(fill(tmp_path), "fiftyone"))
    document["samples"][0]["ground_truth"]["label"] = "dent"
    source = Source(uri=f"{tmp_path}/x.json", read_at=READ_AT, labelled_by="eva")
    changed, same, *_ = read_labels(json.dumps(document).encode(), source).labels.values()
    assert (changed.label, changed.kind, changed.labelled_by) == ("defect", "dent", "eva")
    assert changed.labelled_at == READ_AT
    assert same.labelled_at < READ_AT


def test_a_manifest_twice_is_once_though_it_says_no_time(tmp_path: Path) -> None:
    (tmp_path / "coco.json").write_text(json.dumps(COCO))
    given = (str(tmp_path / "coco.json"), str(tmp_path / "out"))
    [first] = import_file(*given, category="bottle")
    later = READ_AT + dt.timedelta(days=1)
    [second] = import_file(*given, category="bottle", read_at=later)
    assert (first.num_new, first.night, second.num_unchanged) == (3, None, 3)
    assert LabelTable(str(tmp_path / "out")).of_category("bottle").num_rows == 3


def test_a_manifest_of_a_nights_images_is_checked_against_its_results(tmp_path: Path) -> None:
    maker = NightMaker(tmp_path / "out")
    for category in ("bottle", "cable"):
        maker.add_champion(category)
        maker.add_scored(category, "a.png", 2.0)
    maker.write()
    uris = [row["image_uri"] for row in maker.rows]
    value = {"_cls": "Classification", "label": "good"}
    samples = [{"filepath": uri, "ground_truth": value} for uri in uris]
    (tmp_path / "x.json").write_text(json.dumps({"samples": samples}))
    given = {"category": "bottle", "night": NIGHT}
    with pytest.raises(LabelsError, match=r"1 of 2 images .*'bottle', but the results say 'cable'"):
        import_file(str(tmp_path / "x.json"), str(maker.out), **given)
    (tmp_path / "x.json").write_text(json.dumps({"samples": samples[:1]}))
    [done] = import_file(str(tmp_path / "x.json"), str(maker.out), **given)
    assert done.precision["bottle"]["precision"] == 0.0


def test_labels_go_out_and_come_in_by_commands(tmp_path: Path) -> None:
    fill(tmp_path)
    for kind in FORMATS:
        to = str(tmp_path / f"labels.{kind}")
        arguments = ["labels", "export", str(tmp_path / "results"), "--to", to, "--format", kind]
        assert CliRunner().invoke(app, arguments).exit_code == 0
        other = str(tmp_path / kind)
        # The label of a night cannot be checked where that night was not scored.
        done = CliRunner().invoke(app, ["labels", "import", to, "--out", other])
        assert "of category 'bottle' in the results of night" in str(done.exception)
