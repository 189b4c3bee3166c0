"""nightshift init: data sets are recognised by their names, and become a catalogue that loads."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Run
from PIL import Image

from pipeline import storage
from pipeline.catalogue.catalogue import Category, load_catalogue
from pipeline.catalogue.first_draft import draft, slug, unique_names
from pipeline.datasets.layouts import read_layout
from pipeline.datasets.recognise import DataSet, Unplaced, recognise

TREES: dict[str, tuple[str, ...]] = {
    "mvtec": ("train/good/0.png", "test/good/1.png", "test/crack/2.png"),
    "mvtec_loco": ("train/good/0.png", "validation/good/1.png", "test/logical_anomalies/2.png"),
    "btad": ("train/ok/0.bmp", "test/ok/1.bmp", "test/ko/2.bmp"),
    "ksdd": ("kos01/Part0.jpg", "kos01/Part0_label.bmp"),
    "folder": ("0.png", "1.JPG", "readme.txt"),
}


def write(root: str, *names: str) -> None:
    """Files of a data set; a part's label is black, so that the part is good."""
    black = io.BytesIO()
    Image.new("L", (8, 8)).save(black, "BMP")
    for name in names:
        storage.write_bytes(f"{root}/{name}", black.getvalue())


def first_draft(prefix: str, folder: Path) -> list[Category]:
    """What a draft of all data sets below a folder says, as everything else reads it."""
    path = folder / "drafted.yaml"
    found = [each for each in recognise(prefix) if isinstance(each, DataSet)]
    path.write_text(draft(prefix, found))
    return load_catalogue(str(path))


def unplaced(prefix: str) -> dict[str, str]:
    return {
        each.uri.removeprefix(prefix): each.reason
        for each in recognise(prefix)
        if isinstance(each, Unplaced)
    }


@pytest.mark.parametrize("layout", TREES)
def test_a_folder_of_each_layout_becomes_a_category(tmp_path: Path, layout: str) -> None:
    root = str(tmp_path / "data")
    write(f"{root}/bottle", *TREES[layout])
    (bottle,) = first_draft(root, tmp_path)
    assert (bottle.name, bottle.layout, bottle.images) == ("bottle", layout, f"{root}/bottle")
    assert read_layout(bottle.layout, bottle.images)
    assert unplaced(root) == {}


def test_visa_is_known_by_its_split_file(tmp_path: Path) -> None:
    root = tmp_path / "visa"
    (root / "split_csv").mkdir(parents=True)
    with (root / "split_csv/1cls.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["object", "split", "label", "image", "mask"])
        rows.writerow(["pcb1", "train", "normal", "pcb1/Data/Images/Normal/0.JPG", ""])
        rows.writerow(["candle", "train", "normal", "candle/Data/Images/Normal/0.JPG", ""])
    found = first_draft(str(root), tmp_path)
    assert [(each.name, each.layout) for each in found] == [("candle", "visa"), ("pcb1", "visa")]
    assert all(read_layout(each.layout, each.images) for each in found)


def test_classes_of_cifar_are_categories(tmp_path: Path) -> None:
    root = str(tmp_path / "cifar")
    for split in ("train", "test"):
        write(root, f"{split}/cat/0.png", f"{split}/dog/0.png")
    found = first_draft(root, tmp_path)
    assert [(each.name, each.layout) for each in found] == [("cat", "cifar10"), ("dog", "cifar10")]
    assert all(read_layout(each.layout, each.images) for each in found)


def test_a_manifest_is_a_category_and_a_file_that_is_none_says_why(tmp_path: Path) -> None:
    root = tmp_path / "lists"
    root.mkdir()
    (root / "bottle.ndjson").write_text('{"image_uri": "a.png"}')
    (root / "labels.json").write_text('{"a": 1}')
    (root / "notes.txt").write_text("x")
    (bottle,) = first_draft(str(root), tmp_path)
    assert (bottle.name, bottle.layout) == ("bottle", "manifest")
    assert bottle.images == f"{root}/bottle.ndjson"
    reasons = unplaced(f"{root}")
    assert list(reasons) == ["/labels.json", "/notes.txt"]
    assert "image_uri" in reasons["/labels.json"]
    assert "neither an image, a manifest nor a folder" in reasons["/notes.txt"]


def test_the_folder_itself_may_be_the_only_category(tmp_path: Path) -> None:
    write(f"{tmp_path}/bottle", *TREES["btad"])
    (bottle,) = first_draft(f"{tmp_path}/bottle/", tmp_path)
    assert (bottle.name, bottle.layout) == ("bottle", "btad")


def test_categories_may_lie_two_levels_down_and_no_deeper(tmp_path: Path) -> None:
    root = str(tmp_path / "plant")
    write(f"{root}/line1/gear", *TREES["mvtec"])
    write(f"{root}/line2/gear", *TREES["mvtec"])
    write(f"{root}/line2/deep/er", *TREES["mvtec"])
    write(f"{root}/line3/cable/train", "bad/0.png")
    found = first_draft(root, tmp_path)
    assert [each.name for each in found] == ["line1-gear", "line2-gear"]
    reasons = unplaced(root)
    assert reasons == {
        "/line2/deep": "has no layout that is known; it holds er",
        "/line3": "has no layout that is known; it holds cable",
    }


def test_a_training_folder_without_good_images_is_named(tmp_path: Path) -> None:
    write(f"{tmp_path}/cable", "train/bad/0.png")
    write(f"{tmp_path}/gear", *TREES["mvtec"])
    assert unplaced(str(tmp_path)) == {
        "/cable": "its train/ holds no folder of good images, but bad"
    }


@pytest.mark.parametrize("bad", ["scratch", "NOK", "3"])
def test_good_parts_beside_others_are_no_two_categories(tmp_path: Path, bad: str) -> None:
    write(f"{tmp_path}/cable", "good/0.png", f"{bad}/1.png")
    write(f"{tmp_path}/gear", "OK/0.png")
    write(f"{tmp_path}/masks", "0.png")
    assert DataSet(f"{tmp_path}/gear", "folder") in recognise(str(tmp_path))
    reasons = unplaced(str(tmp_path))
    assert reasons["/cable"].startswith("holds a folder of good parts beside others, ")
    assert reasons["/masks"].startswith("is named for tests, masks or defects")


def test_a_bucket_is_walked_as_a_folder_is(s3: str, tmp_path: Path) -> None:
    write(f"{s3}/data/bottle", *TREES["mvtec"])
    write(f"{s3}/data/gear", *TREES["folder"])
    storage.write_bytes(f"{s3}/data/licence.txt", b"x")
    found = first_draft(f"{s3}/data/", tmp_path)
    assert [(each.images, each.layout) for each in found] == [
        (f"{s3}/data/bottle", "mvtec"),
        (f"{s3}/data/gear", "folder"),
    ]
    assert list(unplaced(f"{s3}/data")) == ["/licence.txt"]


def test_categories_that_lie_alike_are_names_alone(tmp_path: Path) -> None:
    names = [f"part-{number:03d}" for number in range(100)] + ["007", "true"]
    found = [DataSet(f"s3://factory/{{a}}/{name}", "mvtec") for name in names]
    found.append(DataSet("s3://factory/{a}/odd", "btad"))
    found.append(DataSet("s3://elsewhere/other", "mvtec"))
    path = tmp_path / "catalogue.yaml"
    path.write_text(draft("s3://factory/{a}", found))
    document = yaml.safe_load(path.read_text())
    assert document["defaults"] == {"images": "s3://factory/{{a}}/{name}", "layout": "mvtec"}
    assert document["categories"][:102] == names  # 007 and true too: they stay text
    assert document["categories"][102:] == [
        {"name": "odd", "layout": "btad"},
        {"name": "other", "images": "s3://elsewhere/other"},
    ]
    loaded = load_catalogue(str(path))
    assert [(each.images, each.layout) for each in loaded] == [
        (each.images, each.layout) for each in found
    ]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("Große Flasche", "grosse-flasche"),
        ("Écrou_M8", "ecrou_m8"),
        ("-x-", "x"),
        ("瓶子", "category"),
        ("a" * 80, "a" * 57),
        ("Part.v2", "part-v2"),
    ],
)
def test_a_folder_that_is_no_slug_gets_one_and_a_comment(
    tmp_path: Path, folder: str, name: str
) -> None:
    assert slug(folder) == name
    write(f"{tmp_path}/data/{folder}", *TREES["mvtec"])
    (found,) = first_draft(f"{tmp_path}/data", tmp_path)
    assert (found.name, found.images) == (name, f"{tmp_path}/data/{folder}")
    assert f"# {tmp_path}/data/{folder}\n" in (tmp_path / "drafted.yaml").read_text()


def test_no_two_names_collide() -> None:
    images = ["/d/A b", "/d/a-b", "/d/A.B", "/e/a-b", "/d/d-a-b", "/d/c"]
    names = unique_names(images)
    assert len(set(names)) == len(names)
    assert names[4:] == ["d-a-b", "c"]


def test_a_hostile_name_cannot_leave_its_comment(tmp_path: Path) -> None:
    found = [DataSet("/data/a\ncategories: []", "mvtec")]
    path = tmp_path / "catalogue.yaml"
    path.write_text(draft("/data", found))
    (category,) = load_catalogue(str(path))
    assert category.images == found[0].images


def test_the_command_writes_a_catalogue_and_names_the_rest(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(f"{root}/bottle", *TREES["mvtec"])
    (root / "notes.txt").write_text("x")
    answer = run("init", root)
    assert answer.code == 0
    document: Any = yaml.safe_load(answer.out)
    assert document["categories"] == ["bottle"]
    assert answer.err.startswith(f"nightshift: {root}/notes.txt: is neither an image")


def test_the_command_without_a_category_writes_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no category found below" in run("init", tmp_path / "empty").refusal()
    assert "does not exist" in run("init", tmp_path / "nowhere").refusal()
