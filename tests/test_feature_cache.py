"""Where features are kept: memory, or a file without a name; what has no room is refused."""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import factory
import pytest
import torch
import yaml

from model.kind import TrainingSet
from model.recipe import Recipe, RecipeTrainer
from model.simplenet import HeadConfig
from model.tiled_bank import TiledBank, of_levels
from model.tiles import Tiles
from model.training import TrainingConfig
from pipeline.catalogue.catalogue import CatalogueError, Category, load_catalogue
from pipeline.onboarding import feature_cache
from pipeline.onboarding.feature_cache import CacheTooSmall, bank_of_images, mapped, reserve
from pipeline.onboarding.finish import write_package
from pipeline.onboarding.prepare import PreparedCategory, prepare
from pipeline.package import package_digest

TINY = 1e-6  # GB: no image fits
# A 64-pixel crop with EfficientNet-Lite0: 40 channels on 8 x 8, 112 on 4 x 4, half precision.
IMAGE_BYTES = 2 * (40 * 64 + 112 * 16)
NUM_GOOD = 400
ROOM_GB = 0.0034  # for fewer


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


def two_members(images: Path, **changes: Any) -> Category:
    return factory.category(images, training={"members": 2}, **changes)


def both_heads(prepared: PreparedCategory) -> RecipeTrainer:
    """A trainer of tiny heads over patches and over images."""
    config = TrainingConfig(
        head=HeadConfig(hidden=4, members=2), passes=1, steps_per_pass=2, batch_rows=64
    )
    trainer = prepared.trainer
    recipe = Recipe(patch=config, image=config)
    return RecipeTrainer(
        TrainingSet(bank=trainer.bank, images=trainer.images, folds=trainer.folds), recipe
    )


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
    num_images = int(0.6 * free_gb * 1000 / 2)  # 2 MB an image
    with pytest.raises(CacheTooSmall, match="half of what is free there") as refusal:
        reserve(category, num_images, [(1, 1000, 1000)], torch.device("cpu"))
    room = re.search(rf"for (\S+) GB in {temporary} ", str(refusal.value))
    assert room is not None
    assert float(room[1]) == pytest.approx(free_gb / 2, rel=0.1)


def test_what_has_no_room_is_refused_with_how_many_images_have(many: Path) -> None:
    category = two_members(many, cache_gb=ROOM_GB, cache_disk_gb=TINY)
    with pytest.raises(CacheTooSmall) as refusal:
        prepare(category)
    message = str(refusal.value)
    assert NUM_GOOD * IMAGE_BYTES == 3_481_600
    assert "steel: the features of 400 images take 0.00348 GB" in message
    assert "room for 0.0034 GB in memory (cache_gb) and for 1e-06 GB in" in message
    assert "Raise cache_gb or cache_disk_gb, let TMPDIR name a folder with more room" in message
    assert ROOM_GB * 1e9 // IMAGE_BYTES == 390
    assert message.endswith("take fewer images: 390 fit; `max_images: 390` trains on so many.")


def test_the_number_that_is_named_fits(many: Path) -> None:
    category = two_members(many, cache_gb=ROOM_GB, cache_disk_gb=TINY, max_images=390)
    assert len(prepare(category).good.uris) == 390


def test_no_number_is_named_where_no_image_fits(many: Path) -> None:
    category = two_members(many, cache_gb=TINY, cache_disk_gb=TINY)
    with pytest.raises(CacheTooSmall, match=r"a folder with more room\.$"):
        prepare(category)


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


@pytest.mark.parametrize(
    ("memory", "disk", "in_file"), [(14, 0.001, False), (13, 100, True), (13, 13, None)]
)
def test_images_larger_than_the_usual_one_keep_to_the_room(
    memory: int, disk: int, in_file: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    monkeypatch.setattr(feature_cache, "mapped", lambda shape: files.append(shape) or mapped(shape))
    an_input = 2 * 16 * 8 * 8  # bytes
    tiles = Tiles(size=64, image=(64, 64))
    category = factory.category(
        *("images", "cut"),
        **{"tiles": {"size": 64}, "crop": None, "resize": None},
        **{"cache_gb": memory * an_input / 1e9, "cache_disk_gb": disk * an_input / 1e9},
    ).model_copy(update={"tiles": tiles})
    bank = bank_of_images(category, 2, [(16, 8, 8)], torch.device("cpu"))
    assert isinstance(bank, TiledBank)
    assert bank.inputs.num_images == 2 * 2
    wide = of_levels((64, 320), [torch.randn(9 + 1, 16, 8, 8).half()])
    if in_file is None:  # 10 inputs, and the 4 of before beside them
        with pytest.raises(CacheTooSmall, match=r"2 inputs \(tiles and thumbnail\) and more"):
            bank.write(0, [wide])
        return
    bank.write(0, [wide])
    assert bool(files) is in_file
    assert bank.inputs.num_images == 10
    (read,) = bank.images(torch.tensor([0]))
    assert torch.equal(next(read.chunks())[0], next(wide.chunks())[0])
