"""The demo's input, made from the real package."""

import io
import re
import socket
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from elpv_dataset.utils import load_dataset
from PIL import Image

from jobs.demo.material import (
    Cell,
    DemoMaterialError,
    broken_files,
    dump_size,
    is_held_back,
    read_cells,
    truth,
    write_dump,
    write_onboarding,
)
from pipeline import storage
from pipeline.catalogue.catalogue import load_catalogue
from pipeline.datasets.layouts import read_layout


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    return read_cells()


@pytest.fixture(scope="module")
def few(cells: list[Cell]) -> list[Cell]:
    return cells[:40] + cells[-40:]


def test_every_certain_image_of_the_package_is_there_once(cells: list[Cell]) -> None:
    # Counted from the package's labels.csv with awk: probability 0, and 2/3 plus 1.
    assert Counter((cell.category, cell.defective) for cell in cells) == {
        ("solar-mono", False): 588,
        ("solar-mono", True): 56 + 313,
        ("solar-poly", False): 920,
        ("solar-poly", True): 50 + 402,
    }
    assert len({cell.path for cell in cells}) == len(cells)


def test_labels_agree_with_the_packages_own_reader(cells: list[Cell]) -> None:
    images, probabilities, kinds = load_dataset()
    of_pixels = {
        image.tobytes(): (f"solar-{kind}", probability > 0.5)
        for image, probability, kind in zip(images, probabilities, kinds, strict=True)
        if probability != pytest.approx(1 / 3)
    }
    for cell in cells[::50]:
        pixels = np.asarray(Image.open(cell.source))
        assert of_pixels[pixels.tobytes()] == (cell.category, cell.defective)


def test_about_30_percent_of_the_good_cells_are_held_back(cells: list[Cell]) -> None:
    for category, num_good in (("solar-mono", 588), ("solar-poly", 920)):
        good = [cell for cell in cells if cell.category == category and not cell.defective]
        spread = 4 * (0.3 * 0.7 * num_good) ** 0.5  # four standard deviations of a fair draw
        assert abs(sum(cell.held_back for cell in good) - 0.3 * num_good) < spread


def test_no_defective_cell_is_onboarded(cells: list[Cell]) -> None:
    assert all(cell.held_back for cell in cells if cell.defective)


def test_what_is_held_back_depends_on_content_alone() -> None:
    contents = [b"%d" % number for number in range(2000)]
    drawn = [is_held_back(content) for content in contents]
    assert drawn == [is_held_back(content) for content in contents]
    assert 0.26 < sum(drawn) / len(drawn) < 0.34  # 0.3, four standard deviations


def test_what_is_left_after_the_night_is_not_one_sided_by_plain_hash(cells: list[Cell]) -> None:
    """Another split by the first digits of the name's hash must still find both of its sides."""
    left = [int(cell.name[:8], 16) / 16**8 for cell in cells if not cell.held_back]
    shares = np.histogram(left, bins=5, range=(0, 1))[0] / len(left)
    assert shares == pytest.approx(0.2, abs=0.05)  # four standard deviations of 1044 draws


def test_names_do_not_tell_what_is_defective(cells: list[Cell]) -> None:
    assert all(re.fullmatch(r"solar-(mono|poly)/[0-9a-f]{16}\.png", cell.path) for cell in cells)
    for category in ("solar-mono", "solar-poly"):
        listed = sorted((c.name, c.defective) for c in cells if c.category == category)
        labels = np.array([defective for _, defective in listed], dtype=float)
        correlation = np.corrcoef(labels, np.arange(len(labels)))[0, 1]
        assert abs(correlation) < 4 / len(labels) ** 0.5


def test_the_catalogue_is_accepted_and_its_folders_hold_only_good_cells(
    few: list[Cell], tmp_path: Path
) -> None:
    catalogue = write_onboarding(few, tmp_path / "onboarding")
    categories = load_catalogue(str(catalogue))
    assert [category.name for category in categories] == ["solar-mono", "solar-poly"]
    found = set()
    for category in categories:
        assert category.backbone == "efficientnet_lite0"
        assert category.false_alarm_rate == 0.05
        samples = read_layout(category.layout, category.images)
        assert all(sample.is_good for sample in samples)
        found |= {sample.uri.removeprefix(f"{tmp_path}/onboarding/") for sample in samples}
    assert found == {cell.path for cell in few if not cell.held_back}


def test_the_catalogue_says_no_more_than_it_must(few: list[Cell], tmp_path: Path) -> None:
    content = yaml.safe_load(write_onboarding(few, tmp_path).read_text())
    assert content == {
        "defaults": {
            "backbone": "efficientnet_lite0",
            "false_alarm_rate": 0.05,
            "calibration": "cross",
        },
        "categories": [
            {"name": "solar-mono", "images": "solar-mono", "layout": "folder"},
            {"name": "solar-poly", "images": "solar-poly", "layout": "folder"},
        ],
    }


def test_onboarding_twice_leaves_the_same_files(few: list[Cell], tmp_path: Path) -> None:
    write_onboarding(few, tmp_path)
    before = sorted(path.name for path in tmp_path.rglob("*.*"))
    write_onboarding(few, tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == before


def test_the_dump_holds_the_truths_images_and_three_broken_files(few: list[Cell], s3: str) -> None:
    calls: list[None] = []
    labels = write_dump(few, f"{s3}/night", on_written=lambda: calls.append(None))
    uris = [item.uri for item in storage.list_objects(f"{s3}/night")]
    names = {uri.removeprefix(f"{s3}/night/") for uri in uris}
    assert names == labels.keys() | broken_files(few).keys()
    assert len(names) == len(labels) + 3 == dump_size(few) == len(calls)
    assert labels == {cell.path: cell.defective for cell in few if cell.held_back}
    held_back = next(cell for cell in few if cell.held_back)
    assert storage.read_bytes(f"{s3}/night/{held_back.path}") == held_back.source.read_bytes()


def test_a_dump_may_be_a_local_folder(few: list[Cell], tmp_path: Path) -> None:
    labels = write_dump(few, str(tmp_path))
    assert all((tmp_path / name).is_file() for name in labels)


def test_nothing_is_both_onboarded_and_in_the_dump(cells: list[Cell]) -> None:
    onboarded = {cell.source.name for cell in cells if not cell.held_back}
    dumped = {cell.source.name for cell in cells if cell.held_back}
    assert not onboarded & dumped
    assert len(truth(cells)) == len(dumped)


def test_no_broken_file_can_be_decoded(few: list[Cell]) -> None:
    contents = broken_files(few)
    assert len(contents) == 3
    assert all(name.endswith(".png") for name in contents)
    for content in contents.values():
        with pytest.raises(OSError, match=r"cannot identify|truncated"):
            Image.open(io.BytesIO(content)).load()


def test_a_server_that_is_away_ends_the_upload_with_one_error(
    cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
        port = closed.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        with pytest.raises(storage.StorageAway, match="s3://night"):
            write_dump(cells, "s3://night")


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DemoMaterialError, match=r'pip install "nightshift\[demo\]"'):
        read_cells()


def test_other_labels_than_we_know_are_refused_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("images/a.png 0.0 thin-film\n")
    with pytest.raises(DemoMaterialError, match=r"line 1: .* mono, poly, found .*thin-film"):
        read_cells(tmp_path)


def test_missing_labels_are_reported(tmp_path: Path) -> None:
    with pytest.raises(DemoMaterialError, match=r"labels\.csv is missing"):
        read_cells(tmp_path)
