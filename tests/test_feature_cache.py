"""Where features are kept: memory, a file without a name, or a share of the patches."""

import logging
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import factory
import pytest
import torch
import yaml

from model.embedding import mean_levels
from model.patch_sample import PatchSample
from model.recipe import Recipe, RecipeTrainer
from model.simplenet import HeadConfig
from model.training import TrainingConfig
from pipeline.calibration import Part
from pipeline.catalogue.catalogue import CatalogueError, Category, load_catalogue
from pipeline.onboarding.feature_cache import CacheTooSmall, FeatureCache, mapped
from pipeline.onboarding.features import extract
from pipeline.onboarding.finish import finish, write_package
from pipeline.onboarding.prepare import PreparedCategory, prepare
from pipeline.package import package_digest

TINY = 1e-6  # GB: no image fits
# A 64-pixel crop with EfficientNet-Lite0: 40 channels on 8 x 8, 112 on 4 x 4, half precision.
IMAGE_BYTES = 2 * (40 * 64 + 112 * 16)
PATCH_BYTES = 2 * (40 + 112)
NUM_GOOD = 400
NUM_WHOLE = 80 + 256  # a fifth is held out; training images for the scale
ROOM_GB = 0.0034  # NUM_WHOLE images, and (3,400,000 - 2,924,544) // 121,600 = 3 patches of each


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of the test's own, named by TMPDIR."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    factory.write_images(folder / "train/good", range(NUM_GOOD))
    return folder


@pytest.fixture(scope="module")
def whole(many: Path) -> PreparedCategory:
    return prepare(two_members(many))


@pytest.fixture(scope="module", params=["memory", "file"])
def sampled(request: pytest.FixtureRequest, many: Path) -> PreparedCategory:
    """With room for a share only, be it in memory or on disk."""
    room = {"memory": (ROOM_GB, TINY), "file": (TINY, ROOM_GB)}[request.param]
    return prepare(two_members(many, cache_gb=room[0], cache_disk_gb=room[1]))


def two_members(images: Path, **changes: Any) -> Category:
    return factory.category(images, training={"members": 2}, **changes)


def both_heads(prepared: PreparedCategory) -> RecipeTrainer:
    """A trainer of tiny heads over patches and over images."""
    config = TrainingConfig(
        head=HeadConfig(hidden=4, members=2), passes=1, steps_per_pass=2, batch_rows=64
    )
    trainer = prepared.trainer
    recipe = Recipe(patch=config, image=config)
    return RecipeTrainer(trainer.bank, trainer.images, trainer.folds, recipe)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def package_of(category: Category, folder: Path) -> str:
    prepared = prepare(category)
    for _ in prepared.trainer.run():
        pass
    folder.mkdir()
    write_package(prepared, folder)
    return package_digest(folder)


def test_features_in_a_file_give_the_same_package_and_leave_nothing(
    tmp_path: Path, temporary: Path
) -> None:
    images = factory.make_category(tmp_path / "steel")
    in_memory, in_file = two_members(images), two_members(images, cache_gb=TINY)
    kept = prepare(in_file)
    assert files_in(temporary) == []  # not even while it is used
    for a, b in zip(kept.good.bank.levels, prepare(in_memory).good.bank.levels, strict=True):
        assert torch.equal(a, b)
    assert package_of(in_memory, tmp_path / "a") == package_of(in_file, tmp_path / "b")
    assert files_in(temporary) == []


def test_both_heads_are_the_same_whether_features_lie_in_memory_or_in_a_file(
    tmp_path: Path,
) -> None:
    images = factory.make_category(tmp_path / "steel")
    states = []
    for changes in ({}, {"cache_gb": TINY}):
        trainer = both_heads(prepare(two_members(images, **changes)))
        for _ in trainer.run():
            pass
        states.append(trainer.folded().state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_a_file_that_the_disk_cannot_hold_is_refused_before_anything_is_written(
    temporary: Path,
) -> None:
    with pytest.raises(CacheTooSmall, match=f"{temporary} cannot hold 2e\\+09 GB.*raise cache_gb"):
        mapped((10**9, 10**6, 10**3))
    assert files_in(temporary) == []


def test_half_of_the_free_disk_is_the_most_a_category_takes(temporary: Path) -> None:
    category = factory.category("images", cache_gb=TINY, cache_disk_gb=1e9)
    free_gb = shutil.disk_usage(temporary).free / 1e9
    cache = FeatureCache(category=category, shapes=[(1, 1000, 1000)], device=torch.device("cpu"))
    with pytest.raises(CacheTooSmall, match="half of what is free there") as refusal:
        cache.whole(int(0.6 * free_gb * 1000 / 2))  # 2 MB an image
    room = re.search(rf"for (\S+) GB in {temporary} ", str(refusal.value))
    assert room is not None
    assert float(room[1]) == pytest.approx(free_gb / 2, rel=0.1)


def test_what_does_not_fit_trains_on_a_share_and_says_so(
    many: Path, caplog: pytest.LogCaptureFixture
) -> None:
    category = two_members(many, cache_gb=ROOM_GB, cache_disk_gb=TINY)
    with caplog.at_level(logging.WARNING, logger="pipeline.onboarding.feature_cache"):
        FeatureCache(
            category=category, shapes=[(40, 8, 8), (112, 4, 4)], device=torch.device("cpu")
        ).training(NUM_GOOD)
    (message,) = caplog.messages
    assert NUM_GOOD * IMAGE_BYTES == 3_481_600
    assert "steel: the features of 400 images take 0.00348 GB" in message
    assert "room for 0.0034 GB in memory (cache_gb) and for 1e-06 GB in" in message
    assert message.endswith("; trains on 4.7 % of each image's patches, 336 images whole")


def test_a_share_stays_within_the_room(sampled: PreparedCategory) -> None:
    bank = sampled.good.bank
    assert isinstance(bank, PatchSample)
    assert bank.patches_NPC.nbytes == NUM_GOOD * 3 * PATCH_BYTES
    assert bank.bank.size_bytes == NUM_WHOLE * IMAGE_BYTES
    assert bank.patches_NPC.nbytes + bank.bank.size_bytes <= ROOM_GB * 1e9


def test_the_split_is_the_same_and_held_out_images_stay_whole(
    whole: PreparedCategory, sampled: PreparedCategory
) -> None:
    assert sampled.parts.tolist() == whole.parts.tolist()
    held_out = sampled.images_of(Part.CALIBRATION)
    assert len(held_out) == 80
    for a, b in zip(
        sampled.good.bank.images(held_out), whole.good.bank.images(held_out), strict=True
    ):
        assert torch.equal(a, b)
    assert sampled.backbone.num_images_seen == whole.backbone.num_images_seen == NUM_GOOD


def test_what_is_kept_of_a_training_image_are_patches_of_it(
    whole: PreparedCategory, sampled: PreparedCategory
) -> None:
    for image in sampled.images_of(Part.TRAIN)[::40]:
        kept = sampled.good.bank.whole(image[None])
        everything = whole.good.bank.whole(image[None])
        distance, nearest = torch.cdist(kept, everything).min(dim=1)
        assert len(nearest.unique()) == len(kept) == 3
        assert distance.max() < 1e-3 * everything.norm(dim=1).mean()


def test_the_scale_is_set_on_whole_training_images_that_a_member_left_out(
    sampled: PreparedCategory,
) -> None:
    trainer = both_heads(sampled)
    for _ in trainer.run():
        pass
    heads = trainer.folded()
    unseen = list(trainer.unseen(heads))
    index = torch.cat([index for _, index in unseen])
    assert len(index.unique()) == len(index) == 256
    assert set(index.tolist()) <= set(sampled.images_of(Part.TRAIN).tolist())
    levels = [(member, trainer.bank.images(index)) for member, index in unseen]
    patch = torch.cat([member.patch(each).flatten(1).amax(1) for member, each in levels])
    image = torch.cat([member.image(mean_levels(each)).flatten() for member, each in levels])
    for scores in (patch, image):
        assert scores.mean().item() == pytest.approx(0, abs=1e-4)
        assert scores.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_a_category_onboards_on_a_share(sampled: PreparedCategory) -> None:
    for _ in sampled.trainer.run():
        pass
    package, _ = finish(sampled)
    assert len(package.calibration.scores) == 80


def test_cross_calibration_needs_every_image_whole(many: Path) -> None:
    category = two_members(many, calibration="cross", cache_gb=ROOM_GB, cache_disk_gb=TINY)
    with pytest.raises(
        CacheTooSmall,
        match=r"steel: .* 400 images take 0\.00348 GB.*cross needs every image whole. "
        r"Take calibration: split. Raise cache_gb or cache_disk_gb",
    ):
        prepare(category)


def test_room_for_less_than_the_whole_images_is_refused_with_what_is_needed(many: Path) -> None:
    category = two_members(many, cache_gb=0.003, cache_disk_gb=TINY)
    # 1 % of 64 patches is 1: 2,924,544 + 121,600 bytes
    with pytest.raises(CacheTooSmall, match=r"336 whole images and .* need 0\.00305"):
        prepare(category)


def test_labelled_images_are_never_sampled(many: Path, whole: PreparedCategory) -> None:
    category = two_members(many, cache_gb=ROOM_GB, cache_disk_gb=TINY)
    with pytest.raises(CacheTooSmall, match=r"400 images take 0\.00348 GB.*all of it is needed"):
        extract(whole.good.uris, category, whole.backbone)


@pytest.mark.parametrize("name", ["cache_gb", "cache_disk_gb"])
@pytest.mark.parametrize("value", [0, -1, ".nan", ".inf", "much"])
def test_a_catalogue_asks_for_a_positive_room(tmp_path: Path, name: str, value: object) -> None:
    path = tmp_path / "catalogue.yaml"
    path.write_text(f"categories: [{{name: bottle, images: bottle, {name}: {value}}}]")
    with pytest.raises(CatalogueError, match=rf"categories\[0\]\.{name}: Input should be"):
        load_catalogue(str(path))


def test_the_rooms_have_defaults_and_may_be_set(tmp_path: Path) -> None:
    entries = [{"name": "a", "images": "a"}, {"name": "b", "images": "b", "cache_gb": 0.5}]
    path = tmp_path / "catalogue.yaml"
    path.write_text(yaml.safe_dump({"categories": entries}))
    a, b = load_catalogue(str(path))
    assert (a.cache_gb, a.cache_disk_gb, b.cache_gb) == (4.0, 64.0, 0.5)
