"""Numeric modes: what bfloat16 changes, who chooses it, and that it is never changed in silence."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from factory import category, make_category, texture

from model.backbone import Backbone, BackboneConfig
from model.precision import has_bfloat16
from pipeline.onboarding import precision_probe
from pipeline.onboarding.finish import write_package
from pipeline.onboarding.precision_probe import choose_precision, is_worthwhile
from pipeline.onboarding.prepare import PreparedCategory, make_detector, prepare
from pipeline.predictor import Predictor

CPU = torch.device("cpu")
LITE = BackboneConfig(name="efficientnet_lite0")
ULP = 2.0**-8  # relative distance of neighbouring bfloat16 numbers, at most twice that

needs_bfloat16 = pytest.mark.skipif(
    not has_bfloat16(CPU), reason="this processor has no bfloat16 products (AVX-512 needed)"
)


def images(*seeds: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([texture(seed)[16:80, 16:80] for seed in seeds]))


@pytest.fixture(scope="module")
def exact() -> Backbone:
    return Backbone(LITE)


@needs_bfloat16
def test_bfloat16_gives_nearly_the_same_features_in_float32(exact: Backbone) -> None:
    rounded = exact.in_precision("bfloat16")
    for found, wanted in zip(rounded(images(0, 1)), exact(images(0, 1)), strict=True):
        assert found.dtype == torch.float32
        difference = (found - wanted).norm() / wanted.norm()
        assert 0 < difference < 20 * ULP  # of some dozen layers, each of which rounds


@needs_bfloat16
def test_a_copy_in_another_precision_is_the_backbone_that_its_config_describes(
    exact: Backbone,
) -> None:
    copy = exact.in_precision("bfloat16")
    loaded = Backbone(dataclasses.replace(LITE, precision="bfloat16"))
    assert (copy.config, copy.digest) == (loaded.config, exact.digest)
    assert copy.config != exact.config
    for found, wanted in zip(copy(images(0)), loaded(images(0)), strict=True):
        assert torch.equal(found, wanted)
    assert exact(images(0))[0].dtype == torch.float32


def test_a_machine_without_bfloat16_chooses_float32_and_says_what_to_do_with_the_other() -> None:
    """oneDNN is told to do without AVX-512."""
    script = (
        "import torch; from model.backbone import Backbone, BackboneConfig;"
        "from model.precision import PrecisionError;"
        "from pipeline.onboarding.precision_probe import choose_precision;"
        "exact = Backbone(BackboneConfig(name='efficientnet_lite0'));"
        "images = torch.zeros(1, 64, 64, 3, dtype=torch.uint8);"
        "assert choose_precision(exact, (64, 64)) is exact and len(exact(images)) == 2\n"
        "try: exact.in_precision('bfloat16')(images)\n"
        "except PrecisionError as error: print(error)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "bfloat16, which this machine's cpu does not have" in answer.stdout
    assert "set `precision: float32` and onboard the category again" in answer.stdout


@pytest.mark.parametrize(
    ("exact_s", "rounded_s", "chosen"),
    [(2.0, 1.0, True), (1.21, 1.0, True), (1.19, 1.0, False), (1.0, 9.0, False)],
)
def test_bfloat16_is_chosen_where_it_is_a_fifth_faster(
    exact_s: float, rounded_s: float, chosen: bool
) -> None:
    assert is_worthwhile(exact_s, rounded_s) is chosen


@needs_bfloat16
def test_the_choice_looks_at_no_image_of_the_category(exact: Backbone) -> None:
    before = exact.num_images_seen
    assert choose_precision(exact, (64, 64)).num_images_seen == before


def trained(prepared: PreparedCategory) -> PreparedCategory:
    for _ in prepared.trainer.run():
        pass
    return prepared


@needs_bfloat16
def test_what_was_calibrated_in_bfloat16_scores_in_bfloat16(tmp_path: Path) -> None:
    folder = make_category(tmp_path / "steel", num_good=24, num_test=1)
    prepared = trained(prepare(category(folder, precision="bfloat16")))
    package = write_package(prepared, tmp_path / "package")
    assert package.header.precision == package.record.settings["precision"] == "bfloat16"
    predictor = Predictor.load(str(tmp_path / "package"))
    assert predictor.detector.backbone.config.precision == "bfloat16"
    files = sorted((folder / "train/good").iterdir())[:8]  # one batch, as in the onboarding
    found = predictor.predict([str(file) for file in files])["score"]
    detector = make_detector(prepared, prepared.trainer)
    expected, _ = detector.score_pooled(prepared.good.bank.images(torch.arange(8)))
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-3)


@needs_bfloat16
def test_auto_is_recorded_as_what_it_came_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"float32": 3.0, "bfloat16": 1.0}
    monkeypatch.setattr(precision_probe, "_seconds", lambda one, _: seconds[one.config.precision])
    folder = make_category(tmp_path / "steel", num_good=24, num_test=0)
    package = write_package(
        trained(prepare(category(folder, precision="auto"))), tmp_path / "package"
    )
    assert package.record.settings["precision"] == package.header.precision == "bfloat16"
