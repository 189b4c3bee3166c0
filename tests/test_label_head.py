"""The head that learns from confirmed defects: taken where it helps, at no promise's cost."""

from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_categories import RATE
from safetensors.torch import load_file, save_file

from model.detector import DetectorFileError, DetectorHeader, load_detector, save_detector
from model.feature_bank import FeatureBank
from model.kind import TrainingSet
from model.kinds import KINDS
from model.label_head import LabelHead, LabelledHeads, describe
from model.label_training import LabelTrainer, fit, least_t, log_p, mean_over_error
from model.memory_bank import MemoryBankRecipe
from model.preprocessing import Preprocessing
from pipeline.calibration import CalibrationConfig
from pipeline.calibration import fit as fit_threshold

SHAPE = (8, 3, 3)  # channels and grid of the only level
NUM_GOOD, NUM_NEW = 60, 60
RECIPE = MemoryBankRecipe(size=60)


def make_bank(num_images: int, seed: int, shift: float = 0.0) -> FeatureBank:
    """Images of noise; those with a shift are different everywhere, and nowhere by much."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(num_images, *SHAPE, generator=generator)
    features[:, 1] += shift
    bank = FeatureBank(num_images, [SHAPE])
    bank.write(0, [features.half()])
    return bank


def make_trainer(
    bank: FeatureBank,
    defects: FeatureBank,
    num_good: int = NUM_GOOD,
    bursts: list[str] | None = None,
) -> LabelTrainer:
    images = torch.arange(num_good)
    own = TrainingSet(bank=bank, images=images, folds=images % RECIPE.members)
    trainer = LabelTrainer(KINDS["memory_bank"].make_trainer(own, RECIPE), own, defects, bursts)
    for _ in trainer.run():
        pass
    return trainer


def heads_of(trainer: LabelTrainer) -> LabelledHeads:
    heads = trainer.folded()
    assert isinstance(heads, LabelledHeads)
    return heads


def test_an_image_is_described_by_what_its_channels_and_its_least_usual_places_show() -> None:
    fine = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
    coarse = torch.tensor([[[[2.0]]]])  # the same everywhere
    unusual = torch.tensor([[[0.0, 9.0], [1.0, 2.0]]])  # one of four places is looked at
    found = describe([fine, coarse], unusual)
    expected = [[4.0, 2.0, 5**0.5, 0.0, 7.0, 2.0, 3.0, 2.0]]  # mean, std, highest, there
    assert found.tolist() == [pytest.approx(each) for each in expected]


def test_p_values_count_good_images_that_score_as_high() -> None:
    found = log_p(torch.tensor([0.0, 2.0, 2.5, 9.0]), torch.tensor([3.0, 1.0, 2.0]))
    assert found.exp().tolist() == pytest.approx([4 / 4, 3 / 4, 2 / 4, 1 / 4])


def test_what_chance_allows_is_what_the_tables_of_students_t_say() -> None:
    found = [least_t(number) for number in (10, 21, 101)]
    assert found == pytest.approx([2.262, 2.086, 1.984], abs=1e-3)


def test_good_images_are_at_nought_and_defects_above() -> None:
    random = torch.Generator().manual_seed(0)
    good = torch.randn(200, 12, generator=random)
    defects = torch.randn(2, 20, 12, generator=random)
    defects[..., 5] += 4
    weight, bias = fit(good, defects)
    assert float((good.double() @ weight + bias).mean()) == pytest.approx(0, abs=1e-9)
    assert float(((defects.double() @ weight) + bias).min()) > 0
    assert int(weight.abs().argmax()) == 5


def test_channels_that_never_change_teach_nothing() -> None:
    weight, bias = fit(torch.ones(30, 8), torch.ones(2, 12, 8))
    assert weight.isfinite().all()
    assert bias.isfinite()


def test_it_finds_defects_that_the_kind_does_not() -> None:
    index = torch.arange(200)
    good, new = (make_bank(200, 3, shift).images(index) for shift in (0.0, 1.5))
    heads = heads_of(make_trainer(make_bank(200, 1), make_bank(60, 2, shift=1.5), num_good=200))
    limits = [each(good)[0].quantile(1 - RATE) for each in (heads.kind, heads)]
    pairs = zip((heads.kind, heads), limits, strict=True)
    kind, both = (float((each(new)[0] > limit).float().mean()) for each, limit in pairs)
    assert kind < 0.3
    assert both > 0.8


def test_labels_that_say_nothing_are_hardly_ever_learned_from() -> None:
    """2.5 % by chance; of 30 made-up categories three and more would be one time in 25."""
    taken = 0
    for seed in range(30):
        trainer = make_trainer(make_bank(40, seed), make_bank(12, 1_000 + seed), num_good=40)
        trainer.folded()
        assert trainer.choice is not None
        taken += trainer.choice.is_taken
    assert taken <= 2


def test_shots_of_one_part_are_one_witness() -> None:
    """Of ten parts that say nothing, each shot twice: learned from in two of three otherwise."""
    taken, shots = 0, torch.arange(20) // 2
    for seed in range(8):
        defects = FeatureBank(20, [SHAPE])
        defects.write(0, make_bank(10, 1_000 + seed).images(shots))
        bursts = [f"part {number}" for number in shots.tolist()]
        trainer = make_trainer(make_bank(40, seed), defects, num_good=40, bursts=bursts)
        trainer.folded()
        assert trainer.choice is not None
        assert trainer.choice.num_defects == 20
        taken += trainer.choice.is_taken
    assert taken <= 2


def test_a_mean_over_bursts_has_the_error_of_bursts() -> None:
    gains, bursts = torch.tensor([1.0, 3.0, 4.0, 6.0]), torch.tensor([0, 0, 1, 2])
    t, _ = mean_over_error(gains, bursts)
    assert t == pytest.approx(4.0 / (2.0 / 3**0.5))  # of the means 2, 4 and 6


@pytest.mark.parametrize("crosswise", [True, False])
def test_the_calibration_keeps_its_promise_beside_learned_defects(*, crosswise: bool) -> None:
    rates = []
    for seed in range(25):
        bank = make_bank(NUM_GOOD + NUM_NEW, seed)
        num_good = NUM_GOOD if crosswise else NUM_GOOD - 29
        trainer = make_trainer(bank, make_bank(12, 1_000 + seed, shift=1.0), num_good)
        heads = trainer.folded()
        with torch.inference_mode():
            if crosswise:
                unseen = [own(bank.images(index))[0] for own, index in trainer.unseen(heads)]
            else:
                unseen = [heads(bank.images(torch.arange(num_good, NUM_GOOD)))[0]]
            new = heads(bank.images(torch.arange(NUM_GOOD, NUM_GOOD + NUM_NEW)))[0]
        config = CalibrationConfig(false_alarm_rate=RATE)
        calibration = fit_threshold(torch.cat(unseen).numpy(), config)
        rates.append(float(calibration.flagged(new.numpy()).mean()))
    error = np.std(rates) / len(rates) ** 0.5
    assert RATE / 4 < np.mean(rates) < RATE + 2 * error


@pytest.mark.parametrize("changed", [0, 17])
def test_an_image_hardly_reaches_the_member_that_leaves_it_out(changed: int) -> None:
    """Only by where the other members look; those that learn from it become other heads."""
    defects, weights = make_bank(24, 2, shift=1.0), []
    for change in (0, 3):
        bank = make_bank(NUM_GOOD, 1)
        bank.levels[0][changed] += change
        trainer = make_trainer(bank, defects)
        members = {int(i): own for own, index in trainer.unseen(heads_of(trainer)) for i in index}
        assert sorted(members) == list(range(NUM_GOOD))
        first = (members[fold] for fold in range(RECIPE.members))
        weights.append([own.labels.weight for own in first if isinstance(own, LabelledHeads)])
    moved = [float((new - old).norm() / old.norm()) for old, new in zip(*weights, strict=True)]
    own = moved.pop(changed % RECIPE.members)
    assert own < 0.2
    assert min(moved) > 0.4


@pytest.fixture
def file(tmp_path: Path) -> Path:
    trainer = make_trainer(make_bank(NUM_GOOD, 1), make_bank(24, 2, shift=1.0))
    header = DetectorHeader(
        backbone="efficientnet_lite0",
        backbone_digest="d",
        layers=(2,),
        preprocessing=Preprocessing(resize=64, crop=64),
        detector="memory_bank",
    )
    heads = heads_of(trainer)
    save_detector(tmp_path / "head.safetensors", heads, header)
    return tmp_path / "head.safetensors"


def test_what_is_stored_scores_as_before(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DetectorHeader, "channels", SHAPE[:1])
    trainer = make_trainer(make_bank(NUM_GOOD, 1), make_bank(24, 2, shift=1.0))
    levels = make_bank(5, 9, shift=0.5).images(torch.arange(5))
    _, heads = load_detector(file)
    for each in (heads, heads.in_float32()):
        torch.testing.assert_close(each(levels), heads_of(trainer)(levels), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["labels.weight", "labels.bias"])
def test_a_damaged_file_is_refused(file: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DetectorHeader, "channels", SHAPE[:1])
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    save_file(tensors | {name: torch.zeros(3)}, file, metadata)
    with pytest.raises(DetectorFileError, match=r"damaged"):
        load_detector(file)


def test_what_is_added_is_linear() -> None:
    head = LabelHead(torch.tensor([1.0, -2.0]), torch.tensor(0.5))
    assert head(torch.tensor([[3.0, 1.0], [0.0, 0.0]])).tolist() == [1.5, 0.5]
