"""Another threshold from the same heads: the same guarantee, or a refusal with what is missing."""

import dataclasses
import datetime as dt
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Run
from factory import make_package, write_images
from numpy.typing import NDArray

from pipeline.calibration import CalibrationConfig, TooFewImages, fit
from pipeline.labels.label import Label, to_rows
from pipeline.labels.label_table import LabelTable
from pipeline.onboarding.defect_sizes import SizeFound, findings_of_sizes
from pipeline.package import Package, package_digest
from pipeline.predictor import Predictor
from pipeline.promotion.image_scores import ImageFile, score_by_each
from pipeline.promotion.recalibration import (
    Labelled,
    RecalibrationError,
    labelled_good,
    recalibrate,
    write,
)
from pipeline.registry import aliases, models

CHOSEN = {
    "a.png": ("good", "audit"),
    "b.png": ("good", "whole_dump"),
    "c.png": ("good", "flagged"),
    "d.png": ("good", "unknown"),
    "e.png": ("defect", "audit"),
    "f.png": ("unsure", "audit"),
    "g.png": ("undo", "audit"),
}


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return make_package(tmp_path / "package")


def with_scores(package: Package, scores: NDArray[Any], rate: float) -> Package:
    calibration = fit(scores, CalibrationConfig(false_alarm_rate=rate))
    reference = dataclasses.replace(package.reference, calibration=calibration)
    return dataclasses.replace(package, reference=reference)


def add_labels(out: Path, images: Path, said: dict[str, tuple[str, Any]] = CHOSEN) -> None:
    when = dt.datetime(2026, 3, 13, tzinfo=dt.UTC)
    labels = [
        Label(
            image_uri=str(images / name), category="steel", label=word, chosen=how, labelled_at=when
        )
        for name, (word, how) in said.items()
    ]
    LabelTable(str(out)).append(to_rows(labels))


@pytest.mark.parametrize(
    ("rate", "threshold"),
    [  # of 99 scores 1 .. 99: the k-th, k = ceil(100 (1 - rate))
        (0.1, 90.0),
        (0.05, 95.0),
        (0.01, 99.0),
    ],
)
def test_another_rate_is_another_of_the_stored_scores(
    package: Package, rate: float, threshold: float
) -> None:
    done = recalibrate(with_scores(package, np.arange(1.0, 100.0), 0.02), "digest", rate)
    calibration = done.package.reference.calibration
    assert (calibration.threshold, calibration.false_alarm_rate) == (threshold, rate)
    assert done.package.reference.map_scale.threshold == threshold
    assert done.package.record.settings["false_alarm_rate"] == rate
    assert done.package.record.metrics["threshold"] == threshold
    assert not [name for name in done.package.record.metrics if name.startswith("test_")]


def test_a_rate_that_cannot_be_promised_is_refused_with_what_would_be_needed(
    package: Package,
) -> None:
    few = with_scores(package, np.arange(1.0, 100.0), 0.1)
    with pytest.raises(TooFewImages, match=r"99 .* need at least 199") as refused:
        recalibrate(few, "digest", 0.005)
    assert refused.value.needed == 199
    selected = Labelled(images=[], left_out={"flagged": 12, "unknown": 3})
    with pytest.raises(TooFewImages, match=r"15 labelled good images cannot join .* audit sample"):
        recalibrate(few, "digest", 0.005, selected)


def test_only_good_images_that_were_chosen_whatever_their_score_are_taken(tmp_path: Path) -> None:
    add_labels(tmp_path, tmp_path)
    found = labelled_good("steel", [str(tmp_path)])
    assert [image.uri.rpartition("/")[2] for image in found.images] == ["a.png", "b.png", "f.png"]
    assert found.left_out == {"flagged": 1, "unknown": 1}


def test_labelled_images_join_with_the_score_of_the_same_heads(
    package: Package, tmp_path: Path
) -> None:
    write_images(tmp_path / "night", range(900_000, 900_003))
    images = [ImageFile(str(path), None) for path in sorted((tmp_path / "night").iterdir())]
    gone = ImageFile(str(tmp_path / "night/gone.png"), None)
    replaced = ImageFile(images[0].uri, "0-0")
    done = recalibrate(package, "d", None, Labelled(images=[*images, gone, replaced], left_out={}))
    said = Predictor.load(str(tmp_path / "package")).predict([image.uri for image in images])
    before = package.reference.calibration.scores
    expected = sorted([*before, *said["score"].tolist()])
    assert list(done.package.reference.calibration.scores) == expected
    assert (done.num_labelled, done.left_out) == (3, {"missing": 1, "changed": 1})


def test_what_is_left_of_a_sample_is_refused(package: Package, tmp_path: Path) -> None:
    write_images(tmp_path / "night", range(900_000, 900_003))
    images = [ImageFile(str(path), None) for path in sorted((tmp_path / "night").iterdir())]
    gone = [ImageFile(str(tmp_path / f"night/gone{number}.png"), None) for number in range(2)]
    nights = ["2026-03-13"] * 3 + ["2026-03-12"] * 2  # that one is gone whole, for its age
    whole = Labelled(images=[*images, *gone], left_out={}, nights=nights)
    assert recalibrate(package, "d", None, whole).num_labelled == 3
    part = Labelled(images=[*images, *gone], left_out={}, nights=[*nights[:4], nights[0]])
    with pytest.raises(RecalibrationError, match=r"1 nights a part is gone .*2026-03-13.* back"):
        recalibrate(package, "d", None, part)


def test_no_labelled_image_counts_twice(package: Package, tmp_path: Path) -> None:
    write_images(tmp_path / "night", range(900_000, 900_003))
    images = [ImageFile(str(path), None) for path in sorted((tmp_path / "night").iterdir())]
    copy = tmp_path / "night/copy.png"
    copy.write_bytes(Path(images[0].uri).read_bytes())
    labelled = Labelled(images=[*images, ImageFile(str(copy), None)], left_out={})
    before = len(package.reference.calibration.scores)
    first = recalibrate(package, "d", None, labelled)
    assert (first.num_labelled, len(first.package.reference.calibration.scores)) == (3, before + 3)
    # Again from the version that came out: the same, fewer, and another rate alone.
    again = recalibrate(first.package, "d", None, labelled)
    assert again.package.reference.calibration == first.package.reference.calibration
    fewer = recalibrate(first.package, "d", None, Labelled(images=images[:1], left_out={}))
    assert len(fewer.package.reference.calibration.scores) == before + 1
    rate = recalibrate(first.package, "d", 0.2).package.reference.calibration
    assert rate.scores == first.package.reference.calibration.scores


def test_made_defects_that_the_old_threshold_found_are_not_said_of_another(
    package: Package, tmp_path: Path
) -> None:
    sizes = [SizeFound.of_flags(32, [False] * 12)]
    findings = ["of the data", *findings_of_sizes(sizes)]
    measured = [dataclasses.asdict(each) for each in sizes]
    record = dataclasses.replace(package.record, findings=findings, defect_sizes=measured)
    done = recalibrate(dataclasses.replace(package, record=record), "d", 0.2)
    write(done, tmp_path / "made", tmp_path / "package")
    made = Package.read(tmp_path / "made").record
    assert (len(findings), made.findings, made.found_by_size) == (2, ["of the data"], {})
    before, after = (
        {path.name for path in (tmp_path / name / "examples").iterdir()}
        for name in ("package", "made")
    )
    assert before - after == {"defect-sizes.png"}


def test_the_gate_judges_by_no_image_that_set_the_threshold(
    package: Package, tmp_path: Path
) -> None:
    write_images(tmp_path / "night", range(900_000, 900_004))
    images = [ImageFile(str(path), None) for path in sorted((tmp_path / "night").iterdir())]

    def joined(base: Package, some: list[ImageFile]) -> Package:
        done = recalibrate(base, "d", None, Labelled(images=some, left_out={}))
        done.package.write(tmp_path / "made", {})
        return Package.read(tmp_path / "made")

    made = joined(package, images[:3])
    assert score_by_each([package, made], images).is_used.tolist() == [True] * 3 + [False]
    # Another rate keeps what has joined; labels that join anew replace it.
    rate = recalibrate(made, "d", 0.2).package
    assert rate.record.contents == made.record.contents
    fewer = joined(made, images[2:])
    assert score_by_each([fewer], images).is_used.tolist() == [False] * 2 + [True] * 2
    assert len(fewer.record.contents) == len(package.record.contents) + 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"calibration": "cross"}, "calibrated with `calibration: cross`"),
        ({"labels": ["s3://results"]}, "was trained with labelled images"),
    ],
)
def test_labels_join_no_calibration_that_is_not_of_their_kind(
    package: Package, settings: dict[str, Any], message: str
) -> None:
    settings = {**package.record.settings, **settings}
    record = dataclasses.replace(package.record, settings=settings, contents=())
    other = dataclasses.replace(package, record=record)
    with pytest.raises(RecalibrationError, match=message):
        recalibrate(other, "d", None, Labelled(images=[], left_out={}))
    assert recalibrate(other, "d", 0.2).package.reference.calibration.false_alarm_rate == 0.2


def test_labels_join_a_version_that_notes_which_others_it_learned_from(
    package: Package, tmp_path: Path
) -> None:
    write_images(tmp_path / "night", range(900_000, 900_003))
    paths = sorted((tmp_path / "night").iterdir())
    learned = hashlib.sha256(paths[0].read_bytes()).hexdigest()[:16]
    settings = {**package.record.settings, "labels": ["s3://results"]}
    record = dataclasses.replace(package.record, settings=settings, contents=[learned])
    labelled = Labelled(images=[ImageFile(str(path), None) for path in paths], left_out={})
    done = recalibrate(dataclasses.replace(package, record=record), "d", None, labelled)
    assert (done.num_labelled, done.left_out) == (2, {"used at onboarding": 1})


def mornings(
    random: np.random.Generator, take: str, rate: float = 0.05, num_nights: int = 5
) -> float:
    """True false-alarm rate after some mornings: good scores are uniform, so it is 1 - threshold.

    Every night has 400 good images. People label the flagged ones, the 40 that are least unusual,
    or 40 that were drawn whatever their score; what they call good joins the calibration.
    """
    scores = random.random(99)
    for _ in range(num_nights):
        threshold = fit(scores, CalibrationConfig(false_alarm_rate=rate)).threshold
        night = random.random(400)
        chosen = {
            "flagged": night[night > threshold],
            "unflagged": np.sort(night)[:40],
            "at random": night[:40],
        }[take]
        scores = np.concatenate([scores, chosen])
    return 1 - fit(scores, CalibrationConfig(false_alarm_rate=rate)).threshold


def test_what_was_chosen_by_its_score_breaks_the_promise_and_what_was_not_keeps_it() -> None:
    """Split conformal: on average between rate - 1 / (n + 1) and rate; n = 299 at the end."""
    random = np.random.default_rng(0)
    rates = {
        take: np.array([mornings(random, take) for _ in range(1000)])
        for take in ("at random", "flagged", "unflagged")
    }
    error = {take: 4 * each.std() / np.sqrt(len(each)) for take, each in rates.items()}
    kept = rates["at random"].mean()
    assert 0.05 - 1 / 300 - error["at random"] <= kept <= 0.05 + error["at random"]
    # Flagged ones push the threshold up, and defects pass; unflagged ones flag too many good ones.
    assert rates["flagged"].mean() < 0.5 * 0.05
    assert rates["unflagged"].mean() > 1.5 * 0.05


def test_a_pass_for_several_gives_the_bits_of_a_pass_for_each(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    write_images(tmp_path, range(3))
    images = [ImageFile(str(path), None) for path in sorted(tmp_path.glob("*.png"))]
    both = [Package.read(packages[name]) for name in ("steel", "wood")]
    together = score_by_each(both, images)
    alone = [score_by_each([package], images).scores[0] for package in both]
    np.testing.assert_array_equal(together.scores, np.stack(alone))
    said = Predictor.load(str(packages["wood"])).predict([image.uri for image in images])
    np.testing.assert_array_equal(together.scores[1], said["score"].to_numpy(np.float32))


def test_a_champion_is_recalibrated_by_command_once(tmp_path: Path, run: Run) -> None:
    make_package(tmp_path / "package")
    models.promote(models.register("steel", "key", tmp_path / "package"))
    command = ("recalibrate", "steel", "--false-alarm-rate", "0.2", "--json")
    answer = json.loads(run(*command).out)
    assert (answer["version"], answer["heads_of_version"], answer["is_new"]) == ("2", "1", True)
    assert (answer["is_champion"], answer["threshold"] < answer["threshold_before"]) == (True, True)
    champion = models.champions()["steel"]
    made = Package.read(models.download(champion, tmp_path / "download"))
    assert made.reference.calibration.false_alarm_rate == 0.2
    assert (
        made.heads.state_dict().keys()
        == Package.read(tmp_path / "package").heads.state_dict().keys()
    )
    assert champion.digest == package_digest(models.download(champion, tmp_path / "again"))
    again = run(*command)
    assert "nothing changes. Version 2 has this rate" in again.refusal()
    rows = json.loads(run("history", "steel", "--json").out)["changes"]
    assert rows[-1]["by"] == "recalibrate"
    assert "false-alarm rate 0.2, was 0.1" in rows[-1]["evidence"]


def test_a_challenger_that_waits_keeps_its_place(tmp_path: Path, run: Run) -> None:
    make_package(tmp_path / "package")
    models.promote(models.register("steel", "key", tmp_path / "package"))
    command = ("recalibrate", "steel", "--false-alarm-rate")
    assert "challenger" not in run(*command, "0.2").out
    assert aliases.history("steel").aliases == {"champion": "2", "challenger": "2"}
    models.register("steel", "other", tmp_path / "package")
    answer = json.loads(run(*command, "0.3", "--json").out)
    assert (answer["challenger"], answer["took_challengers_place"]) == ("3", False)
    assert aliases.history("steel").aliases == {"champion": "4", "challenger": "3"}
    assert "version 3 stays challenger" in run(*command, "0.25").out
    done = run(*command, "0.15", "--no-promote")
    assert "version 3 is challenger no longer, this one is" in done.out
    assert aliases.history("steel").aliases == {"champion": "5", "challenger": "6"}


def test_the_command_says_how_many_labels_joined(tmp_path: Path, run: Run) -> None:
    make_package(tmp_path / "package")
    models.promote(models.register("steel", "key", tmp_path / "package"))
    command = ("recalibrate", "steel", "--false-alarm-rate", "0.2", "--with-labels")
    nowhere = run(*command, tmp_path / "nowhere").refusal()
    assert "nowhere: nothing is there; name the folder that score --out names" in nowhere
    add_labels(tmp_path / "out", tmp_path, {"c.png": ("good", "flagged")})
    assert "good images, 0 of them labelled" in run(*command, tmp_path / "out").out


def test_a_recalibration_that_was_killed_is_finished_by_the_next(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_package(tmp_path / "package")
    models.promote(models.register("steel", "key", tmp_path / "package"))

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    command = ("recalibrate", "steel", "--false-alarm-rate", "0.2")
    with monkeypatch.context() as patched:
        patched.setattr(models, "promote", die)
        run(*command)
    assert models.champions()["steel"].version == "1"
    done = run(*command)
    assert done.code == 0
    assert models.champions()["steel"].version == "2"


def test_a_rate_that_is_none_and_a_category_without_champion_are_refused(
    run: Run, tmp_path: Path
) -> None:
    assert run("recalibrate", "steel", "--false-alarm-rate", "1.5").code == 2
    assert "steel: no model is registered" in run("recalibrate", "steel").refusal()
