"""Heads: losses by hand, training, restarts, and the folded form against the unfolded one."""

import dataclasses
import io

import pytest
import torch
from folded_heads import empty_head
from scipy.ndimage import gaussian_filter

from model.anomaly_map import anomaly_maps, map_matrix
from model.embedding import join_levels, mean_levels
from model.feature_bank import FeatureBank
from model.folding import FoldedHeads, fold
from model.kind import TrainingSet
from model.recipe import PRESETS, Recipe, RecipeTrainer
from model.rows import ImageRows, PatchRows
from model.simplenet import Head, HeadConfig, cross_entropy, truncated_l1
from model.training import TrainingConfig

SHAPES = [(6, 8, 8), (10, 4, 4)]
NUM_IMAGES = 12


@pytest.mark.parametrize(
    ("normal", "noisy", "loss"),
    [(0.5, -0.5, 0.0), (2.0, -9.0, 0.0), (0.0, 0.0, 1.0), (-1.0, 1.0, 3.0), (0.4, -0.5, 0.1)],
)
def test_truncated_l1_by_hand(normal: float, noisy: float, loss: float) -> None:
    found = truncated_l1(torch.tensor(normal), torch.tensor(noisy), (0.5, 0.5))
    assert found.item() == pytest.approx(loss)


def test_margins_may_differ() -> None:
    found = truncated_l1(torch.tensor(0.5), torch.tensor(-0.5), (1.0, 0.25))
    assert found.item() == pytest.approx(0.5)


def test_cross_entropy_equals_torchs() -> None:
    normal, noisy = torch.tensor([0.3, -2.0]), torch.tensor([-0.1, 1.0])
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    expected = bce(normal, torch.ones(2)) + bce(noisy, torch.zeros(2))
    found = cross_entropy(normal, noisy, (0.5, 0.5)).mean()
    assert found.item() == pytest.approx(expected.item())


def make_levels(seed: int = 0) -> list[torch.Tensor]:
    """Two correlated Gaussian levels: a normal world simple enough to learn in a few steps."""
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(NUM_IMAGES, *s, generator=generator) * 2 + 1).half() for s in SHAPES]


def make_bank() -> FeatureBank:
    bank = FeatureBank(NUM_IMAGES, SHAPES)
    bank.write(0, make_levels())
    return bank


def small(preset: str, **changes: object) -> Recipe:
    """A preset with its shape, shortened."""
    recipe = PRESETS[preset].recipe
    head = dataclasses.replace(recipe.patch.head, hidden=16, **changes)
    patch = dataclasses.replace(recipe.patch, head=head, passes=3, steps_per_pass=5, batch_rows=128)
    image = recipe.image and dataclasses.replace(recipe.image, passes=2, steps_per_pass=5)
    return Recipe(patch=patch, image=image)


def make_trainer(recipe: Recipe) -> RecipeTrainer:
    images = torch.arange(NUM_IMAGES)
    folds = images % recipe.members
    return RecipeTrainer(TrainingSet(bank=make_bank(), images=images, folds=folds), recipe)


def trained(recipe: Recipe) -> RecipeTrainer:
    trainer = make_trainer(recipe)
    for _ in trainer.run():
        pass
    return trainer


def fold_all(trainer: RecipeTrainer) -> FoldedHeads:
    """The folded heads before they are rounded and scaled."""
    channels = [shape[0] for shape in SHAPES]
    heads = {
        name: fold(part.head.eval(), part.mean_C, part.std_C, channels)
        for name, part in trainer.trainers.items()
    }
    return FoldedHeads(heads["patch"], heads.get("image"))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("adaptor", ["none", "linear", "two_layer"])
def test_the_folded_head_scores_as_the_unfolded_one(preset: str, adaptor: str) -> None:
    trainer = trained(small(preset, adaptor=adaptor))
    levels, heads = make_levels(seed=1), fold_all(trainer)
    rows = {
        "patch": join_levels(levels).permute(0, 2, 3, 1).flatten(0, 2),
        "image": torch.cat([level.flatten(1) for level in mean_levels(levels)], dim=1),
    }
    expected = {}
    for name, part in trainer.trainers.items():
        with torch.no_grad():
            standard = (rows[name] - part.mean_C) / part.std_C
            logits = part.head.eval()(standard.expand(trainer.recipe.members, -1, -1))
        expected[name] = -logits.mean(0)
    scores, patch_scores = heads(levels)
    unfolded = expected["patch"].view_as(patch_scores)
    torch.testing.assert_close(patch_scores, unfolded, atol=1e-4, rtol=1e-4)
    best = unfolded.flatten(1).amax(1)
    if "image" in expected:
        most, least = torch.stack([best, expected["image"]]).sort(dim=0, descending=True).values
        best = most + least / 2
    torch.testing.assert_close(scores, best, atol=1e-4, rtol=1e-4)


def test_matrices_are_rounded_to_half_precision_and_the_scores_stay() -> None:
    """A weight of half precision is wrong by at most 2^-11 of itself, or of the smallest normal."""
    trainer, levels = trained(small("default", adaptor="two_layer")), make_levels(seed=1)
    heads = fold_all(trainer)
    exact = heads.patch(levels)
    heads.round_to_half()
    matrices = [*heads.patch.weights, heads.patch.get_buffer("middle").flatten(0, 1)]
    for matrix in matrices:
        assert torch.equal(matrix.half().float(), matrix)
    first = torch.stack([weight.abs().amax(1) for weight in heads.patch.weights]).amax(0)
    assert torch.equal(first, torch.ones_like(first))
    spread = trainer.folded().patch.spread
    assert 0 < (heads.patch(levels) - exact).abs().max() < 0.01 * spread


def test_scaling_of_rows_is_exact_but_for_the_rounding() -> None:
    """By hand: weights that half precision holds anyway, a bias and an output."""
    head = empty_head((2,), 2)
    head.load_state_dict(
        {
            "level0": torch.tensor([[4.0, -8.0], [0.0, 0.0]]),
            "bias": torch.tensor([2.0, 3.0]),
            "output": torch.tensor([0.5, 7.0]),
            "offset": torch.tensor(0.0),
            "spread": torch.tensor(1.0),
        }
    )
    head.round_to_half()
    assert head.weights[0].tolist() == [[0.5, -1.0], [0.0, 0.0]]
    assert head.bias.tolist() == [0.25, 3.0]
    assert head.output.tolist() == [4.0, 7.0]


@pytest.mark.parametrize("adaptor", ["none", "two_layer"])
def test_a_head_is_the_mean_of_its_members(adaptor: str) -> None:
    heads, levels = trained(small("default", adaptor=adaptor)).folded(), make_levels(seed=1)
    members = heads.split(PRESETS["default"].recipe.members)
    mean = torch.stack([member.patch(levels) for member in members]).mean(0)
    torch.testing.assert_close(heads.patch(levels), mean, atol=1e-4, rtol=1e-4)
    means = mean_levels(levels)
    mean = torch.stack([member.image(means) for member in members]).mean(0)
    torch.testing.assert_close(heads.image(means), mean, atol=1e-4, rtol=1e-4)


def test_scores_are_in_the_spread_of_training_images_as_unseen_by_a_member() -> None:
    trainer = trained(small("default"))
    found = [
        (member.patch(levels).flatten(1).amax(1), member.image(mean_levels(levels)).flatten())
        for member, index in trainer.unseen(trainer.folded())
        for levels in [trainer.bank.images(index)]
    ]
    for scores in (torch.cat(part) for part in zip(*found, strict=True)):
        assert len(scores) == NUM_IMAGES
        assert scores.mean().item() == pytest.approx(0, abs=1e-4)
        assert scores.std(correction=0).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("changes", [{"coreset": 0}, {"coreset": 20}, {"batch_images": 3}])
def test_a_member_never_draws_from_the_images_it_leaves_out(changes: dict[str, int]) -> None:
    config = dataclasses.replace(PRESETS["default"].recipe.patch, **changes)
    members, images = config.head.members, torch.arange(NUM_IMAGES)
    bank = FeatureBank(NUM_IMAGES, [(1, 2, 2)])
    bank.write(0, [images.half()[:, None, None, None].expand(-1, 1, 2, 2)])
    generator = torch.Generator().manual_seed(0)
    patches = PatchRows(bank, images, images % members, config)
    whole = ImageRows(bank, images, images % members, members)
    for rows in (patches, whole):
        batch = next(iter(rows.batches(config, generator)))
        for member, rows_KC in enumerate(batch):
            seen = {int(image) for image in rows_KC.flatten().tolist()}
            assert seen
            assert all(image % members != member for image in seen)


def test_training_tells_noise_from_normal() -> None:
    recipe = small("default")
    patch = dataclasses.replace(recipe.patch, passes=20, steps_per_pass=10, sigma=(8.0, 8.0))
    trainer = trained(Recipe(patch=patch, image=None))
    reports = [report for _, report in trainer.reports]
    assert reports[-1].loss < 0.5 * reports[0].loss
    levels = make_levels(seed=1)
    far = [level + 20 for level in levels]
    heads = trainer.folded()
    assert heads(far)[0].min() > heads(levels)[0].max()


def test_a_restored_trainer_goes_on_as_if_nothing_had_happened() -> None:
    undisturbed = trained(small("default"))
    killed = make_trainer(small("default"))
    passes = killed.run()
    for _ in range(4):  # through the patch head and one pass into the image head
        next(passes)
    buffer = io.BytesIO()
    torch.save(killed.state_dict(), buffer)
    buffer.seek(0)
    restored = make_trainer(small("default"))
    restored.load_state_dict(torch.load(buffer, weights_only=True))
    assert sum(1 for _ in restored.run()) == restored.num_passes - 4
    assert restored.reports == undisturbed.reports
    for name, value in undisturbed.folded().state_dict().items():
        assert torch.equal(value, restored.folded().state_dict()[name]), name


def test_another_seed_gives_another_head() -> None:
    first, second = small("default"), small("default")
    second = dataclasses.replace(second, patch=dataclasses.replace(second.patch, seed=1))
    weights = [trained(recipe).folded().patch.output for recipe in (first, second)]
    assert not torch.equal(*weights)


def test_members_do_not_touch_each_other() -> None:
    generator = torch.Generator().manual_seed(0)
    head = Head(4, HeadConfig(hidden=3, members=2), generator)
    logits = head(torch.randn(2, 9, 4, generator=generator))
    logits[0].sum().backward()
    assert head.inner_MCU.grad is not None
    assert head.inner_MCU.grad[0].abs().sum() > 0
    assert head.inner_MCU.grad[1].abs().sum() == 0


def test_batch_norm_statistics_cover_normal_and_noisy_rows_together() -> None:
    generator = torch.Generator().manual_seed(0)
    head = Head(4, HeadConfig(hidden=3, members=1, momentum=1.0), generator).train()
    rows = torch.randn(64, 4, generator=generator)
    head(rows[None])
    hidden = rows @ head.inner_MCU[0]
    torch.testing.assert_close(head.running_mean, hidden.mean(0).detach())
    torch.testing.assert_close(head.running_var, hidden.var(0).detach())


def test_a_whole_image_pass_sees_every_patch_once() -> None:
    config = dataclasses.replace(PRESETS["paper"].recipe.patch, batch_images=5)
    rows = make_trainer(Recipe(patch=config)).trainers["patch"].rows
    batches = [batch[0] for batch in rows.batches(config, torch.Generator().manual_seed(0))]
    assert [len(batch) for batch in batches] == [5 * 64, 5 * 64, 2 * 64]
    everything = make_bank().whole(torch.arange(NUM_IMAGES))
    assert torch.equal(
        torch.cat(batches).sum(0).round(decimals=1), everything.sum(0).round(decimals=1)
    )


@pytest.mark.parametrize(
    "changes", [{"sigma": (0.0, 1.0)}, {"sigma": (2.0, 1.0)}, {"passes": 0}, {"batch_rows": 1}]
)
def test_impossible_settings_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"training\."):
        TrainingConfig(**changes)  # type: ignore[arg-type]


def test_the_map_is_scipys_bilinear_and_gaussian() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 9, 7, generator=generator)
    rows, columns = map_matrix(9, 72), map_matrix(7, 56)
    upsampled = torch.nn.functional.interpolate(scores[:, None], (72, 56), mode="bilinear")[:, 0]
    expected = torch.stack(
        [torch.from_numpy(gaussian_filter(image.numpy(), sigma=4)) for image in upsampled]
    )
    torch.testing.assert_close(anomaly_maps(scores, rows, columns), expected, atol=1e-5, rtol=1e-5)
