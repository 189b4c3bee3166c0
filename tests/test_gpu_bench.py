"""The GPU benchmark's own functions, small and on the CPU: what it would time is sound."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model.backbone import Backbone, BackboneConfig
from model.gpu_engine import filled_up
from model.precision import has_bfloat16
from tests.bench.gpu import Network, Setting, agreement, make_detector, make_images, throughput
from tests.bench.gpu import training as time_training
from tests.bench.gpu_ready import ready

CPU = torch.device("cpu")
SMALL = Setting(
    backbone="resnet18",
    side=64,
    batch=2,
    rounds=1,
    training_side=64,
    training_images=8,
    passes=1,
    image_passes=1,
)
needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(CPU), reason="no bfloat16 on this processor")


def test_the_network_that_is_timed_scores_as_the_detector_does() -> None:
    backbone = Backbone(BackboneConfig(name="resnet18", weights="random"))
    detector, images = make_detector(SMALL, backbone), make_images(3, 64)
    with torch.inference_mode():
        scores, maps = Network(detector, torch.float32)(images)
    expected, patch_scores = detector(images)
    torch.testing.assert_close(scores, expected, atol=2e-2, rtol=0)
    torch.testing.assert_close(maps, detector.maps(patch_scores), atol=2e-2, rtol=0)


@needs_bfloat16
def test_a_device_agrees_with_itself_and_every_figure_has_a_unit() -> None:
    for figure in agreement(SMALL, CPU):
        assert figure.value == 0
        assert figure.at_most
    speeds, times = list(throughput(SMALL, CPU)), list(time_training(SMALL, CPU))
    assert {figure.unit for figure in speeds} == {"images/s"}
    assert {figure.unit for figure in times} == {"s"}
    assert all(figure.value > 0 for figure in speeds + times)


@pytest.mark.skipif(torch.cuda.is_available(), reason="would measure for minutes")
def test_without_a_gpu_it_says_so_and_needs_torch_alone() -> None:
    script = (
        "import runpy, sys; runpy.run_module('tests.bench.gpu', run_name='__main__');"
        "assert not {'ray', 'mlflow', 'pandas', 'scipy', 'pipeline'} & set(sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert answer.stdout == "skipped: PyTorch sees no CUDA device on this machine\n"


def test_ready_pixels_are_scored_alike_for_one_category_and_for_many() -> None:
    found = {figure.name: figure for figure in ready(SMALL, CPU)}
    assert sum(figure.unit == "images/s" and figure.value > 0 for figure in found.values()) == 2
    assert [f.value for f in found.values() if f.unit == "spreads"] == [0, 0]


def test_a_batch_is_filled_up_with_its_first_image() -> None:
    images = make_images(3, 64)
    assert filled_up(images, 3) is images
    filled = filled_up(images, 5)
    assert torch.equal(filled[:3], images)
    assert torch.equal(filled[3], images[0])
    assert torch.equal(filled[4], images[0])
