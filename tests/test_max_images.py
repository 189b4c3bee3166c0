"""`max_images`: a category learns from some of its good images, and says so."""

import json
import logging
import shutil
from pathlib import Path

import factory
import pytest

from pipeline.catalogue.catalogue import Category
from pipeline.datasets.samples import Sample
from pipeline.onboarding.features import training_uris
from pipeline.onboarding.finish import write_package
from pipeline.onboarding.key import onboarding_key
from pipeline.onboarding.prepare import prepare


def samples(folder: str, numbers: range) -> list[Sample]:
    train = [Sample(f"{folder}/train/good/{number}.png", "train", "good") for number in numbers]
    return [*train, Sample(f"{folder}/test/good/0.png", "test", "good")]


def names(category: Category, given: list[Sample]) -> list[str]:
    return [uri.rpartition("/")[2] for uri in training_uris(category, given)]


def test_all_good_images_are_taken_unless_there_are_more_than_the_limit() -> None:
    given = samples("/a/steel", range(100))
    for limit in (None, 100, 101):
        category = factory.category("/a/steel", max_images=limit)
        assert training_uris(category, given) == [sample.uri for sample in given[:-1]]


def test_the_choice_does_not_depend_on_the_order_or_on_where_the_images_lie() -> None:
    given = samples("/a/steel", range(100))
    chosen = names(factory.category("/a/steel", max_images=30), given)
    assert len(set(chosen)) == 30
    assert names(factory.category("/a/steel/", max_images=30), given[::-1]) == chosen
    elsewhere = factory.category("s3://b/line-3/steel", max_images=30)
    assert names(elsewhere, samples("s3://b/line-3/steel", range(100))) == chosen


def test_a_higher_limit_and_more_images_keep_what_was_chosen() -> None:
    """Of twice as many images about half of those chosen stay; none of the others comes back."""
    few, more = (factory.category("/a/steel", max_images=limit) for limit in (100, 200))
    given, twice = samples("/a/steel", range(1000)), samples("/a/steel", range(2000))
    chosen = {*names(few, given)}
    assert chosen < {*names(more, given)}
    assert {*names(few, twice)} & {*names(more, given)} <= chosen


def test_every_image_is_as_likely() -> None:
    """Half of 10,000 names, give or take 4 standard deviations in each half of the list."""
    chosen = names(factory.category("/a/s", max_images=5000), samples("/a/s", range(10_000)))
    first = sum(int(name.removesuffix(".png")) < 5000 for name in chosen)
    assert abs(first - 2500) < 4 * 25  # hypergeometric: sqrt(5000 / 8) = 25


def test_a_package_says_how_many_images_were_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = factory.make_category(tmp_path / "steel", num_good=40, num_test=1)
    (images / "train/good/broken.png").write_bytes(b"no image")
    category = factory.category(images, max_images=41)
    assert onboarding_key(category) != onboarding_key(factory.category(images))
    with caplog.at_level(logging.INFO, logger="pipeline.onboarding.features"):
        prepared = prepare(factory.category(images, max_images=30))
    assert "steel: takes 30 of 41 good images" in caplog.text
    for _ in prepared.trainer.run():
        pass
    write_package(prepared, tmp_path / "package")
    record = json.loads((tmp_path / "package/onboarding.json").read_text())
    counts = record["counts"]
    assert counts["train"] + counts["calibration"] + counts["unreadable"] == 30
    assert (counts["beyond_max_images"], record["settings"]["max_images"]) == (11, 30)


def test_copies_of_a_folder_choose_the_same_images(tmp_path: Path) -> None:
    images = factory.make_category(tmp_path / "a/steel", num_good=30, num_test=0)
    shutil.copytree(images, tmp_path / "b/steel")
    first, second = (
        prepare(factory.category(tmp_path / place / "steel", max_images=20)).good.hashes
        for place in ("a", "b")
    )
    assert first == second
