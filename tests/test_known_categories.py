"""What packages say of their training images, and onboardings that are compared with it."""

import json
from dataclasses import replace
from pathlib import Path

import factory
import numpy as np
import pytest
from factory import make_package
from image_sets import changed, image_set

from jobs.onboard import onboard as onboarding
from pipeline.inspection.known_categories import KnownCategories, collect
from pipeline.inspection.training_summary import TRAINING_IMAGES_FILE, TrainingImages, describe
from pipeline.night.fleet.resolve import resolve_fleet
from pipeline.onboarding.prepare import compare, prepare
from pipeline.package import Package, PackageError
from pipeline.registry import models
from pipeline.registry.connection import RegistryError

NUM_VALUES = 2 * (40 + 112)  # mean and spread of every channel of the small backbone


def told(name: str, centre: float = 0.0, space: str = "s", num: int = 60) -> TrainingImages:
    rows = np.random.default_rng(num).normal(centre, 1, size=(num, 16)).astype(np.float32)
    return describe(replace(image_set(num, pooled=rows), name=name), space)


def test_a_package_says_what_its_training_images_look_like(tmp_path: Path) -> None:
    made = make_package(tmp_path).training_images
    assert made is not None
    assert (made.num_images, made.sizes, made.modes) == (40, {"96 x 96": 40}, {"RGB": 40})
    assert made.summary is not None
    assert made.summary.name == "steel"
    assert made.summary.centre.shape == made.summary.spread.shape == (NUM_VALUES,)
    assert (tmp_path / TRAINING_IMAGES_FILE).stat().st_size < 8 * NUM_VALUES


def test_a_package_of_an_earlier_release_says_nothing(tmp_path: Path) -> None:
    make_package(tmp_path)
    (tmp_path / TRAINING_IMAGES_FILE).unlink()
    assert Package.read(tmp_path).training_images is None


def test_what_a_later_release_says_in_another_way_is_left_alone(tmp_path: Path) -> None:
    make_package(tmp_path)
    (tmp_path / TRAINING_IMAGES_FILE).write_text('{"format": 2}')
    assert Package.read(tmp_path).training_images is None


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"format": 1}', b"\xff"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    make_package(tmp_path)
    (tmp_path / TRAINING_IMAGES_FILE).write_bytes(content)
    with pytest.raises(PackageError, match="no whole package"):
        Package.read(tmp_path)


def test_sizes_and_modes_are_counted_and_few_images_have_no_summary() -> None:
    images = changed(image_set(6), 2, mode="L", size=(10, 20))
    made = describe(images, "s")
    assert made.sizes == {"96 x 128": 5, "10 x 20": 1}
    assert made.modes == {"RGB": 5, "L": 1}
    assert made.summary is None
    assert TrainingImages.from_bytes(made.to_bytes()) == made


def test_many_sizes_stay_few_numbers() -> None:
    images = image_set(200)
    for index in range(200):
        images = changed(images, index, size=(index + 1, 7))
    made = describe(images, "s")
    assert (len(made.sizes), made.num_sizes) == (64, 200)


def test_each_champion_is_fetched_once_and_leaves_with_its_alias(tmp_path: Path) -> None:
    file, fetched = str(tmp_path / "summaries.json"), list[str]()

    def fetch(name: str) -> TrainingImages | None:
        fetched.append(name)
        return told(name) if name != "old" else None

    collect(file, {"steel": "1", "old": "2"}, fetch)
    collect(file, {"steel": "1", "old": "2"}, fetch)
    assert sorted(fetched) == ["old", "steel"]
    assert [each.name for each in KnownCategories(file).of_space("s")] == ["steel"]
    collect(file, {"steel": "3", "wood": "4"}, fetch)  # promoted anew; another came, one went
    assert sorted(fetched[2:]) == ["steel", "wood"]
    assert [each.name for each in KnownCategories(file).of_space("s")] == ["steel", "wood"]


@pytest.mark.parametrize("error", [RegistryError("away"), PackageError("damaged")])
def test_what_cannot_be_fetched_costs_no_other_and_is_asked_again(
    tmp_path: Path, error: Exception
) -> None:
    file = str(tmp_path / "summaries.json")

    def fails(name: str) -> TrainingImages | None:
        if name == "wood":
            raise error
        return told(name)

    champions = {"steel": "1", "wood": "2"}
    collect(file, champions, fails)
    assert [each.name for each in KnownCategories(file).of_space("s")] == ["steel"]
    collect(file, champions, lambda name: told(name) if name == "wood" else pytest.fail(name))
    assert [each.name for each in KnownCategories(file).of_space("s")] == ["steel", "wood"]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"format": 1}', b'{"format": 1, "categories": 3}']
)
def test_a_damaged_file_of_summaries_is_made_anew(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "summaries.json"
    file.write_bytes(content)
    assert KnownCategories(str(file)).of_space("s") == []
    collect(str(file), {"steel": "1"}, told)
    assert [each.name for each in KnownCategories(str(file)).of_space("s")] == ["steel"]


def test_a_category_that_was_renamed_is_known_by_its_name_of_today(tmp_path: Path) -> None:
    file = str(tmp_path / "summaries.json")
    collect(file, {"steel": "1"}, lambda _: told("iron"))
    assert [each.name for each in KnownCategories(file).of_space("s")] == ["steel"]


def test_without_a_file_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    assert KnownCategories(None).of_space("s") == []
    assert KnownCategories(str(tmp_path / "none.json")).of_space("s") == []


def test_the_file_is_read_once_for_a_space(tmp_path: Path) -> None:
    file = tmp_path / "summaries.json"
    collect(str(file), {"steel": "1"}, told)
    known = KnownCategories(str(file))
    first = known.of_space("s")
    file.unlink()
    assert known.of_space("s") is first
    assert known.of_space("other") == []


def test_an_onboarding_names_images_that_look_like_another_category(tmp_path: Path) -> None:
    steel = factory.make_category(tmp_path / "steel", num_good=24, num_test=0)
    prepared = prepare(factory.category(steel))
    rows = np.random.default_rng(5).normal(size=(60, 16)).astype(np.float32)
    rows[4] = np.random.default_rng(6).normal(7, 1, size=16)
    images = image_set(60, pooled=rows)
    prepared = replace(
        prepared, good=replace(prepared.good, images=images), described=describe(images, "s")
    )
    file = str(tmp_path / "summaries.json")
    centres = {"gear": 7.0, "bolt": -7.0, "steel": 7.0}  # its own champion is no other category
    digests = dict.fromkeys(centres, "1")
    collect(file, digests, lambda name: told(name, centres[name]))
    compared = compare(prepared, KnownCategories(file))
    (finding,) = compared.findings[len(prepared.findings) :]
    assert finding.startswith("another category: images that look like another category's: 1, ")
    assert "/images/good/004.png (looks like gear)" in finding
    assert compare(prepared, KnownCategories(None)).findings == prepared.findings


def test_summaries_of_champions_come_from_the_registry(tracking_uri: str, tmp_path: Path) -> None:
    for name in ("steel", "old", "later"):
        folder = tmp_path / name
        make_package(folder)
        if name == "old":
            (folder / TRAINING_IMAGES_FILE).unlink()
        version = models.register(name, f"key of {name}", folder)
        if name != "later":
            models.promote(version)
    found = models.champions()
    from_registry = models.training_images(found["steel"])
    assert from_registry is not None
    assert from_registry.to_bytes() == (tmp_path / "steel" / TRAINING_IMAGES_FILE).read_bytes()
    assert models.training_images(found["old"]) is None
    file = onboarding._collect_summaries(str(tmp_path / "runs"))
    assert file is not None
    entries = json.loads(Path(file).read_text())["categories"]
    assert {name: bool(each["summary"]) for name, each in entries.items()} == {
        "steel": True,
        "old": False,
    }


def test_a_fleet_has_what_its_packages_say_of_their_images(tmp_path: Path) -> None:
    made = make_package(tmp_path / "package")
    fleet = resolve_fleet(
        str(tmp_path / "out"),
        {"steel": factory.version("steel", tmp_path / "package")},
        {"steel"},
        lambda version, folder: tmp_path / "package",
    )
    loaded, made_before = fleet.champions["steel"].load_training_images(), made.training_images
    assert loaded is not None
    assert made_before is not None
    assert loaded.to_bytes() == made_before.to_bytes()
