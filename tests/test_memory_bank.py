"""The kind memory bank: distances to the patches that are kept, among principal components."""

from collections.abc import Sequence
from pathlib import Path

import factory
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.spatial.distance import cdist
from torch import Tensor

from model.detector import Detector, load_detector, save_detector
from model.export import trace
from model.feature_bank import FeatureBank
from model.kind import TrainingSet
from model.kinds import KINDS
from model.memory_bank import MemoryBank, MemoryBankRecipe, MemoryBankTrainer, fit
from model.mixed_batch import score_images
from pipeline.calibration import Part
from pipeline.catalogue.catalogue import Category, load_catalogue
from pipeline.night.folder import NightFolder
from pipeline.night.results import read_night, remove_shards, stored_shards
from pipeline.onboarding.finish import findings_of_heads, write_package
from pipeline.onboarding.key import onboarding_key
from pipeline.onboarding.prepare import make_detector, prepare
from pipeline.package import Package

SHAPES = [(6, 8, 8), (10, 4, 4)]
NIGHT = "2026-03-12"


def bank_of(num_images: int = 12, seed: int = 0) -> FeatureBank:
    """Features of a low rank, so that components matter, and some noise."""
    generator = torch.Generator().manual_seed(seed)
    bank = FeatureBank(num_images, SHAPES)
    levels = []
    for channels, height, width in SHAPES:
        basis = torch.randn(3, channels, generator=generator)
        weights = torch.randn(num_images, height, width, 3, generator=generator)
        noise = 0.02 * torch.randn(num_images, height, width, channels, generator=generator)
        levels.append((weights @ basis + noise + 5).permute(0, 3, 1, 2).contiguous())
    bank.write(0, levels)
    return bank


def trainer_of(bank: FeatureBank, **changes: object) -> MemoryBankTrainer:
    recipe = MemoryBankRecipe(**{"size": 40, "folds": 3, **changes})  # type: ignore[arg-type]
    images = torch.arange(bank.num_images)
    training_set = TrainingSet(bank=bank, images=images, folds=images % recipe.folds)
    return MemoryBankTrainer(training_set, recipe)


def fitted(bank: FeatureBank, **changes: object) -> MemoryBank:
    trainer = trainer_of(bank, **changes)
    assert len(list(trainer.run())) == trainer.num_passes
    return trainer.folded()


def projected(heads: MemoryBank, rows: Tensor) -> NDArray[np.float64]:
    """Patches (P, C) in the space of the vectors, from whole features and in float64."""
    matrix = torch.cat(heads.projections, dim=1).double() if heads.projections else None
    inside = rows.double() if matrix is None else rows.double() @ matrix.T
    return ((inside - heads.centre.double()) * heads.scale.double()).numpy()


VARIANTS = [
    {},
    {"whitening": 0.07},
    {"whitening": 0.0},
    {"variance": 1.0},
    {"size": None, "share": 0.1, "candidates": None, "variance": 1.0},
    {"size": 10_000},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_patch_scores_as_far_as_it_is_from_the_nearest_vector(
    changes: dict[str, object],
) -> None:
    bank = bank_of()
    heads = fitted(bank, **changes)
    others = bank_of(seed=1)
    index = torch.arange(3)
    scores, patch_scores = heads(others.images(index))
    points = projected(heads, others.whole(index))
    expected = cdist(points, heads.vectors.double().numpy()).min(axis=1)
    assert patch_scores.flatten().numpy() == pytest.approx(expected, rel=1e-3, abs=2e-3)
    assert scores.tolist() == patch_scores.flatten(1).amax(1).tolist()


def test_components_hold_the_variance_that_is_asked_for() -> None:
    bank = bank_of(40)
    heads = fitted(bank, variance=0.99)
    rows = bank.whole(torch.arange(40)).double()
    spectrum = torch.linalg.eigvalsh(torch.cov(rows.T)).flip(0)
    shares = spectrum.cumsum(0) / spectrum.sum()
    assert len(heads.scale) == int((shares < 0.99).sum()) + 1 == 6  # of rank three in each level


def test_whitening_makes_every_component_vary_alike() -> None:
    bank = bank_of(40)
    heads = fitted(bank, whitening=0.0)
    points = projected(heads, bank.whole(torch.arange(40)))
    assert points.std(axis=0) == pytest.approx(np.ones(points.shape[1]), rel=0.05)
    plain = projected(fitted(bank), bank.whole(torch.arange(40)))
    assert plain.std(axis=0).max() > 2 * plain.std(axis=0).min()
    assert (plain**2).mean() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize(
    ("recipe", "num_patches", "expected"),
    [
        (MemoryBankRecipe(), 200_000, 1000),
        (MemoryBankRecipe(size=2000), 200_000, 2000),
        (MemoryBankRecipe(), 640, 640),
        (MemoryBankRecipe(size=None, share=0.1, candidates=None), 163_856, 16_385),
        (MemoryBankRecipe(size=500, share=0.1), 2000, 200),
    ],
)
def test_the_number_of_vectors(recipe: MemoryBankRecipe, num_patches: int, expected: int) -> None:
    assert recipe.num_vectors(num_patches) == expected


def test_vectors_cover_what_is_rare() -> None:
    """One image in twelve is of another kind, and no random tenth of the patches would miss it."""
    bank = bank_of()
    for store in bank.levels:
        store[7] += 20
    heads = fitted(bank, size=20)
    scores, _ = heads(bank.images(torch.arange(12)))
    assert scores[7] < 2 * scores[[0, 1, 2]].max()


def test_the_image_score_is_reweighted_as_equation_7_says() -> None:
    vectors = np.array([[0.0, 0], [1, 0], [0, 2], [30, 30]])
    tensors = {"centre": torch.zeros(2), "scale": torch.ones(2), "neighbours": torch.tensor(3.0)}
    heads = MemoryBank(tensors | {"vectors": torch.from_numpy(vectors).float()})
    point = np.array([0.0, -1.5])
    scores, patch_scores = heads([torch.tensor([[[[0.0]], [[-1.5]]]])])
    distances = np.linalg.norm(vectors[:3] - point, axis=1)  # the nearest and its neighbours
    weight = 1 - np.exp(distances[0]) / np.exp(distances).sum()
    assert patch_scores.item() == pytest.approx(1.5)
    assert scores.item() == pytest.approx(1.5 * weight, rel=1e-5)


def test_unseen_images_are_scored_by_fits_that_have_not_seen_them() -> None:
    bank = bank_of()
    for store in bank.levels:
        store[7] += 20  # nothing like the others
    trainer = trainer_of(bank)
    list(trainer.run())
    scores = {}
    for heads, index in trainer.unseen(trainer.folded()):
        scores |= dict(zip(index.tolist(), heads(bank.images(index))[0].tolist(), strict=True))
    assert sorted(scores) == list(range(12))
    assert scores[7] > 5 * max(value for image, value in scores.items() if image != 7)


def test_a_fit_does_not_depend_on_the_other_folds_images() -> None:
    bank, other = bank_of(), bank_of()
    for store in other.levels:
        store[::3] = 9  # fold 0 is left out by the first fit
    first, second = (next(iter(trainer_of(each).unseen(fitted(each))))[0] for each in (bank, other))
    assert torch.equal(first.vectors, second.vectors)
    assert torch.equal(first.projections[0], second.projections[0])


def test_a_restored_trainer_has_nothing_left_to_fit() -> None:
    bank = bank_of()
    trainer = trainer_of(bank)
    list(trainer.run())
    again = trainer_of(bank)
    again.load_state_dict(trainer.state_dict())
    assert list(again.run()) == []
    assert torch.equal(again.folded().vectors, trainer.folded().vectors)
    assert [vars(report) for _, report in again.reports] == [
        {"num_vectors": 40, "num_components": 6}
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of a memory bank, and its category's images."""
    folder = tmp_path_factory.mktemp("bank")
    factory.make_category(folder / "images")
    prepared = prepare(category(folder / "images"))
    list(prepared.trainer.run())
    write_package(prepared, folder / "package")
    return folder


def category(images: Path | str, **changes: object) -> Category:
    shared = {name: value for name, value in factory.SETTINGS.items() if name != "training"}
    own = {"name": "bank", "images": str(images), "detector": "memory_bank"}
    return Category.model_validate({**shared, **own, "memory_bank": {"size": 200}, **changes})


def test_a_package_of_a_memory_bank_is_read_again_and_finds_scratches(made: Path) -> None:
    package = Package.read(made / "package")
    assert package.header.detector == "memory_bank"
    assert isinstance(package.heads, MemoryBank)
    assert len(package.heads.vectors) == 200
    assert package.record.metrics["image_auroc"] == 1.0
    assert package.record.curve[0]["num_vectors"] == 200
    assert package.record.settings["recipe"]["variance"] == 0.99


def images_of(seeds: Sequence[int]) -> Tensor:
    from PIL import Image

    squares = [Image.fromarray(factory.texture(seed)).resize((64, 64)) for seed in seeds]
    return torch.from_numpy(np.stack([np.asarray(square) for square in squares]))


def test_an_image_has_the_same_bits_alone_and_in_company(
    made: Path, packages: dict[str, Path]
) -> None:
    bank, simplenet = Package.read(made / "package"), Package.read(packages["steel"])
    images = images_of([1, 2, 3, 4])
    heads = [simplenet.heads, bank.heads, bank.heads, simplenet.heads]
    together, maps = score_images(
        factory.backbone(), bank.header.embedding, [heads[0], heads[3], heads[1], heads[2]], images
    )
    for place, own in enumerate([heads[0], heads[3], heads[1], heads[2]]):
        alone, own_map = score_images(
            factory.backbone(), bank.header.embedding, [own], images[place : place + 1]
        )
        assert torch.equal(alone[0], together[place])
        assert torch.equal(own_map[0], maps[place])


def test_a_bank_in_half_precision_scores_the_same(made: Path) -> None:
    heads = Package.read(made / "package").heads
    levels = Package.read(made / "package").header.embedding.pool(
        factory.backbone()(images_of([5, 6]))
    )
    before = heads(levels)[0]
    heads.halve()
    assert torch.equal(heads(levels)[0], before)
    assert torch.equal(heads.in_float32()(levels)[0], before)


def test_a_traced_bank_scores_the_same(made: Path) -> None:
    detector = factory.detector(Package.read(made / "package"))
    images = images_of([7, 8])
    scores, _ = trace(detector).module()(images)
    assert scores.tolist() == pytest.approx(detector(images)[0].tolist(), abs=1e-3)


def test_tensors_that_do_not_fit_are_refused(made: Path, tmp_path: Path) -> None:
    header, heads = load_detector(made / "package/head.safetensors")
    tensors = dict(heads.state_dict())
    read = KINDS["memory_bank"].read_heads
    assert isinstance(read(tensors, header.channels), MemoryBank)
    with pytest.raises(ValueError, match="other shapes"):
        read(tensors | {"level0": tensors["level0"][:-1]}, header.channels)
    with pytest.raises(KeyError):
        read({name: v for name, v in tensors.items() if name != "scale"}, header.channels)
    save_detector(tmp_path / "again.safetensors", heads, header)
    content = (made / "package/head.safetensors").read_bytes()
    assert (tmp_path / "again.safetensors").read_bytes() == content


def test_a_night_of_both_kinds_is_scored_and_resumed(
    made: Path, packages: dict[str, Path], tmp_path: Path
) -> None:
    fleet = {"steel": packages["steel"], "bank": made / "package"}
    for name in fleet:
        factory.write_images(tmp_path / "dump" / name, range(700, 703))
        factory.write_images(tmp_path / "dump" / name, range(800, 803), scratched=True)
    folder = NightFolder(str(tmp_path / "out"), NIGHT)
    factory.score_without_cluster(tmp_path / "dump", folder, fleet)
    rows = read_night(folder).to_pylist()
    assert {row["status"] for row in rows} == {"ok"}
    flagged = {
        row["image_uri"][-10:] for row in rows if row["category"] == "bank" and row["flagged"]
    }
    assert flagged >= {"000800.png", "000801.png", "000802.png"}
    remove_shards(folder, [name for name in stored_shards(folder) if name.startswith("bank")])
    factory.score_without_cluster(tmp_path / "dump", folder, fleet)
    again = read_night(folder).to_pylist()
    assert [row["score"] for row in again] == [row["score"] for row in rows]


@pytest.mark.parametrize("method", ["split", "cross"])
def test_both_calibrations_hold_for_a_memory_bank(tmp_path: Path, method: str) -> None:
    images = factory.make_category(tmp_path / "images", num_test=0)
    prepared = prepare(category(images, calibration=method))
    list(prepared.trainer.run())
    package = write_package(prepared, tmp_path / "package")
    num_held_out = len(package.reference.calibration.scores)
    expected = 40 if method == "cross" else int((prepared.parts == Part.CALIBRATION).sum())
    assert num_held_out == expected
    assert isinstance(make_detector(prepared, prepared.trainer), Detector)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"detector": "memory_bank", "training": {"passes": 3, "seed": 1}},
            "training: passes belong to `detector: simplenet`, the category has memory_bank",
        ),
        ({"memory_bank": {"size": 5}}, "memory_bank: size belong to `detector: memory_bank`"),
        ({"preset": "patchcore"}, "preset: `patchcore` belongs to `detector: memory_bank`"),
        (
            {"detector": "memory_bank", "preset": "paper"},
            "preset: `paper` belongs to `detector: simplenet or realnet`; "
            "memory_bank has default, patchcore",
        ),
        ({"preset": "best"}, "preset: `best` belongs to `detector: none`; simplenet has default"),
        ({"detector": "padim"}, "no detector `padim`; known: simplenet, memory_bank"),
        (
            {"detector": "memory_bank", "memory_bank": {"variance": 1, "whitening": 0.1}},
            "whitening needs a variance below 1",
        ),
    ],
)
def test_settings_of_another_kind_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Category.model_validate({"name": "steel", "images": "/a", **settings})


def test_defaults_of_another_kind_are_no_settings_of_a_category(tmp_path: Path) -> None:
    (tmp_path / "catalogue.yaml").write_text(
        "defaults: {images: '/a/{name}', training: {passes: 7, seed: 3}, memory_bank: {size: 9}}\n"
        "categories: [steel, {name: wood, detector: memory_bank}]\n"
    )
    steel, wood = load_catalogue(str(tmp_path / "catalogue.yaml"))
    assert (steel.recipe.patch.passes, steel.recipe.patch.seed) == (7, 3)
    assert (wood.recipe.size, wood.recipe.seed) == (9, 3)


def test_the_kind_is_part_of_an_onboardings_key_only_where_it_is_set(tmp_path: Path) -> None:
    images = factory.make_category(tmp_path / "images", num_good=2, num_test=0)
    plain = Category.model_validate({"name": "steel", "images": str(images)})
    named = plain.model_copy(update={"detector": "simplenet"})
    other = plain.model_copy(update={"detector": "memory_bank"})
    assert onboarding_key(plain) == onboarding_key(named) != onboarding_key(other)


def test_the_published_preset_keeps_a_tenth_of_the_patches() -> None:
    bank = bank_of()
    recipe = KINDS["memory_bank"].presets["patchcore"].recipe
    heads = fit(bank, torch.arange(12), recipe)
    assert heads.vectors.shape == (int(0.1 * 12 * 64), 16)
    assert heads.num_neighbours == 9


def test_large_heads_are_told(made: Path) -> None:
    heads = Package.read(made / "package").heads
    size = (made / "package/head.safetensors").stat().st_size
    assert heads.stored_bytes == pytest.approx(size, abs=2000)
    assert findings_of_heads(heads) == []
    tensors = {"centre": torch.zeros(384), "scale": torch.ones(384), "neighbours": torch.zeros(())}
    large = MemoryBank(tensors | {"vectors": torch.zeros(16_385, 384)})  # a tenth, ResNet-18
    expected = "heads of 13 MB: a worker holds few of such categories at once"
    assert findings_of_heads(large) == [expected]
