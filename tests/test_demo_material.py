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

from jobs.demo.demo import upload
from jobs.demo.material import (
    FIRST_NIGHT,
    SECOND_NIGHT,
    Cell,
    DemoMaterialError,
    draw,
    read_cells,
    stray_files,
    write_nights,
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


def test_every_good_cell_is_used_once_and_a_night_has_as_many_defects_as_was_said(
    cells: list[Cell],
) -> None:
    # Counted from the package's labels.csv with awk: 588 and 920 cells of probability 0.
    assert Counter((cell.category, cell.defective) for cell in cells) == {
        ("solar-mono", False): 588,
        ("solar-mono", True): 18 + 18,
        ("solar-poly", False): 920,
        ("solar-poly", True): 4 + 4,
    }
    assert len({cell.path for cell in cells}) == len(cells)
    for night in (FIRST_NIGHT, SECOND_NIGHT):
        of_night = [cell.defective for cell in cells if cell.night == night]
        assert 0.04 < sum(of_night) / len(of_night) < 0.06


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


def test_half_of_the_good_cells_are_onboarded_and_a_quarter_is_new_each_night(
    cells: list[Cell],
) -> None:
    for category, num_good in (("solar-mono", 588), ("solar-poly", 920)):
        good = [cell.night for cell in cells if cell.category == category and not cell.defective]
        for night, share in (("", 0.5), (FIRST_NIGHT, 0.25), (SECOND_NIGHT, 0.25)):
            spread = 4 * (share * (1 - share) * num_good) ** 0.5  # four standard deviations
            assert abs(good.count(night) - share * num_good) < spread


def test_no_defective_cell_is_onboarded(cells: list[Cell]) -> None:
    assert all(cell.night for cell in cells if cell.defective)


def test_a_draw_depends_on_content_alone_and_is_fair() -> None:
    contents = [b"%d" % number for number in range(2000)]
    drawn = [draw(content) % 4 for content in contents]
    assert drawn == [draw(content) % 4 for content in contents]
    # 500 of each are expected; 4 standard deviations of a fair draw are 77.
    assert all(abs(drawn.count(quarter) - 500) < 77 for quarter in range(4))


def test_what_is_left_after_the_night_is_not_one_sided_by_plain_hash(cells: list[Cell]) -> None:
    """Another split by the first digits of the name's hash must still find both of its sides."""
    left = [int(cell.name[:8], 16) / 16**8 for cell in cells if not cell.night]
    shares = np.histogram(left, bins=5, range=(0, 1))[0] / len(left)
    assert shares == pytest.approx(0.2, abs=0.06)  # four standard deviations of 750 draws


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
        assert category.false_alarm_rate == 0.01
        samples = read_layout(category.layout, category.images).samples
        assert all(sample.is_good for sample in samples)
        found |= {sample.uri.removeprefix(f"{tmp_path}/onboarding/") for sample in samples}
    assert found == {cell.path for cell in few if not cell.night}


def test_the_catalogue_says_no_more_than_it_must(few: list[Cell], tmp_path: Path) -> None:
    content = yaml.safe_load(write_onboarding(few, tmp_path).read_text())
    assert content == {
        "defaults": {
            "backbone": "efficientnet_lite0",
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


def test_a_night_holds_its_cells_byte_for_byte_and_no_other_nights(
    few: list[Cell], tmp_path: Path
) -> None:
    write_nights(few, tmp_path)
    first = {cell.path: cell for cell in few if cell.night == FIRST_NIGHT}
    written = {
        path.relative_to(tmp_path / FIRST_NIGHT).as_posix(): path.read_bytes()
        for path in (tmp_path / FIRST_NIGHT).rglob("*.png")
    }
    assert written.keys() == first.keys() | stray_files(few).keys()
    assert all(written[name] == cell.source.read_bytes() for name, cell in first.items())
    second = {path.name for path in (tmp_path / SECOND_NIGHT).rglob("*.png")}
    assert second == {cell.name for cell in few if cell.night == SECOND_NIGHT}


def test_on_the_second_night_one_camera_sees_half_of_the_light(
    few: list[Cell], tmp_path: Path
) -> None:
    write_nights(few, tmp_path)
    for category, share in (("solar-mono", 1.0), ("solar-poly", 0.5)):
        cell = next(c for c in few if (c.category, c.night) == (category, SECOND_NIGHT))
        before = np.asarray(Image.open(cell.source), float)
        after = np.asarray(Image.open(tmp_path / SECOND_NIGHT / cell.path), float)
        assert np.abs(after - share * before).max() <= 0.5  # rounding


def test_of_the_stray_files_only_the_one_of_an_unknown_category_is_an_image(
    few: list[Cell],
) -> None:
    known = ("solar-mono/", "solar-poly/")
    contents = stray_files(few)
    broken = [content for name, content in contents.items() if name.startswith(known)]
    assert len(broken) == 3
    for content in broken:
        with pytest.raises(OSError, match=r"cannot identify|truncated"):
            Image.open(io.BytesIO(content)).load()
    (unknown,) = (content for name, content in contents.items() if not name.startswith(known))
    Image.open(io.BytesIO(unknown)).load()


def test_a_folder_is_uploaded_whole(tmp_path: Path, s3: str) -> None:
    contents = {"a/1.png": b"one", "a/b/2.png": b"", "3.png": b"three"}
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    upload(tmp_path, f"{s3}/dump")
    found = {item.uri: storage.read_bytes(item.uri) for item in storage.list_objects(f"{s3}/dump")}
    assert found == {f"{s3}/dump/{name}": content for name, content in contents.items()}


def test_a_server_that_is_away_ends_the_upload_with_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(500):
        (tmp_path / f"{number}.png").write_bytes(b"image")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
        port = closed.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        with pytest.raises(storage.StorageAway, match="s3://night"):
            upload(tmp_path, "s3://night")


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
