"""What earlier releases left is read by this one, and says the same."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.detector import READABLE, load_detector
from pipeline.package import MapScale, Package

# Header and record as the release of November 2026 wrote them. Format 3 must be readable for good.
HEADER = (
    '{"backbone": "efficientnet_lite0", "backbone_digest": '
    '"f5fb4137a09a2140ddec517a94ab597eb8082cf5773800014a740bc13dad386e", "detector": "simplenet", '
    '"embedding": {"kind": "paper", "patch_size": 3}, "format_version": 3, "layers": [2, 3], '
    '"precision": "float32", "preprocessing": {"crop": 64, "fit": "stretch", "resize": 64}, '
    '"weights": null}'
)
SHAPES = {  # two members of a two-layer adaptor, and a head over images without one
    "patch.level0": (10, 40),
    "patch.level1": (10, 112),
    "patch.bias": (10,),
    "patch.middle": (2, 3, 5),
    "patch.middle_bias": (6,),
    "patch.output": (6,),
    "image.level0": (4, 40),
    "image.level1": (4, 112),
    "image.bias": (4,),
    "image.output": (4,),
}
SCALES = {"patch.offset": 0.5, "patch.spread": 2.0, "image.offset": -1.0, "image.spread": 4.0}
SCORES = [1.0107417106628418, 0.9920786619186401]
HIGHEST = [0.8451933860778809, 0.844451904296875]
LOWEST = [-1.0449742078781128, -1.0299015045166016]
MEMBERS = [[0.3379479646682739, 0.29404976963996887], [2.1486847400665283, 2.0819578170776367]]
CALIBRATION = {
    "calibration_scores": [-0.5, 0.0, 0.25, 0.5, 0.625, 0.75, 1.0, 1.5, 2.0],
    "false_alarm_rate": 0.1,
    "fdr": 0.1,
    "image_statistics": {"brightness": [137.5, 138.25]},
    "map_scale": {"low": -1.5, "threshold": 2.0},
    "threshold": 2.0,
}
RECORD = {
    "category": "steel",
    "settings": {"name": "steel", "training": {"kept": None, "members": 2}},
    "dataset_digest": "d2d8cf84",
    "counts": {"train": 31, "calibration": 9, "duplicate": 0, "unreadable": 0, "test": 6},
    "unreadable": [],
    "curve": [{"head": "patch", "loss": 1.25, "normal_beyond_margin": 0.5}],
    "metrics": {"threshold": 2.0},
    "timings_s": {"embedding": 3.5},
    "backbone_images": 94,
    "notes": [],
}


def wave(shape: tuple[int, ...], frequency: float) -> torch.Tensor:
    angles = frequency * torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return angles.sin().view(shape).float()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package of that release."""
    waves = {name: wave(shape, 0.1 + n) for n, (name, shape) in enumerate(SHAPES.items())}
    tensors = {name: value.half() if value.dim() > 1 else value for name, value in waves.items()}
    tensors |= {name: torch.tensor(value) for name, value in SCALES.items()}
    save_file(tensors, tmp_path / "head.safetensors", metadata={"nightshift": HEADER})
    (tmp_path / "calibration.json").write_text(json.dumps(CALIBRATION))
    (tmp_path / "onboarding.json").write_text(json.dumps(RECORD))
    return tmp_path


def test_a_detector_of_format_3_scores_as_it_did(folder: Path) -> None:
    header, heads = load_detector(folder / "head.safetensors")
    assert (header.channels, header.grid) == ((40, 112), (8, 8))
    assert header.preprocessing.fit == "stretch"
    levels = [wave((2, 40, 8, 8), 0.7).half(), wave((2, 112, 4, 4), 0.3).half()]
    scores, patch_scores = heads(levels)
    assert scores.tolist() == pytest.approx(SCORES, rel=1e-5)
    flat = patch_scores.flatten(1)
    assert flat.amax(1).tolist() == pytest.approx(HIGHEST, rel=1e-5)
    assert flat.amin(1).tolist() == pytest.approx(LOWEST, rel=1e-5)
    members = [member(levels)[0].tolist() for member in heads.split(2)]
    assert members == [pytest.approx(expected, rel=1e-5) for expected in MEMBERS]


def test_a_package_of_format_3_is_read_whole(folder: Path) -> None:
    package = Package.read(folder)
    reference = package.reference
    assert (reference.calibration.threshold, reference.calibration.fdr) == (2.0, 0.1)
    assert reference.map_scale == MapScale(low=-1.5, threshold=2.0)
    assert reference.statistics == {"brightness": (137.5, 138.25)}
    assert (package.record.counts["train"], package.record.backbone_images) == (31, 94)


def test_a_package_of_format_3_has_images_of_eight_bits_and_one_page(folder: Path) -> None:
    preprocessing = Package.read(folder).header.preprocessing
    assert (preprocessing.pixel_range, preprocessing.pages) == (None, "one")
    reference = Package.read(folder).reference
    assert reference.modes == ()  # nothing to compare a night with
    assert reference.regions is None
    assert "regions" not in reference.to_json()


def test_every_format_that_was_ever_readable_still_is() -> None:
    assert set(READABLE) >= {3}
