"""How long an onboarding may take: by what is on record, and by a look at a few images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factory import SETTINGS, category, make_category
from test_onboarding_overview import outcome

from model.memory_bank import MemoryBankRecipe
from pipeline.catalogue.catalogue import Category
from pipeline.onboarding.estimate import Estimate, estimate
from pipeline.onboarding.probe import Probed, choose, probe, shortened


def named(name: str, **changes: Any) -> Category:
    return category("/nowhere", name, **changes)


def probed(name: str, **changes: Any) -> Probed:
    values = {"image_s": 0.1, "training_s": 20.0, "num_images": None}
    return Probed(category=name, **{**values, **changes})


def seconds_of(num_files: int, found: Probed, on_record: Any = None) -> Estimate:
    each = named("steel")
    return estimate([each], {"steel": num_files}, on_record or {}, [found])


def test_a_category_takes_what_its_record_says_or_what_one_of_its_kind_was_probed_to_take() -> None:
    categories = [named("steel"), named("wood"), named("glass"), named("wide", crop=32)]
    num_files = {"steel": 100, "wood": 52, "glass": 152, "wide": 10}
    record = {"steel": outcome("steel", timings_s={"embedding": 8.0}, num_files=40)}
    probes = [probed("glass"), probed("wood", image_s=0.3)]
    found = estimate(categories, num_files, record, probes)
    assert found.recorded == pytest.approx({"steel": 20.0, "wide": 2.0})  # no probe of its kind
    # Its files and 48 synthetic anomalies, and the training.
    assert found.probed == pytest.approx({"wood": 30 + 20, "glass": 20 + 20})
    assert (found.unknown, found.probes) == ((), ("glass", "wood"))
    assert found.seconds == pytest.approx(112)


def test_without_a_probe_of_its_kind_or_a_record_a_category_is_not_counted() -> None:
    found = estimate([named("steel"), named("wood", crop=32)], {"steel": 52, "wood": 1}, {}, [])
    assert (found.unknown, found.seconds) == (("steel", "wood"), 0)
    failed = {"steel": outcome("steel", "failed")}
    assert estimate([named("steel")], {"steel": 52}, failed, []).unknown == ("steel",)


@pytest.mark.parametrize(
    ("num_files", "num_images", "seconds"),
    [
        (52, None, 10 + 20),  # a training that is as long for any number
        (12, 8, 6 + 20 * 12 / 8),
        (6, 8, 5.4 + 20),  # no shorter than what was seen
        (252, 8, 30 + 20 * 128 / 8),  # more give it no more to choose from
    ],
)
def test_a_fit_takes_longer_for_more_images_up_to_its_candidates(
    num_files: int, num_images: int | None, seconds: float
) -> None:
    assert seconds_of(num_files, probed("steel", num_images=num_images)).seconds == pytest.approx(
        seconds
    )


@pytest.mark.parametrize(("slots", "seconds"), [(1, 20), (2, 10), (3, 8), (9, 8)])
def test_the_largest_categories_begin_and_the_rest_fill_up(slots: int, seconds: float) -> None:
    """8 | 5 2 | 4 1 on three slots; 8 2 | 5 4 1 on two."""
    found = Estimate(
        recorded={"a": 4.0, "b": 8.0, "c": 1.0}, probed={"d": 5.0, "e": 2.0}, unknown=(), probes=()
    )
    assert found.duration(slots) == pytest.approx(seconds)


def test_the_largest_of_each_kind_are_looked_at_and_the_smallest() -> None:
    categories = [named("a"), named("b"), named("c", crop=32), named("d", crop=32), named("e")]
    sizes = {"a": 5, "b": 9, "c": 30, "d": 20, "e": 2}
    assert [each.name for each in choose(categories, sizes)] == ["c", "b", "e"]
    assert [each.name for each in choose(categories[:1], sizes)] == ["a"]
    assert choose([], {}) == []


def test_each_head_is_trained_for_a_few_passes_and_counts_with_all_of_its_own() -> None:
    own = {"passes": 30, "image_head": True, "members": 2}
    whole = named("steel", training=own).recipe
    short, passes = shortened(whole)
    assert passes == {"patch": whole.patch.passes, "image": whole.image.passes}
    assert passes["patch"] == 30
    assert (short.patch.passes, short.image.passes) == (4, 4)
    assert replace(short, patch=whole.patch, image=whole.image) == whole
    two, passes = shortened(named("steel").recipe)  # two passes and no head over images
    assert (two, passes) == (named("steel").recipe, {"patch": 2})
    assert shortened(MemoryBankRecipe()) == (MemoryBankRecipe(), {})


def test_a_probe_times_a_few_images_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = {name: make_category(tmp_path / name, num_good=n) for name, n in [("a", 20), ("b", 3)]}
    files = sorted(tmp_path.rglob("*"))
    shared = {name: SETTINGS[name] for name in ("backbone", "resize", "crop", "precision")}
    own = {"name": "c", "images": str(images["a"]), "detector": "memory_bank"}
    of_bank = Category.model_validate({**shared, **own})
    there = [
        category(images["a"], "a"),
        named("missing"),
        category(images["b"], "b"),
        of_bank,
    ]
    found = list(probe(there))
    assert [each.category for each in found] == ["a", "b", "c"]
    assert [each.num_images for each in found] == [None, None, 8]
    assert all(0 < each.image_s < 10 for each in found)
    assert all(0 < each.training_s < 60 for each in found)
    assert sorted(tmp_path.rglob("*")) == files
    assert [each.category for each in probe(there, limit_s=0)] == ["a"]


def test_a_probe_says_how_many_heads_there_are_and_what_they_take(tmp_path: Path) -> None:
    images = make_category(tmp_path, num_good=4)  # of 96 x 96 pixels: four tiles, and a thumbnail
    shares = ("all", "position")
    each = [
        category(images, tiles={"size": 64, "share": share}, resize=None, crop=None)
        for share in shares
    ]
    two, five = probe(each, limit_s=600)
    assert (two.inputs, two.heads) == (5, 2)
    assert (five.inputs, five.heads) == (5, 5)
    assert two.megabytes
    assert five.megabytes == pytest.approx(two.megabytes * 5 / 2, rel=0.01)
