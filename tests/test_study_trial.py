"""One training of a study: stopped and scored on its way, and what it is scored by."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from factory import write_images
from studied import SECTION, make_context, make_study
from test_labelled_onboarding import add_labels

from model.errors import NightshiftError
from model.zones import EVERYWHERE, Zones
from pipeline import storage
from pipeline.labels.parts import is_for_gate
from pipeline.labels.told import Told, with_labels_of
from pipeline.study.check import keep_head, measure_heads, read_head
from pipeline.study.feature_view import wanted_views
from pipeline.study.objective import Scored, objective
from pipeline.study.run import RUNGS, WORST, StudyContext, StudyTrial, train_again
from pipeline.study.sets import build_view, fold_plan, read_confirmed
from pipeline.study.trial import HeadRun, score

CONFIGURATION = {"sigma": 1.0, "layers": [2, 3]}


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    folder = tmp_path_factory.mktemp("study")
    study = make_study(folder, ("steel", "brass"))
    places = {}
    for key, view in wanted_views(study).items():
        places[key] = str(folder / "features" / view.name)
        build_view(view, fold_plan(study.settings), places[key], None)
    return make_context(study, places, folder)


def scored(scores: list[float], anomalous: list[bool]) -> Scored:
    count = len(scores)
    masks = np.zeros((count, 2, 2), bool)
    masks[np.array(anomalous), 0, 0] = True
    maps = np.array(scores, np.float32)[:, None, None] * np.ones((count, 2, 2), np.float32)
    return Scored(
        scores=np.array(scores, np.float32),
        anomalous=np.array(anomalous),
        maps=maps,
        masks=masks,
        marked=np.ones(count, bool),
    )


def test_the_objective_is_the_mean_of_noticing_and_finding() -> None:
    metrics = scored([1, 2, 3, 4], [False, False, True, True]).metrics()
    assert metrics["image_auroc"] == 1.0
    # Both anomalies light all four pixels of which one is marked: precision 1/4 at either level.
    assert metrics["pixel_ap"] == pytest.approx(0.25)
    assert objective(metrics, "balanced") == pytest.approx((1 + 0.25) / 2)
    assert objective(metrics, "image_auroc") == 1.0
    assert objective(metrics, "pixel_ap") == pytest.approx(0.25)


def test_without_masks_only_images_are_judged() -> None:
    metrics = {"image_auroc": 0.75}
    assert {objective(metrics, kind) for kind in ("balanced", "pixel_ap", "aupro")} == {0.75}


def test_a_training_that_is_judged_on_its_way_comes_to_the_same_head(context: StudyContext) -> None:
    straight, halting = (context.run(CONFIGURATION, "steel", 0) for _ in range(2))
    straight.train_to(1.0)
    for share in RUNGS:
        halting.train_to(share)
        halting.evaluate()
    assert len(halting.curve) == halting.config.passes
    assert halting.curve == straight.curve
    for name, value in straight.folded().state_dict().items():
        assert torch.equal(value, halting.folded().state_dict()[name])


def test_a_head_is_judged_on_images_it_has_not_seen(context: StudyContext) -> None:
    run = context.run(CONFIGURATION, "steel", 1)
    patches = run.trainer.rows
    assert not set(run.unseen.tolist()) & set(patches.images.tolist())  # type: ignore[attr-defined]
    assert len(run.evaluate().scores) == len(run.unseen) + context.study.settings.anomalies


@pytest.mark.parametrize("min_area", [1, 3])
def test_a_trial_is_judged_by_what_counts_alone(context: StudyContext, min_area: int) -> None:
    run = context.run(CONFIGURATION, "steel", 0)
    run.train_to(0.25)
    head, bank = run.folded(), run.bank
    rows, columns = bank.grid
    bank.zones = Zones(ignored=("11" + "0" * (columns - 2),) * rows, min_area=min_area)
    before = score(head, bank, run.unseen, run.category)
    bank.levels[0].unflatten(1, bank.grid)[:, :, :2] += 50
    for one, other in zip(before, score(head, bank, run.unseen, run.category), strict=True):
        assert np.array_equal(one, other)
    bank.zones = EVERYWHERE
    assert not np.array_equal(before[0], score(head, bank, run.unseen, run.category)[0])


def test_a_repeat_has_a_seed_and_a_fold_of_its_own(context: StudyContext) -> None:
    first, second = (context.run(CONFIGURATION, "steel", number) for number in (1, 2))
    assert (first.split.seed, first.split.fold) == (1, 1)
    assert (second.split.seed, second.split.fold) == (2, 2)
    assert context.run(CONFIGURATION, "steel", 5).split.fold == 1  # of four


def test_a_coreset_that_was_chosen_before_trains_the_same_head(
    context: StudyContext, tmp_path: Path
) -> None:
    chosen = context.run({"sigma": 2.0}, "brass", 0)
    stored = list(Path(chosen.features, "coresets").glob("*.npy"))
    again = context.run({"sigma": 2.0}, "brass", 0)
    assert list(Path(chosen.features, "coresets").glob("*.npy")) == stored != []
    for run in (chosen, again):
        run.train_to(1.0)
    assert chosen.curve == again.curve


def test_a_trial_covers_every_category_and_means_over_them(context: StudyContext) -> None:
    trial = StudyTrial(context, CONFIGURATION)
    for rung in range(len(RUNGS)):
        told = trial.advance(rung)
    values = [told["categories"][name]["objective"] for name in ("steel", "brass")]
    assert told["objective"] == pytest.approx(np.mean(values))
    assert [len(told["curves"][name]) for name in ("steel", "brass")] == [4, 4]
    assert told["errors"] == {}


def test_a_training_that_fails_counts_as_the_worst_and_says_why(context: StudyContext) -> None:
    trial = StudyTrial(context, {"sigma": 1e39})  # infinite in float32
    told = trial.advance(0)
    assert told["objective"] == WORST
    assert "hold NaN" in told["errors"]["steel"]
    assert trial.advance(1)["errors"] == told["errors"]
    repeat = train_again(context, {"sigma": 1e39}, "steel", 1)
    assert (repeat.metrics, repeat.good_scores) == ({"objective": WORST}, [])
    assert "hold NaN" in (repeat.error or "")


def test_a_storage_that_is_away_is_no_trainings_fault(
    context: StudyContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise storage.StorageAway("s3://study does not answer")

    trial = StudyTrial(context, CONFIGURATION)
    with monkeypatch.context() as patched:
        patched.setattr(HeadRun, "evaluate", away)
        for ask in (
            lambda: trial.advance(0),
            lambda: train_again(context, CONFIGURATION, "steel", 1),
        ):
            with pytest.raises(storage.StorageAway, match="does not answer"):
                ask()
    told = trial.advance(0)  # goes on
    assert told["errors"] == {}
    assert told["categories"] == StudyTrial(context, CONFIGURATION).advance(0)["categories"]


def test_a_finalist_keeps_the_scores_that_thresholds_are_taken_from(context: StudyContext) -> None:
    found = train_again(context, CONFIGURATION, "steel", 1)
    run = context.run(CONFIGURATION, "steel", 1)
    run.train_to(1.0)
    metrics = run.evaluate().metrics()
    assert found.metrics == metrics | {"objective": objective(metrics, "balanced")}
    assert len(found.good_scores) == len(run.unseen)
    assert len(found.anomalous_scores) == context.study.settings.anomalies


def test_a_kept_head_scores_as_it_did_and_is_measured_only_where_labels_are(
    context: StudyContext, tmp_path: Path
) -> None:
    run = context.run(CONFIGURATION, "steel", 0)
    run.train_to(1.0)
    head = run.folded()
    keep_head(head, str(tmp_path / "steel.safetensors"))
    levels = run.bank.images(run.unseen)
    with torch.inference_mode():
        assert torch.equal(read_head(str(tmp_path / "steel.safetensors"))(levels), head(levels))
    assert measure_heads(context, CONFIGURATION, str(tmp_path)) == {}  # nothing was embedded


def test_a_two_layer_adaptor_is_kept_too(context: StudyContext, tmp_path: Path) -> None:
    run = context.run({"adaptor": "two_layer"}, "steel", 0)
    uri = str(tmp_path / "head.safetensors")
    keep_head(run.folded(), uri)
    levels = run.bank.images(run.unseen)
    with torch.inference_mode():
        assert torch.equal(read_head(uri)(levels), run.folded()(levels))


def test_an_error_of_ours_is_no_result(
    context: StudyContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not issubclass(ValueError, NightshiftError)
    trial = StudyTrial(context, {"layers": [2, 7]})
    with pytest.raises((ValueError, KeyError, FileNotFoundError)):
        trial.advance(0)


def test_confirmed_defects_are_known_by_their_content(tmp_path: Path) -> None:
    """Of a copy in the gate's half and one that cannot be read none judges; copies judge once."""
    (category,) = make_study(tmp_path).categories
    write_images(tmp_path, range(900_000, 900_040))
    halves: dict[bool, list[str]] = {True: [], False: []}
    for path in sorted(tmp_path.glob("9*.png")):
        halves[is_for_gate(str(path))].append(str(path))
    kept, own = halves[True][:2], halves[False][:5]
    shutil.copy(kept[0], own[0])
    shutil.copy(own[1], own[2])
    Path(own[3]).write_bytes(b"no image")
    told = [Told(uri, None, "defect", True) for uri in [*kept, *own]]
    found = read_confirmed(told, category)
    assert {sample.uri for sample in found.judging} in ({own[1], own[4]}, {own[2], own[4]})
    assert len(found.contents) == 4
    assert not read_confirmed(told[5:6], category).judging
    copied = read_confirmed(told, category, copies={own[4]})
    assert own[4] not in {sample.uri for sample in copied.judging}
    assert len(copied.contents) == 4


def test_confirmed_defects_judge_in_place_of_made_anomalies_and_none_of_the_gates(
    tmp_path: Path,
) -> None:
    """A head is judged by the half that may be learned from, once there are ten of them."""
    study = make_study(tmp_path)
    night, out = tmp_path / "night", tmp_path / "out"
    write_images(night, range(900_000, 900_060), scratched=True)
    halves: dict[bool, list[Path]] = {True: [], False: []}
    for path in sorted(night.iterdir()):
        halves[is_for_gate(str(path))].append(path)
    nine, tenth = halves[False][:9], halves[False][9:10]
    for number, labelled in enumerate((nine, [*tenth, *halves[True]])):
        add_labels(out, dict.fromkeys(labelled, ("defect", "flagged")))
        (category,) = with_labels_of(study.categories, [str(out)])
        labelled_study = dataclasses.replace(study, categories=[category])
        ((key, view),) = wanted_views(labelled_study).items()
        place = str(tmp_path / f"features{number}")
        build_view(view, fold_plan(study.settings), place, None)
        context = make_context(labelled_study, {key: place}, tmp_path)
        run = context.run(CONFIGURATION, "steel", repeat=0)
        run.train_to(1.0)
        scored = run.evaluate()
        assert scored.anomalous.sum() == (10 if number else SECTION["anomalies"])
        assert scored.marked[scored.anomalous].all() == (not number)  # nobody marked a defect
        assert objective(scored.metrics(), "balanced") <= 1
