"""Synthetic anomalies that a detector learns from: what they are made of, and always the same."""

import hashlib
import shutil
from pathlib import Path

import factory
import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.calibration import Part
from pipeline.catalogue.catalogue import Category
from pipeline.datasets.bank_files import UNFINISHED_FILE, UnfinishedBank
from pipeline.images.decode import read_image
from pipeline.onboarding.anomaly_bank import NoAnomalies, read_bank
from pipeline.onboarding.contents import CONTENTS, of_nothing, of_the_same
from pipeline.onboarding.key import onboarding_key
from pipeline.onboarding.pairs import AREA, BANK_OPACITY, PairMaker
from pipeline.onboarding.prepare import PreparedCategory, prepare
from pipeline.onboarding.synthetic import MIN_CHANGE, NothingChanges, Pixels

IMAGES = [factory.texture(seed) for seed in range(4)]  # 96 x 96


def category(images: Path | str, **changes: object) -> Category:
    shared = {name: value for name, value in factory.SETTINGS.items() if name != "training"}
    own = {"name": "net", "images": str(images), "detector": "realnet"}
    settings = {"realnet": factory.SMALL_REALNET, **changes}
    return Category.model_validate({**shared, **own, **settings})


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factory.make_category(tmp_path_factory.mktemp("pairs") / "images", num_test=0)


@pytest.fixture(scope="module")
def prepared(images: Path) -> PreparedCategory:
    return prepare(category(images))


def red_bank(folder: Path, num: int = 3) -> Path:
    folder.mkdir(parents=True)
    for number in range(num):
        Image.new("RGB", (40, 30), (255, 10 * number, 0)).save(folder / f"{number}.png")
    return folder


def test_pairs_are_made_of_training_images_alone(prepared: PreparedCategory) -> None:
    assert prepared.pairs is not None
    train = set(prepared.images_of(Part.TRAIN).tolist())
    assert set(prepared.pairs.originals.tolist()) <= train
    assert prepared.pairs.bank.num_images == len(prepared.pairs.masks) == 32
    assert prepared.pairs.masks.shape[1:] == (64, 64)
    assert prepared.backbone.num_images_seen == 40 + 32  # one pass each


def test_the_same_images_and_seed_give_the_same_pairs(
    images: Path, prepared: PreparedCategory
) -> None:
    again, other = prepare(category(images)).pairs, prepare(category(images, training={"seed": 1}))
    assert prepared.pairs is not None
    assert again is not None
    assert other.pairs is not None
    assert torch.equal(again.originals, prepared.pairs.originals)
    assert torch.equal(again.masks, prepared.pairs.masks)
    for one, two in zip(again.bank.levels, prepared.pairs.bank.levels, strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(other.pairs.masks, prepared.pairs.masks)


def test_features_change_inside_the_mask_and_not_far_from_it(prepared: PreparedCategory) -> None:
    pairs = prepared.pairs
    assert pairs is not None
    anomalous = pairs.bank.images(torch.arange(32))[0].float()
    good = prepared.good.bank.images(pairs.originals)[0].float()
    change = (anomalous - good).abs().mean(dim=1)
    marked = torch.nn.functional.max_pool2d(pairs.masks[:, None].float(), 4)[:, 0] > 0
    near = torch.nn.functional.max_pool2d(marked[:, None].float(), 9, 1, 4)[:, 0] > 0
    assert change[marked].mean() > 5 * change[~near].mean()


def test_a_kind_that_needs_none_gets_none(images: Path) -> None:
    assert prepare(factory.category(images)).pairs is None


def maker(bank: list[Pixels] | None = None, seed: int = 0) -> PairMaker:
    return PairMaker(images=IMAGES, bank=bank or [], seed=seed)


@pytest.mark.parametrize("bank", [[], [np.zeros((96, 96, 3), np.uint8)]])
def test_nothing_changes_outside_the_mask_and_everything_in_it(bank: list[Pixels]) -> None:
    for number in range(40):
        place, pixels, mask = maker(bank).make(number)
        change = np.abs(pixels.astype(int) - IMAGES[place]).max(axis=2)
        assert (change[mask] >= MIN_CHANGE).all()
        assert (change[~mask] == 0).all()
        assert 0 < mask.mean() <= AREA[1] + 0.01


def test_every_good_image_has_its_turn_and_each_pair_depends_on_its_number_alone() -> None:
    made = [maker().make(number) for number in range(40)]
    assert {place for place, _, _ in made} == {0, 1, 2, 3}
    assert np.array_equal(maker().make(7)[1], made[7][1])
    assert not np.array_equal(maker(seed=1).make(7)[1], made[7][1])


def test_content_of_a_bank_is_laid_over_by_half_at_least() -> None:
    red = np.zeros((96, 96, 3), np.uint8)
    red[..., 0] = 255
    shares = []
    for number in range(60):
        place, pixels, mask = maker([red]).make(number)
        blue = IMAGES[place][..., 2][mask].astype(float)
        shares.append(1 - np.median(pixels[..., 2][mask] / blue))
    assert min(shares) >= BANK_OPACITY[0] - 0.02
    assert max(shares) <= 1
    assert 0.65 < np.mean(shares) < 0.85


def test_black_images_are_refused() -> None:
    black = [np.zeros((64, 64, 3), np.uint8)]
    with pytest.raises(NothingChanges, match="changed next to nothing"):
        PairMaker(images=black, bank=black, seed=0).make(0)


@pytest.mark.parametrize("make", CONTENTS)
def test_contents_have_the_size_of_the_image(make: object) -> None:
    for number in range(5):
        content = make(IMAGES[0][:64], IMAGES[1][:64], np.random.default_rng(number))  # type: ignore[operator]
        assert content.shape == (64, 96, 3)
        assert np.isfinite(content).all()


def test_content_of_the_same_image_is_shifted_by_an_eighth_at_least() -> None:
    ramp = np.arange(64 * 64 * 3).reshape(64, 64, 3) % 251
    for number in range(20):
        content = of_the_same(ramp.astype(np.uint8), ramp, np.random.default_rng(number))
        assert not np.array_equal(content, ramp)


def test_textures_of_nothing_use_all_grey_levels_and_some_have_no_colour() -> None:
    made = [of_nothing(IMAGES[0], IMAGES[1], np.random.default_rng(n)) for n in range(40)]
    assert all((each.min(), each.max()) == (0, 255) for each in made)
    grey = np.mean([np.ptp(each, axis=2).max() == 0 for each in made])
    assert 0.1 < grey < 0.5


def test_a_bank_of_images_from_anywhere_is_learned_from(images: Path, tmp_path: Path) -> None:
    bank = red_bank(tmp_path / "bank" / "deeper")
    (tmp_path / "bank" / "provenance.json").write_text("{}")
    made = prepare(category(images, anomalies=str(tmp_path / "bank")))
    assert made.pairs is not None
    assert not torch.equal(made.pairs.masks, prepare(category(images)).pairs.masks)  # type: ignore[union-attr]
    pixels = read_image(str(bank / "0.png"), made.category.preprocessing).pixels
    read = read_bank(made.category, [], 2)
    assert len(read.pixels) == len(read.hashes) == 2
    assert len(read.of_first_draws(1).pixels) == 1
    assert pixels is not None
    assert {each.shape for each in read.pixels} == {pixels.shape}


def test_copies_of_test_images_are_left_out_of_a_bank(tmp_path: Path) -> None:
    bank = red_bank(tmp_path / "bank")
    shutil.copy(bank / "1.png", tmp_path / "test.png")
    net = category("/images", anomalies=str(bank))
    read = read_bank(net, [str(tmp_path / "test.png")], 9)
    digests = [
        hashlib.sha256((bank / name).read_bytes()).hexdigest() for name in ("0.png", "2.png")
    ]
    assert read.hashes == digests
    told = "anomalies: 1 images are test images or copies of them, from which nothing is learned: "
    assert read.findings == [f"{told}{bank / '1.png'}"]
    with pytest.raises(NoAnomalies, match="3 are test images or copies of them"):
        read_bank(net, [str(path) for path in bank.iterdir()], 9)


def test_a_bank_without_images_is_one_clear_line(images: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/a.png").write_bytes(b"nothing")
    expected = {"empty": "holds 0 images", "missing": "holds 0 images", "broken": "holds 1 images"}
    for folder, found in expected.items():
        with pytest.raises(NoAnomalies, match=found) as refused:
            prepare(category(images, anomalies=str(tmp_path / folder)))
        assert "leave it out" in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_bank_that_is_still_being_made_is_refused(images: Path, tmp_path: Path) -> None:
    red_bank(tmp_path / "bank")
    (tmp_path / "bank" / UNFINISHED_FILE).write_text("{}")
    with pytest.raises(UnfinishedBank, match="is not finished"):
        prepare(category(images, anomalies=str(tmp_path / "bank")))


def test_a_key_has_the_bank_of_those_who_set_one(images: Path, tmp_path: Path) -> None:
    bank = red_bank(tmp_path / "bank")
    plain = onboarding_key(category(images))
    key = onboarding_key(category(images, anomalies=str(bank)))
    assert plain == onboarding_key(category(images, anomalies=None))
    assert key != plain
    Image.new("RGB", (40, 30), (0, 0, 255)).save(bank / "9.png")
    assert onboarding_key(category(images, anomalies=str(bank))) != key
