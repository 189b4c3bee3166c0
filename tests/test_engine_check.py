"""float32 is one identity on every engine: another one is checked by images in the package."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from factory import (
    category,
    make_category,
    make_fleet,
    make_package,
    score_without_cluster,
    write_images,
)
from numpy.typing import NDArray

from model import backbone as backbones
from model.errors import CategoryFault
from model.precision import has_bfloat16
from pipeline.calibration import CalibrationConfig, fit
from pipeline.engine_check import EngineCheck, OtherScores, from_png, to_png
from pipeline.night.fleet.fleet import Champion
from pipeline.night.folder import NightFolder
from pipeline.night.results import read_night
from pipeline.night.scoring.detectors import Detectors
from pipeline.onboarding.finish import write_package
from pipeline.onboarding.health import NUM_ANOMALIES
from pipeline.onboarding.prepare import prepare
from pipeline.onboarding.small_defects import SIZES
from pipeline.package import CALIBRATION_FILE, Package, PackageError, package_digest
from pipeline.predictor import Predictor

NIGHT = "2026-03-12"
SPREAD = 2.0  # of the scores 0 and 4, half of each
CALIBRATION = fit([0.0, 4.0] * 10, CalibrationConfig(false_alarm_rate=0.1))
CHECK = EngineCheck(engine="PyTorch on cuda", scores=(1.0, 2.0, 3.0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_package(tmp_path / "package")
    return tmp_path / "package"


@pytest.fixture
def pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without OpenVINO."""
    monkeypatch.setattr(backbones, "for_one_image", lambda *_: None)


def change_check(folder: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Rewrite what the calibration file says of the check; None removes it."""
    content = json.loads((folder / CALIBRATION_FILE).read_text())
    change(content["engine_check"])
    (folder / CALIBRATION_FILE).write_text(json.dumps(content, sort_keys=True))


def shift(folder: Path, spreads: float) -> None:
    """Let the last stored score be so much higher than it is."""
    spread = np.std(Package.read(folder).reference.calibration.scores)

    def change(check: dict[str, object]) -> None:
        check["scores"][-1] += spreads * spread  # type: ignore[index]

    change_check(folder, change)


@pytest.mark.parametrize("apart", [0.0, 0.9e-3, -0.9e-3])
def test_scores_within_a_thousandth_of_the_spread_are_the_same(apart: float) -> None:
    scores = np.array([1, 2, 3 + apart * SPREAD], np.float32)
    CHECK.refuse_other_scores("OpenVINO on cpu", scores, CALIBRATION)


@pytest.mark.parametrize("apart", [1.1e-3, -1.1e-3, 0.5, float("nan"), float("inf")])
def test_one_score_further_apart_refuses_the_category(apart: float) -> None:
    scores = np.array([1, 2 + apart * SPREAD, 3], np.float32)
    with pytest.raises(OtherScores, match="its 3 stored good images otherwise") as caught:
        CHECK.refuse_other_scores("OpenVINO on cpu", scores, CALIBRATION)
    said = str(caught.value)
    assert isinstance(caught.value, CategoryFault)
    assert "\n" not in said
    assert "calibrated by PyTorch on cuda, and OpenVINO on cpu scores" in said
    assert f"{apart:.2g}".lstrip("-")[:3] in said
    assert "Score on PyTorch on cuda, or onboard the category again on OpenVINO on cpu" in said


def test_equal_calibration_scores_still_have_a_spread() -> None:
    calibration = fit([1.0] * 20, CalibrationConfig(false_alarm_rate=0.1))
    CHECK.refuse_other_scores("x", np.array([1, 2, 3], np.float32), calibration)
    with pytest.raises(OtherScores):
        CHECK.refuse_other_scores("x", np.array([1, 2, 3.01], np.float32), calibration)


@pytest.mark.parametrize("shape", [(1, 32, 32, 3), (8, 64, 96, 3), (3, 96, 32, 3)])
def test_images_are_read_as_they_were_written(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    check = EngineCheck(engine="x", scores=(0.0,) * shape[0])
    assert np.array_equal(from_png(to_png(images), check, shape[1:3]), images)
    assert EngineCheck.from_json(json.loads(json.dumps(check.to_json()))) == check


def test_an_onboarding_stores_eight_good_images_and_what_it_says_of_them(folder: Path) -> None:
    package = Package.read(folder)
    assert package.check_images is not None
    assert package.check_images.shape == (8, 64, 64, 3)
    assert len(np.unique(package.check_images, axis=0)) == 8
    check = package.reference.check
    assert check is not None
    assert check.engine == "OpenVINO on cpu"
    predictor = Predictor.load(str(folder))
    scores, _ = predictor.detector(torch.from_numpy(package.check_images))
    assert scores.tolist() == pytest.approx(list(check.scores), abs=1e-5)
    assert list(check.scores) == sorted(check.scores)  # from the least to the most unusual


def test_nothing_goes_through_the_backbone_for_it(folder: Path) -> None:
    record = Package.read(folder).record
    assert record.backbone_images == 40 + 6 + NUM_ANOMALIES + 9 * len(SIZES)  # and made ones


@pytest.mark.skipif(not has_bfloat16(torch.device("cpu")), reason="this processor has no bfloat16")
def test_bfloat16_is_an_identity_of_its_own_and_stores_none(tmp_path: Path) -> None:
    images = make_category(tmp_path / "steel", num_good=24, num_test=0)
    prepared = prepare(category(images, precision="bfloat16"))
    for _ in prepared.trainer.run():
        pass
    package = write_package(prepared, tmp_path / "package")
    assert (package.reference.check, package.check_images) == (None, None)
    assert not (tmp_path / "package/check.png").exists()


def test_another_engine_that_scores_the_same_is_welcome(folder: Path, pytorch: None) -> None:
    assert Predictor.load(str(folder)).detector.backbone.engine((64, 64)) == "PyTorch on cpu"


def test_a_category_without_images_to_read_is_checked_by_its_digest_alone(
    folder: Path, pytorch: None
) -> None:
    shift(folder, 1.0)
    with pytest.raises(OtherScores):
        Predictor.load(str(folder))
    (folder / "check.png").unlink()
    Predictor.load(str(folder))


def test_a_package_of_an_earlier_release_is_not_checked_and_keeps_its_digest(
    folder: Path, pytorch: None
) -> None:
    content = json.loads((folder / CALIBRATION_FILE).read_text())
    del content["engine_check"]
    (folder / CALIBRATION_FILE).write_text(json.dumps(content, sort_keys=True))
    (folder / "check.png").unlink()
    digest = package_digest(folder)
    package = Package.read(folder)
    Predictor.load(str(folder))
    package.write(folder, {})
    assert package_digest(folder) == digest


@pytest.mark.parametrize("spreads", [0.5, -0.002])
def test_another_engine_that_scores_otherwise_is_refused(
    folder: Path, spreads: float, pytorch: None
) -> None:
    shift(folder, spreads)
    with pytest.raises(OtherScores, match="calibrated by OpenVINO on cpu, and PyTorch on cpu"):
        Predictor.load(str(folder))


def test_the_same_engine_is_believed(folder: Path) -> None:
    shift(folder, 1.0)
    Predictor.load(str(folder))


@pytest.mark.parametrize("content", [b"", b"no picture", to_png(np.zeros((3, 32, 5, 3), np.uint8))])
def test_damaged_images_are_no_whole_package(folder: Path, content: bytes) -> None:
    (folder / "check.png").write_bytes(content)
    with pytest.raises(PackageError, match="no whole package"):
        Package.read(folder)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Categories whose images were fetched, in that order."""
    asked: list[str] = []
    load = Champion.load_check_images

    def noted(champion: Champion) -> NDArray[np.uint8] | None:
        asked.append(champion.category)
        return load(champion)

    monkeypatch.setattr(Champion, "load_check_images", noted)
    return asked


def test_a_night_of_the_same_engine_fetches_and_computes_nothing(
    packages: dict[str, Path], tmp_path: Path, fetched: list[str]
) -> None:
    detectors = Detectors(make_fleet(NightFolder(str(tmp_path), NIGHT), packages).champions)
    for name in packages:
        detectors.heads(name)
    assert fetched == []


def test_a_night_of_another_engine_checks_each_category_once(
    packages: dict[str, Path], tmp_path: Path, fetched: list[str], pytorch: None
) -> None:
    detectors = Detectors(make_fleet(NightFolder(str(tmp_path), NIGHT), packages).champions)
    for name in [*packages, *packages]:
        detectors.heads(name)
    assert fetched == list(packages)


def test_a_category_that_scores_otherwise_costs_its_own_images_a_score(
    packages: dict[str, Path], dump: Path, tmp_path: Path, pytorch: None
) -> None:
    changed = {name: tmp_path / name for name in packages}
    for seed, name in enumerate(changed):
        make_package(changed[name], seed=seed)
    (dump / "steel").rename(dump / "wood")
    write_images(dump / "steel", range(2))
    shift(changed["wood"], 0.1)
    folder = NightFolder(str(tmp_path / "out"), NIGHT)
    score_without_cluster(dump, folder, changed)
    rows = read_night(folder).to_pylist()
    status = {row["category"]: row["status"] for row in rows}
    assert status == {"steel": "ok", "wood": "broken_model"}
    (error,) = {row["error"] for row in rows if row["category"] == "wood"}
    assert "PyTorch on cpu scores its 8 stored good images otherwise" in error


def test_a_champion_of_an_earlier_release_has_the_file_that_it_had(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    champion = make_fleet(NightFolder(str(tmp_path), NIGHT), packages).champions["steel"]
    reference = dataclasses.replace(champion.reference, check=None)
    entry = dataclasses.replace(champion, reference=reference).to_json()
    assert "engine_check" not in entry
    assert Champion.from_json("steel", entry).reference.check is None
