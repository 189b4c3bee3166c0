"""The kind ensemble: four heads on one scale, their mean, and who has not seen an image."""

from pathlib import Path

import factory
import numpy as np
import pytest
import torch
from every_kind import prepare_small
from pydantic import ValidationError
from sklearn.covariance import LedoitWolf, ledoit_wolf
from torch import Tensor

from model.embedding import mean_levels
from model.ensemble import EnsembleHeads, EnsembleRecipe, EnsembleTrainer
from model.export import trace
from model.feature_bank import FeatureBank
from model.kind import TrainingSet
from model.kinds import KINDS
from model.memory_bank import MemoryBankRecipe
from model.mixed_batch import score_images
from model.pooled_distance import PooledDistance, fit_pooled, shrunken_covariance
from model.recipe import Recipe
from model.simplenet import HeadConfig
from model.training import TrainingConfig
from pipeline.catalogue.catalogue import Category, load_catalogue
from pipeline.night.folder import NightFolder
from pipeline.night.results import read_night
from pipeline.onboarding.finish import write_package
from pipeline.package import Package

SHAPES = [(6, 8, 8), (10, 4, 4)]
NIGHT = "2026-03-12"
CONFIG = TrainingConfig(
    head=HeadConfig(hidden=8, members=3), passes=2, steps_per_pass=3, batch_rows=32, coreset=0
)
RECIPE = EnsembleRecipe(
    simplenet=Recipe(patch=CONFIG, image=CONFIG), memory_bank=MemoryBankRecipe(size=40, folds=3)
)


def bank_of(num_images: int = 13, seed: int = 0) -> FeatureBank:
    generator = torch.Generator().manual_seed(seed)
    bank = FeatureBank(num_images, SHAPES)
    bank.write(0, [torch.randn(num_images, *shape, generator=generator) + 2 for shape in SHAPES])
    return bank


def trainer_of(bank: FeatureBank) -> EnsembleTrainer:
    images = torch.arange(bank.num_images)
    return EnsembleTrainer(TrainingSet(bank=bank, images=images, folds=images % 3), RECIPE)


def fitted(bank: FeatureBank) -> EnsembleTrainer:
    trainer = trainer_of(bank)
    assert len(list(trainer.run())) == trainer.num_passes == len(trainer.reports) == 5
    return trainer


def four(heads: EnsembleHeads, levels: list[Tensor]) -> Tensor:
    """What each head says (B, 4), on the scale of unseen good images."""
    assert heads.simplenet.image is not None
    apart = torch.stack([heads.memory_bank(levels)[0], heads.pooled(levels)], dim=1)
    own = [
        heads.simplenet.patch(levels).flatten(1).amax(dim=1),
        heads.simplenet.image(mean_levels(levels)).flatten(),
    ]
    return torch.cat([torch.stack(own, dim=1), (apart - heads.offset) / heads.spread], dim=1)


@pytest.mark.parametrize(("num_rows", "width"), [(12, 40), (200, 7), (5, 5), (2, 9)])
def test_a_covariance_is_shrunk_as_scikit_learn_shrinks_it(num_rows: int, width: int) -> None:
    rows = np.random.default_rng(num_rows).normal(size=(num_rows, width)) @ np.diag(
        np.arange(1, width + 1)
    )
    expected, _ = ledoit_wolf(rows)
    np.testing.assert_allclose(shrunken_covariance(torch.from_numpy(rows)).numpy(), expected)


@pytest.mark.parametrize("num_rows", [6, 300])
def test_the_pooled_distance_is_the_one_of_mahalanobis(num_rows: int) -> None:
    random = np.random.default_rng(0)
    rows, others = random.normal(size=(num_rows, 16)), 3 * random.normal(size=(20, 16))
    expected = np.sqrt(LedoitWolf().fit(rows).mahalanobis(others))
    found = fit_pooled(torch.from_numpy(rows)).distances(torch.from_numpy(others).float())
    np.testing.assert_allclose(found.numpy(), expected, rtol=5e-3)  # rounded to half precision


def test_images_that_are_all_the_same_give_distances_that_are_numbers() -> None:
    distance = fit_pooled(torch.ones(5, 4))
    assert bool(distance.distances(torch.tensor([[1.0, 1, 1, 2]])).isfinite().all())


def test_an_image_scores_the_mean_of_the_four_and_a_patch_that_of_two() -> None:
    bank = bank_of()
    heads, levels = fitted(bank).folded(), bank.images(torch.arange(4))
    scores, patch_scores = heads(levels)
    assert scores.tolist() == pytest.approx(four(heads, levels).mean(dim=1).tolist(), abs=1e-5)
    distances = (heads.memory_bank(levels)[1] - heads.offset[0]) / heads.spread[0]
    expected = (heads.simplenet.patch(levels) + distances) / 2
    torch.testing.assert_close(patch_scores, expected)


def test_each_head_is_expressed_in_the_spread_of_good_images_it_has_not_seen() -> None:
    bank = bank_of()
    trainer = fitted(bank)
    unseen = list(trainer.unseen(trainer.folded()))
    assert sorted(torch.cat([index for _, index in unseen]).tolist()) == list(range(13))
    said = torch.cat([four(member, bank.images(index)) for member, index in unseen])
    torch.testing.assert_close(said.mean(dim=0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(said.std(dim=0, correction=0), torch.ones(4), atol=1e-4, rtol=0)


def test_no_part_of_a_member_depends_on_the_images_that_it_leaves_out() -> None:
    bank, other = bank_of(), bank_of()
    for store in other.levels:
        store[::3] = 9
    members = []
    for each in (bank, other):
        trainer = fitted(each)
        members.append(next(iter(trainer.unseen(trainer.folded())))[0])
    for name in ("pooled.components", "pooled.centre", "memory_bank.vectors"):
        assert torch.equal(*(member.get_buffer(name) for member in members))


@pytest.mark.parametrize("num_passes", [0, 1, 3])
def test_a_restored_trainer_ends_where_an_undisturbed_one_does(num_passes: int) -> None:
    bank = bank_of()
    stopped, again = trainer_of(bank), trainer_of(bank)
    run = stopped.run()
    for _ in range(num_passes):
        next(run)
    again.load_state_dict(stopped.state_dict())
    assert len(list(again.run())) == 5 - num_passes
    expected, found = fitted(bank).folded().state_dict(), again.folded().state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


SHORT = {"passes": 4, "steps_per_pass": 5, "batch_rows": 64, "hidden": 8, "health": "warn"}


def category(images: Path | str, **changes: object) -> Category:
    shared = {name: value for name, value in factory.SETTINGS.items() if name != "training"}
    own = {"name": "whole", "images": str(images), "detector": "ensemble", "training": SHORT}
    return Category.model_validate({**shared, **own, "memory_bank": {"size": 200}, **changes})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder = tmp_path_factory.mktemp("ensemble")
    images = factory.make_category(folder / "images")
    prepared = prepare_small(category(images, calibration="cross"))
    list(prepared.trainer.run())
    write_package(prepared, folder / "package")
    return Package.read(folder / "package")


def images_of(seeds: list[int]) -> Tensor:
    from PIL import Image

    squares = [Image.fromarray(factory.texture(seed)).resize((64, 64)) for seed in seeds]
    return torch.from_numpy(np.stack([np.asarray(square) for square in squares]))


def test_a_package_of_an_ensemble_is_read_again_and_finds_scratches(made: Package) -> None:
    assert made.header.detector == "ensemble"
    assert isinstance(made.heads, EnsembleHeads)
    assert len(made.heads.memory_bank.vectors) == 200
    assert made.record.metrics["image_auroc"] == 1.0
    assert made.record.settings["recipe"]["simplenet"]["patch"]["passes"] == 4
    assert len(made.reference.calibration.scores) == 40


def test_an_image_has_the_same_bits_alone_in_company_and_from_halves(
    made: Package, packages: dict[str, Path]
) -> None:
    images, other = images_of([1, 2, 3]), Package.read(packages["steel"]).heads
    backbone, embedding = factory.backbone(), made.header.embedding
    together, maps = score_images(backbone, embedding, [other, made.heads, made.heads], images)
    halved = KINDS["ensemble"].read_heads(
        {name: value.float() for name, value in made.heads.state_dict().items()},
        made.header.channels,
    )
    halved.halve()
    for heads in (made.heads, halved):
        alone, own_map = score_images(backbone, embedding, [heads], images[2:])
        assert torch.equal(alone[0], together[2])
        assert torch.equal(own_map[0], maps[2])


def test_a_traced_ensemble_scores_the_same(made: Package) -> None:
    detector, images = factory.detector(made), images_of([7, 8])
    scores, _ = trace(detector).module()(images)
    assert scores.tolist() == pytest.approx(detector(images)[0].tolist(), abs=1e-3)


def test_a_night_of_an_ensemble_flags_scratches(
    made: Package, packages: dict[str, Path], tmp_path: Path
) -> None:
    made.write(tmp_path / "package", {})
    for name in ("steel", "whole"):
        factory.write_images(tmp_path / "dump" / name, range(800, 803), scratched=True)
    folder = NightFolder(str(tmp_path / "out"), NIGHT)
    fleet = {"steel": packages["steel"], "whole": tmp_path / "package"}
    factory.score_without_cluster(tmp_path / "dump", folder, fleet)
    rows = [row for row in read_night(folder).to_pylist() if row["category"] == "whole"]
    assert [row["flagged"] for row in rows] == [True] * 3


def test_tensors_that_do_not_fit_are_refused(made: Package) -> None:
    tensors, channels = dict(made.heads.state_dict()), made.header.channels
    read = KINDS["ensemble"].read_heads
    assert isinstance(read(tensors, channels), EnsembleHeads)
    without_image = {n: v for n, v in tensors.items() if not n.startswith("simplenet.image")}
    for broken in (
        without_image,
        tensors | {"pooled.centre": tensors["pooled.centre"][:-1]},
        tensors | {"offset": torch.zeros(3)},
        tensors | {"other.level0": torch.zeros(3)},
        tensors | {"memory_bank.scale": torch.zeros(3)},
    ):
        with pytest.raises(ValueError, match=r"other shapes|no scales|no ensemble"):
            read(broken, channels)
    with pytest.raises(KeyError):
        read({name: v for name, v in tensors.items() if name != "spread"}, channels)
    with pytest.raises(ValueError, match="other shapes"):
        PooledDistance({n: torch.zeros(2) for n in ("components", "centre", "scale")})


def test_settings_of_its_parts_are_an_ensembles_own(tmp_path: Path) -> None:
    (tmp_path / "catalogue.yaml").write_text(
        "defaults: {images: '/a/{name}', training: {passes: 7, seed: 3}, memory_bank: {size: 9}}\n"
        "categories: [{name: wood, detector: ensemble, training: {members: 5}}]\n"
    )
    (wood,) = load_catalogue(str(tmp_path / "catalogue.yaml"))
    simplenet, bank = wood.recipe.simplenet, wood.recipe.memory_bank
    assert (simplenet.patch.passes, simplenet.patch.seed, simplenet.image.seed) == (7, 3, 3)
    assert (bank.size, bank.seed, bank.folds, wood.recipe.members) == (9, 3, 5, 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training": {"image_head": False}}, "an ensemble needs the head over images"),
        ({"training": {"members": 1}}, "take 2 or more"),
        (
            {"preset": "official"},
            "`official` belongs to `detector: simplenet`; ensemble has default",
        ),
    ],
)
def test_settings_that_an_ensemble_cannot_have_are_refused(
    settings: dict[str, object], message: str
) -> None:
    fields = {"name": "steel", "images": "/a", "detector": "ensemble"}
    with pytest.raises(ValidationError, match=message):
        Category.model_validate({**fields, **settings})
