"""Zones that do not count: laws of the scores, and positions by hand."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from every_kind import small_category
from factory import category, make_category, score_without_cluster, texture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from small_realnet import recipe_of, training_set
from test_ensemble import trainer_of
from test_memory_bank import trainer_of as bank_trainer
from torch import Tensor, nn

from model.detector import DetectorFileError, load_detector, save_detector
from model.feature_bank import FeatureBank
from model.kind import Heads, Trainer, TrainingSet
from model.kinds import make_trainer
from model.memory_bank import MemoryBankRecipe
from model.preprocessing import Preprocessing
from model.realnet.realnet_training import RealNetTrainer
from model.recipe import Recipe
from model.simplenet import HeadConfig
from model.training import TrainingConfig
from model.zones import EVERYWHERE, Zones
from pipeline.images.fit import to_crop
from pipeline.images.placement import Placement, placement
from pipeline.images.regions import RegionRule, find_regions, highest_level
from pipeline.night.folder import NightFolder
from pipeline.night.results import read_night
from pipeline.onboarding.finish import write_package
from pipeline.onboarding.key import onboarding_key
from pipeline.onboarding.prepare import prepare
from pipeline.onboarding.zones import ZonesError, zones_of
from pipeline.package import Package

SHORT = TrainingConfig(
    head=HeadConfig(hidden=8, members=3), passes=2, steps_per_pass=3, batch_rows=32
)
LEFT = Zones(ignored=("11000000",) * 8)  # two columns of a grid of 8 x 8
SPECKS = dataclasses.replace(LEFT, min_area=3)


def heads_of(trainer: Trainer, zones: Zones) -> Heads:
    for _ in trainer.run():
        pass
    return trainer.folded().with_zones(zones)


def ensemble_of(zones: Zones) -> tuple[Heads, list[Tensor]]:
    """A detector of the parts SimpleNet, memory bank and pooled distance, and images."""
    from test_ensemble import bank_of

    bank = bank_of()
    bank.zones = zones
    return heads_of(trainer_of(bank), zones), bank_of(seed=5).images(torch.arange(4))


def neighbours_of(zones: Zones) -> tuple[Heads, list[Tensor]]:
    from test_memory_bank import bank_of

    bank = bank_of()
    bank.zones = zones
    trainer = bank_trainer(bank, neighbours=3)
    return heads_of(trainer, zones), bank_of(seed=5).images(torch.arange(4))


@pytest.mark.parametrize("make", [ensemble_of, neighbours_of])
@pytest.mark.parametrize("zones", [LEFT, SPECKS], ids=["ignored", "least area"])
def test_what_is_ignored_changes_no_bit_of_the_score(make: Any, zones: Zones) -> None:
    heads, levels = make(zones)
    scores, patch_scores = heads(levels)
    levels[0][:, :, :, :2] += 50.0
    again, patches_again = heads(levels)
    assert torch.equal(scores, again)
    assert torch.equal(patch_scores, patches_again)
    everywhere, _ = heads.with_zones(EVERYWHERE)(levels)
    assert not torch.equal(scores, everywhere)


@pytest.mark.parametrize(
    ("kind", "recipe"),
    [
        ("memory_bank", MemoryBankRecipe(size=20, folds=3)),
        ("memory_bank", MemoryBankRecipe(size=None, share=0.1, candidates=None, variance=1)),
        ("simplenet", Recipe(patch=SHORT, image=SHORT)),
        ("simplenet", Recipe(patch=dataclasses.replace(SHORT, coreset=0, batch_images=4))),
    ],
)
def test_what_is_ignored_changes_no_bit_of_what_is_trained(kind: str, recipe: Any) -> None:
    """However wildly it changes: not of the heads, nor of what they are measured in."""
    generator = torch.Generator().manual_seed(0)
    levels = torch.randn(12, 6, 8, 8, generator=generator)
    trained = []
    for wild in (1, 100):
        bank, images = FeatureBank(12, [(6, 8, 8)]), torch.arange(12)
        bank.zones = LEFT
        levels[:, :, :, :2] = wild * torch.randn(12, 6, 8, 2, generator=generator)
        bank.write(0, [levels])
        of_images = TrainingSet(bank=bank, images=images, folds=images % 3)
        trained.append(heads_of(make_trainer(kind, of_images, recipe), LEFT).state_dict())
    plain, wild_state = trained
    assert all(torch.equal(plain[name], wild_state[name]) for name in plain)


def test_the_parts_of_an_ensemble_are_scaled_by_what_counts() -> None:
    """Mean 0 and spread 1 over the images that each fold left out."""
    from test_ensemble import bank_of

    bank = bank_of()
    bank.zones = LEFT
    trainer = trainer_of(bank)
    heads = heads_of(trainer, LEFT)
    found = []
    for member, index in trainer.unseen(heads):
        levels = bank.images(index)
        simplenet = member.simplenet  # type: ignore[attr-defined]
        found.append(LEFT.highest(simplenet.patch(levels)))
    std, mean = torch.std_mean(torch.cat(found), correction=0)
    assert (mean.item(), std.item()) == pytest.approx((0, 1), abs=1e-3)


def test_a_copy_in_float32_and_the_members_have_the_same_zones() -> None:
    for make in (ensemble_of, neighbours_of):
        heads, levels = make(SPECKS)
        copy = heads.in_float32()
        assert all(m.zones == SPECKS for m in copy.modules() if isinstance(m, Heads))
        assert torch.equal(heads(levels)[0], copy(levels)[0])
    heads, levels = ensemble_of(SPECKS)
    parts = heads.simplenet.split(3)  # type: ignore[attr-defined]
    assert [part.zones for part in parts] == [SPECKS] * 3


def test_realnet_scores_by_means_of_what_counts() -> None:
    given_set = training_set()
    given_set.bank.zones = Zones(ignored=("1" * 8 + "0" * 8,) * 16)
    heads = RealNetTrainer(given_set, recipe_of(passes=1)).folded()
    assert heads.zones == given_set.bank.zones
    levels = given_set.bank.images(torch.arange(3))
    scores, filled = heads(levels)
    plain_scores, patches = heads.in_float32().with_zones(EVERYWHERE)(levels)
    assert torch.allclose(scores, patches[:, :, 8:].flatten(1).amax(1))
    assert torch.equal(filled[:, :, 8:], patches[:, :, 8:])
    assert torch.equal(filled[:, 0, 0], patches[:, :, 8:].flatten(1).amin(1))
    assert (scores <= plain_scores).all()


class Scoring(nn.Module):
    """What a graph has of zones."""

    def __init__(self, zones: Zones) -> None:
        super().__init__()
        self.zones = zones

    def forward(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        return self.zones.highest(scores), self.zones.filled(scores)


def test_a_graph_can_be_made_at_any_time_and_leaves_what_scores_as_it_was() -> None:
    """First, after another one, and after scores: each is the same graph."""
    network = Scoring(Zones(ignored=("100", "011")))  # that no other test has
    scores = torch.arange(12.0).view(2, 2, 3)
    for _ in range(3):
        program = torch.export.export(network, (scores,))
        for found in (program.module()(scores), network(scores)):
            assert found[0].tolist() == [3.0, 9.0]
            assert found[1][0].tolist() == [[1.0, 1.0, 2.0], [3.0, 1.0, 1.0]]


def test_means_of_squares_leave_out_what_does_not_count() -> None:
    scores = torch.arange(9.0).view(1, 3, 3)
    zones = Zones(ignored=("110", "110", "000"))
    # squares of 2 x 2: none counts of the first, [2, 5], [6, 7], [5, 7, 8] of the others
    means = zones.mean_squares(scores, 2)[0]
    assert means[0, 1].item() == pytest.approx(3.5)
    assert means[1].tolist() == pytest.approx([6.5, 20 / 3])
    squares = zones.of_squares(2)
    assert squares.ignored == ("10", "00")
    assert squares.highest(means[None]).item() == pytest.approx(20 / 3)


@given(
    levels=st.lists(st.integers(0, 5), min_size=30, max_size=30),
    ignored=st.lists(st.booleans(), min_size=30, max_size=30),
    area=st.integers(2, 9),
)
def test_the_level_of_an_area_is_that_of_thresholding_at_every_level(
    levels: list[int], ignored: list[bool], area: int
) -> None:
    counts = ~np.array(ignored).reshape(5, 6)
    if not counts.any():
        return
    scores = np.array(levels, np.float32).reshape(5, 6)
    rows = tuple("".join("01"[int(not c)] for c in row) for row in counts)
    expected = scores[counts].min()
    for level in np.unique(scores[counts]):
        labels, _ = ndimage.label(counts & (scores >= level), np.ones((3, 3)))
        if np.bincount(labels.ravel())[1:].max(initial=0) >= area:
            expected = level
    found = Zones(ignored=rows, min_area=area).highest(torch.from_numpy(scores)[None])
    assert found.item() == expected


@pytest.mark.parametrize("zones", [EVERYWHERE, LEFT, SPECKS, Zones(min_area=3)])
def test_a_score_that_is_no_number_makes_the_image_s_none(zones: Zones) -> None:
    scores = torch.arange(192.0).view(3, 8, 8)
    scores[1, 4, 4] = torch.nan
    assert zones.highest(scores).isnan().tolist() == [False, True, False]


@given(levels=st.lists(st.integers(0, 9), min_size=36, max_size=36), least=st.integers(1, 8))
def test_above_its_highest_level_a_map_has_no_region_and_below_it_has(
    levels: list[int], least: int
) -> None:
    drawn = np.array(levels, np.float32).reshape(6, 6)
    place = Placement((6, 6), (0.0, 0.0, 6.0, 6.0))
    highest = highest_level(drawn, least)
    rule = RegionRule(threshold=highest, rate=0.1, num_images=9, least=least)
    assert find_regions(drawn, rule, place).number == 0
    below = dataclasses.replace(rule, threshold=highest - 0.5)
    if least == 1 or highest > drawn.min():
        found = find_regions(drawn, below, place)
        assert found.number >= 1
        assert min(region["area"] for region in found.listed) >= least


HALF = {"size": [96, 96], "ignore": [[[0, 0], [48, 0], [48, 96], [0, 96]]]}
BARS = [[[0, y], [96, y], [96, y + 24], [0, y + 24]] for y in (24, 72)]
ISLANDS = {"size": [96, 96], "ignore": BARS + [[point[::-1] for point in bar] for bar in BARS]}


def test_positions_that_are_more_than_half_covered_do_not_count(tmp_path: Path) -> None:
    """64 pixels of the crop are 96 of the image: a position of 8 x 8 has 12 x 12 of them."""
    assert zones_of(category("x", zones=HALF)) == Zones(ignored=("11110000",) * 8)
    some = {"size": [96, 96], "ignore": [[[0, 0], [19, 0], [19, 96], [0, 96]]], "min_area": 289}
    assert zones_of(category("x", zones=some)) == Zones(ignored=("11000000",) * 8, min_area=3)
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).resize((96, 96), 0).save(tmp_path / "m.png")
    mask = {"size": [96, 96], "ignore": str(tmp_path / "m.png")}
    diagonal = tuple("0" * i + "1" + "0" * (7 - i) for i in range(8))
    assert zones_of(category("x", zones=mask)) == Zones(ignored=diagonal)
    # of the lower right quarter the diagonal is seen at twice the scale
    quarter = zones_of(category("x", zones=mask | {"roi": [48, 48, 48, 48]})).ignored
    assert quarter[:3] == ("11000000", "11000000", "00110000")


@pytest.mark.parametrize(
    ("zones", "message"),
    [
        ({"ignore": [[[0, 0], [96, 0], [96, 96], [0, 96]]]}, "covers all that is looked at"),
        (HALF | {"min_area": 4800}, "4800 pixels are 34 positions of the anomaly map, and no"),
        (
            ISLANDS | {"min_area": 700},
            "700 pixels are 5 positions .* no more than 4 that count touch",
        ),
        ({"ignore": "MASK"}, "has 10 x 12 pixels, zones.size says 96 x 96"),
    ],
)
def test_zones_that_leave_nothing_are_refused_in_one_line(
    zones: dict[str, Any], message: str, tmp_path: Path
) -> None:
    Image.new("L", (10, 12)).save(tmp_path / "mask.png")
    given_zones = {"size": [96, 96], **zones}
    if zones["ignore"] == "MASK":
        given_zones["ignore"] = str(tmp_path / "mask.png")
    with pytest.raises(ZonesError, match=message):
        zones_of(category("x", zones=given_zones))


def test_a_region_of_interest_is_the_image_and_found_again_in_it() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (120, 200, 3), np.uint8))
    way = Preprocessing(crop=64, fit="stretch", roi=(20, 10, 80, 40), drawn_on=(60, 100))
    inside = image.crop((40, 20, 200, 100))  # twice the size it was drawn on
    plain = dataclasses.replace(way, roi=None, drawn_on=None)
    assert np.array_equal(to_crop(image, way), to_crop(inside, plain))
    assert placement((120, 200), way).box == (40.0, 20.0, 160.0, 80.0)
    assert way.least_side == 96  # 64 pixels of 40, in an image whose shorter side has 60
    assert Preprocessing.from_json(json.loads(json.dumps(way.to_json()))) == way


def test_zones_are_part_of_the_key_only_where_they_are_set(tmp_path: Path) -> None:
    images = make_category(tmp_path / "images", num_good=1, num_test=1)
    mask = tmp_path / "mask.png"
    Image.new("L", (96, 96)).save(mask)
    plain, half = category(images), category(images, zones=HALF)
    with_mask = category(images, zones={"size": [96, 96], "ignore": str(mask)})
    keys = [onboarding_key(each) for each in (plain, half, with_mask)]
    Image.new("L", (96, 96), 255).save(mask)
    keys.append(onboarding_key(with_mask))
    assert len(set(keys)) == 4
    assert onboarding_key(category(images, zones={"size": [96, 96]})) != keys[1]


def test_from_the_catalogue_to_the_rows_of_a_night(tmp_path: Path) -> None:
    """The left half does not count; an image of other proportions is refused."""
    images = make_category(tmp_path / "images")
    zones = HALF | {"roi": [0, 0, 96, 90], "min_area": 200}
    prepared = prepare(small_category(images, "memory_bank", zones=zones))
    for _ in prepared.trainer.run():
        pass
    package = write_package(prepared, tmp_path / "package")
    assert package.header.zones.min_area == 2  # a position has 12 x 11.25 pixels
    again = Package.read(tmp_path / "package")
    assert again.header == package.header
    assert (again.reference.zones, again.heads.zones) == (package.header.zones,) * 2
    assert again.reference.regions is not None
    assert again.reference.regions.least == int(np.ceil(200 * 64 * 64 / (96 * 90)))
    pixels = texture(77)
    dump = tmp_path / "dump/steel"
    dump.mkdir(parents=True)
    for name, part in (("left", np.s_[40:50, 4:24]), ("right", np.s_[30:60, 60:90])):
        changed = pixels.copy()
        changed[part] = 255
        Image.fromarray(changed).save(dump / f"{name}.png")
    Image.fromarray(pixels[:60]).save(dump / "wide.png")
    folder = NightFolder(str(tmp_path / "out"), "2026-03-12")
    score_without_cluster(tmp_path / "dump", folder, {"steel": tmp_path / "package"})
    left, right, wide = read_night(folder).to_pylist()
    assert right["score"] > left["score"]
    assert (wide["status"], wide["score"]) == ("unreadable", None)
    assert "96 x 60 pixels have other proportions than the 96 x 96" in wide["error"]
    for row in (left, right):
        assert all(region["x"] + region["width"] > 48 for region in row["regions"])


def test_a_file_with_zones_is_of_a_format_that_earlier_releases_refuse(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    header, heads = load_detector(packages["steel"] / "head.safetensors")
    assert header.zones == EVERYWHERE
    zones = Zones(ignored=("10000000",) * 8)
    save_detector(tmp_path / "head", heads, dataclasses.replace(header, zones=zones))
    again, scoring = load_detector(tmp_path / "head")
    assert (again.zones, scoring.zones) == (zones, zones)
    content = (tmp_path / "head").read_bytes()
    assert b'\\"format_version\\": 5' in content
    (tmp_path / "head").write_bytes(content.replace(b"10000000", b"11111111"))
    with pytest.raises(DetectorFileError, match="every position is ignored"):
        load_detector(tmp_path / "head")
