"""The kind RealNet: how it trains, what its heads say, and that a file says the same."""

from dataclasses import replace

import pytest
import torch
from small_realnet import SHAPES, SHOWING, SIDE, bank_of, recipe_of, training_set

from model.kind import Pairs
from model.kinds import KINDS
from model.realnet.realnet import read_realnet
from model.realnet.realnet_heads import SQUARES, RealNetHeads
from model.realnet.realnet_recipe import RealNetRecipe
from model.realnet.realnet_training import RealNetTrainer
from model.realnet.selected_features import SelectedFeatures

CHANNELS = [channels for channels, _, _ in SHAPES]
VARIANTS = [{}, {"residuals": "all"}, {"selection": "random"}, {"standardised": False}]


def trained(**changes: object) -> RealNetTrainer:
    trainer = RealNetTrainer(training_set(), recipe_of(**changes))
    assert len(list(trainer.run())) == trainer.num_passes
    return trainer


@pytest.fixture(scope="module")
def heads() -> RealNetHeads:
    return trained().folded()


def test_planted_channels_are_selected_of_every_level() -> None:
    features = SelectedFeatures.of(training_set(), recipe_of(channels=(len(SHOWING),)))
    assert [tuple(each.index.tolist()) for each in features.channels] == [SHOWING] * 3


def test_kept_features_are_the_selected_channels_standardised() -> None:
    data, recipe = training_set(), recipe_of()
    features = SelectedFeatures.of(data, recipe)
    level = data.bank.images(data.images)[1].float()[:, features.channels[1].index]
    mean, spread = level.mean(dim=(0, 2, 3)), level.std(dim=(0, 2, 3), correction=0)
    expected = (level - mean[:, None, None]) / spread[:, None, None]
    torch.testing.assert_close(features.good[1].float(), expected, atol=3e-3, rtol=1e-2)
    assert features.good[0].shape[2:] == (8, 8)  # of 16 x 16, averaged over 2 x 2
    assert features.marked.shape == (24, 16, 16)
    assert features.marked.sum(dim=(1, 2)).tolist() == [16] * 24  # 16 x 16 of 64 x 64 pixels


def test_an_anomaly_stands_beside_its_own_good_image() -> None:
    data = training_set()
    features = SelectedFeatures.of(data, recipe_of(selection="random"))
    assert torch.equal(data.images[features.originals], data.pairs.originals)  # type: ignore[union-attr]


def test_anomalies_of_images_that_do_not_train_are_an_error() -> None:
    data = training_set()
    assert data.pairs is not None
    pairs = Pairs(bank=data.pairs.bank, originals=data.pairs.originals + 1, masks=data.pairs.masks)
    with pytest.raises(AssertionError, match="training images alone"):
        SelectedFeatures.of(replace(data, pairs=pairs), recipe_of())


def test_training_finds_planted_anomalies_in_images_it_has_not_seen() -> None:
    changes = {"passes": 6, "steps_per_pass": 25, "batch_images": 8, "learning_rate": 3e-3}
    trainer = RealNetTrainer(training_set(60, 120), recipe_of(**changes))
    list(trainer.run())
    heads, bank = trainer.folded(), bank_of(60, seed=0)
    unseen = bank.images(torch.arange(60)[1::6])
    damaged = [level.clone() for level in unseen]
    for level, (_, height, _) in zip(damaged, SHAPES, strict=True):
        level[:, list(SHOWING), : height // 4, : height // 4] += 6
    good, _ = heads(unseen)
    bad, patch_scores = heads(damaged)
    assert bad.min() > good.max()
    inside = patch_scores[:, :4, :4].mean()
    assert inside > patch_scores[:, 6:].mean() + 1
    assert trainer.health()["segmentation_over_prior"] < 0.9


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_resumed_fit_equals_an_undisturbed_one(changes: dict[str, object]) -> None:
    whole = trained(**changes).folded()
    stopped = RealNetTrainer(training_set(), recipe_of(**changes))
    next(stopped.run())
    again = RealNetTrainer(training_set(), recipe_of(**changes))
    again.load_state_dict(stopped.state_dict())
    assert len(again.reports) == 1
    assert len(list(again.run())) == 2
    resumed = again.folded().state_dict()
    assert resumed.keys() == whole.state_dict().keys()
    assert all(torch.equal(resumed[name], value) for name, value in whole.state_dict().items())


def test_looking_at_the_heads_does_not_disturb_training() -> None:
    looked = RealNetTrainer(training_set(), recipe_of())
    for _ in looked.run():
        looked.folded()
    state = looked.folded().state_dict()
    assert all(torch.equal(state[n], v) for n, v in trained().folded().state_dict().items())


def test_another_seed_gives_another_network() -> None:
    one, other = (trained(seed=seed).folded().state_dict() for seed in (0, 1))
    assert not torch.equal(one["network.decoder.last.weight"], other["network.decoder.last.weight"])
    assert torch.equal(one["index0"], other["index0"])  # what is selected depends on the images


def test_a_state_holds_plain_values_only(tmp_path: object) -> None:
    trainer = RealNetTrainer(training_set(), recipe_of())
    next(trainer.run())
    torch.save(trainer.state_dict(), f"{tmp_path}/state.pt")
    assert torch.load(f"{tmp_path}/state.pt", weights_only=True)["reports"]


@pytest.mark.parametrize("threads", [1, 2])
def test_an_image_has_the_same_bits_alone_and_in_company(heads: RealNetHeads, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        levels = bank_of(7, seed=3).images(torch.arange(7))
        scores, patch_scores = heads(levels)
        for image in range(7):
            alone = heads([level[image : image + 1] for level in levels])
            assert torch.equal(alone[0][0], scores[image])
            assert torch.equal(alone[1][0], patch_scores[image])
    finally:
        torch.set_num_threads(before)


def test_an_image_scores_as_its_worst_square_does(heads: RealNetHeads) -> None:
    scores, patch_scores = heads(bank_of(3, seed=4).images(torch.arange(3)))
    side = max(SHAPES[0][1] // SQUARES, 1)
    squares = patch_scores.unfold(1, side, 1).unfold(2, side, 1).mean(dim=(3, 4))
    torch.testing.assert_close(scores, squares.flatten(1).amax(dim=1))
    assert patch_scores.shape == (3, 16, 16)  # the finest level's grid


@pytest.mark.parametrize("changes", VARIANTS)
def test_heads_of_a_file_score_exactly_alike(changes: dict[str, object]) -> None:
    heads, levels = trained(**changes).folded(), bank_of(4, seed=5).images(torch.arange(4))
    stored = {n: v.half() if v.dim() > 1 else v for n, v in heads.state_dict().items()}
    read = read_realnet({name: value.float() for name, value in stored.items()}, CHANNELS)
    for one, other in zip(heads(levels), read(levels), strict=True):
        assert torch.equal(one, other)
    assert not list(read.parameters())
    assert heads.stored_bytes == sum(v.numel() * v.element_size() for v in stored.values())


def test_heads_in_half_precision_score_the_same(heads: RealNetHeads) -> None:
    levels, halved = bank_of(3, seed=6).images(torch.arange(3)), heads.in_float32()
    halved.halve()
    assert {v.dtype for v in halved.state_dict().values() if v.dim() > 1} == {torch.half}
    assert torch.equal(halved(levels)[0], heads(levels)[0])
    assert torch.equal(halved.in_float32()(levels)[0], heads(levels)[0])


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"index0": torch.tensor([0.0, 1.0, 2.0, 8.0])}, "other channels than the 8 of level 0"),
        ({"mean1": torch.zeros(5)}, "other channels than the 12 of level 1"),
        ({"network.decoder.last.weight": torch.zeros(1, 4, 5, 5)}, "no network of"),
        ({"network.foreign": torch.zeros(1)}, "no network of"),
        ({"structure": torch.zeros(3)}, "shorter"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    heads: RealNetHeads, changes: dict[str, torch.Tensor], error: str
) -> None:
    assert isinstance(read_realnet(heads.state_dict(), CHANNELS), RealNetHeads)
    with pytest.raises(ValueError, match=error):
        read_realnet(heads.state_dict() | changes, CHANNELS)


def test_heads_of_other_levels_are_refused(heads: RealNetHeads) -> None:
    with pytest.raises(ValueError, match="3 levels, not of 2"):
        read_realnet(heads.state_dict(), CHANNELS[:2])
    state = {name: v for name, v in heads.state_dict().items() if name != "scale2"}
    with pytest.raises(KeyError):
        read_realnet(state, CHANNELS)


@pytest.mark.parametrize(
    ("recipe", "levels", "counts", "by_each"),
    [
        (RealNetRecipe(), [64, 128, 256], [32, 64, 64], 26),
        (RealNetRecipe(), [24, 40, 112], [24, 40, 64], 21),
        (RealNetRecipe(), [128, 256], [32, 64], 16),
        (RealNetRecipe(channels=(16,)), [64, 128, 256], [16, 16, 16], 8),
        (RealNetRecipe(residuals="all"), [64, 128, 256], [32, 64, 64], 0),
        (
            KINDS["realnet"].presets["paper"].recipe,
            [256, 512, 1024, 2048],
            [256, 512, 512, 256],
            256,
        ),
    ],
)
def test_counts_follow_from_the_levels(
    recipe: RealNetRecipe, levels: list[int], counts: list[int], by_each: int
) -> None:
    assert recipe.counts(levels) == counts
    structure = recipe.structure_of(counts)
    assert (structure.by_max, structure.by_mean) == (by_each, by_each)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"channels": ()}, "channels must be positive"),
        ({"channels": (0,)}, "channels must be positive"),
        ({"batch_images": 3}, "batch_images must be even"),
        ({"batch_images": 0}, "batch_images must be even"),
        ({"passes": 0}, "passes, steps_per_pass and pairs"),
        ({"pairs": 0}, "passes, steps_per_pass and pairs"),
    ],
)
def test_recipes_that_cannot_be_are_refused(changes: dict[str, object], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        RealNetRecipe(**changes)  # type: ignore[arg-type]


def test_masks_are_of_the_crop(heads: RealNetHeads) -> None:
    assert training_set().pairs.masks.shape[1:] == (SIDE, SIDE)  # type: ignore[union-attr]
    assert len(heads.channels) == 3
