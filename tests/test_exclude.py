"""What a category leaves out: images that `exclude` names, and suspects where it says so."""

from pathlib import Path
from typing import Any

import factory
import numpy as np
import pytest
from command_line import Run
from image_sets import image_set
from PIL import Image

from pipeline.calibration import Part
from pipeline.catalogue.catalogue import CatalogueError, load_catalogue
from pipeline.datasets.layouts import LayoutError
from pipeline.onboarding.contamination import Contaminated, inspect_good, without_suspects
from pipeline.onboarding.key import onboarding_key
from pipeline.onboarding.listed_images import list_images
from pipeline.onboarding.prepare import prepare


@pytest.fixture
def steel(tmp_path: Path) -> Path:
    return factory.make_category(tmp_path / "steel", num_good=30, num_test=2)


def write(tmp_path: Path, exclude: object) -> Path:
    defaults = factory.SETTINGS | {"exclude": exclude}
    return factory.write_catalogue(
        tmp_path / "catalogue.yaml", {"steel": tmp_path / "steel"}, defaults
    )


@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize("relative", [False, True])
def test_images_are_left_out_by_a_list_or_a_file(
    steel: Path, tmp_path: Path, *, as_file: bool, relative: bool
) -> None:
    names = ["steel/train/good/000003.png", "steel/test/scratch/005000.png", "steel/no/such.png"]
    listed = names if relative else [str(tmp_path / name) for name in names]
    exclude: object = listed
    if as_file:
        (tmp_path / "exclude.txt").write_text("\n".join(listed) + "\n\n")
        exclude = "exclude.txt"
    [category] = load_catalogue(str(write(tmp_path, exclude)))
    listing = list_images(category)
    everything = list_images(category.model_copy(update={"exclude": None}))
    left_out = {each.uri for each in everything.samples} - {each.uri for each in listing.samples}
    assert left_out == {str(tmp_path / name) for name in names[:2]}
    assert "exclude: 2 images left out" in listing.findings
    assert everything.findings == tuple(line for line in listing.findings if "exclude" not in line)


@pytest.mark.parametrize("exclude", [3, {"a": 1}, [1], [""], ""])
def test_what_is_no_list_of_addresses_is_refused_in_one_line(
    steel: Path, tmp_path: Path, exclude: object
) -> None:
    with pytest.raises(CatalogueError, match="exclude: expected a list of image addresses") as told:
        load_catalogue(str(write(tmp_path, exclude)))
    assert str(told.value).count("\n") == 0


def test_leaving_everything_out_is_refused(steel: Path) -> None:
    everything = [str(path) for path in (steel / "train/good").iterdir()]
    with pytest.raises(LayoutError, match="leaves out all 30 training images"):
        list_images(factory.category(steel, exclude=everything))


def test_a_file_of_other_categories_leaves_the_key_as_it_was(steel: Path, tmp_path: Path) -> None:
    file = tmp_path / "exclude.txt"
    file.write_text("/elsewhere/wood/train/good/1.png\n")
    before = onboarding_key(factory.category(steel))
    assert onboarding_key(factory.category(steel, exclude=str(file))) == before
    file.write_text(f"{steel}/train/good/000003.png\n")
    once = onboarding_key(factory.category(steel, exclude=str(file)))
    assert once != before
    listed = factory.category(steel, exclude=[f"{steel}/train/good/000003.png"])
    assert onboarding_key(listed) == once  # the same images are left out


def test_contamination_left_at_its_default_is_in_no_key(steel: Path) -> None:
    before = onboarding_key(factory.category(steel))
    assert onboarding_key(factory.category(steel, contamination="report")) == before
    assert onboarding_key(factory.category(steel, contamination="drop")) != before


def planted() -> Any:
    features = np.random.default_rng(0).normal(size=(60, 20))
    features[[5, 33]] += 30
    return image_set(pooled=features)


def test_suspects_stay_where_they_are_only_reported() -> None:
    images, parts = planted(), np.zeros(60, np.int8)
    lines = inspect_good(images)
    assert [line.check.name for line in lines] == ["suspected defects"]
    category = factory.category("/images")
    assert without_suspects(category, images, lines, parts).tolist() == parts.tolist()


def test_suspects_are_dropped_and_nothing_else_moves() -> None:
    images = planted()
    parts = np.array([index % 3 for index in range(60)], np.int8)
    category = factory.category("/images", contamination="drop")
    after = without_suspects(category, images, inspect_good(images), parts)
    assert np.flatnonzero(after == Part.SUSPECT).tolist() == [5, 33]
    assert np.delete(after, [5, 33]).tolist() == np.delete(parts, [5, 33]).tolist()


def test_suspects_are_refused_with_their_number_and_an_example() -> None:
    images = planted()
    category = factory.category("/images", contamination="refuse")
    told = r"steel: good images that look defective: 2, first of /images/good/0(05|33)\.png"
    with pytest.raises(Contaminated, match=told):
        without_suspects(category, images, inspect_good(images), np.zeros(60, np.int8))


@pytest.mark.parametrize("contamination", ["drop", "refuse"])
def test_a_clean_set_is_touched_by_neither(contamination: str) -> None:
    features = np.random.default_rng(1).normal(size=(60, 20))
    images, parts = image_set(pooled=features), np.zeros(60, np.int8)
    category = factory.category("/images", contamination=contamination)
    after = without_suspects(category, images, inspect_good(images), parts)
    assert after.tolist() == parts.tolist()


def test_onboarding_drops_what_does_not_belong(steel: Path) -> None:
    black = np.zeros((factory.SIDE, factory.SIDE, 3), np.uint8)
    black[::8] = 255
    Image.fromarray(black).save(steel / "train/good/stripes.png")
    prepared = prepare(factory.category(steel, contamination="drop"))
    dropped = [prepared.good.uris[i] for i in np.flatnonzero(prepared.parts == Part.SUSPECT)]
    assert dropped == [str(steel / "train/good/stripes.png")]
    assert any(line.startswith("suspected defects: ") for line in prepared.findings)


def test_what_the_page_wrote_goes_into_the_catalogue(run: Run, steel: Path, tmp_path: Path) -> None:
    (tmp_path / "exclude.txt").write_text(f"{steel}/train/good/000003.png\n")
    answer = run("inspect", write(tmp_path, "exclude.txt"), "--out", tmp_path / "out")
    assert answer.code == 0
    assert "29 train good" in answer.out
    assert "exclude: 1 images left out" in answer.out
