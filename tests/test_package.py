"""A category's package: what is written is read again, and nothing that is damaged is believed."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from factory import make_package
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.errors import NightshiftError
from pipeline.calibration import CalibrationConfig, fit
from pipeline.images.image_statistics import STATISTICS
from pipeline.package import (
    DECIDING_FILES,
    MapScale,
    Package,
    PackageError,
    PackageNotRead,
    package_digest,
)

FILES = ("head.safetensors", "calibration.json", "onboarding.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_package(tmp_path / "package")
    return tmp_path / "package"


def test_what_is_written_is_read_again(folder: Path, tmp_path: Path) -> None:
    package = Package.read(folder)
    examples = {"01-scratch": np.full((4, 8, 3), 7, np.uint8)}
    package.write(tmp_path / "copy", examples)
    copy = Package.read(tmp_path / "copy")
    assert copy.header == package.header
    assert (copy.reference, copy.record) == (package.reference, package.record)
    rule = package.reference.regions
    assert rule is not None
    assert (rule.rate, rule.num_images) == (0.1, package.record.counts["calibration"])
    first, second = package.heads.state_dict(), copy.heads.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name in DECIDING_FILES:
        assert (tmp_path / "copy" / name).read_bytes() == (folder / name).read_bytes()
    with Image.open(tmp_path / "copy/examples/01-scratch.png") as picture:
        assert np.array_equal(np.asarray(picture), examples["01-scratch"])


def test_an_onboarding_fills_every_part_of_its_record(folder: Path) -> None:
    record = Package.read(folder).record
    assert record.category == "steel"
    assert record.counts["train"] + record.counts["calibration"] == 40
    assert record.counts["test"] == 6
    assert record.settings["false_alarm_rate"] == 0.1
    assert [entry["head"] for entry in record.curve] == ["patch", "image"]
    assert set(record.timings_s) == {"embedding", "training", "calibration", "evaluation"}


def test_what_was_found_in_the_data_is_in_the_record(folder: Path) -> None:
    assert Package.read(folder).record.findings == ["defects: 3 scratch"]
    record = json.loads((folder / "onboarding.json").read_text())
    del record["findings"]  # as earlier releases wrote it
    (folder / "onboarding.json").write_text(json.dumps(record))
    assert Package.read(folder).record.findings == ()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]", b"\xff\xfe", b"{" * 50])
def test_a_missing_or_damaged_file_is_refused_with_what_to_do(
    folder: Path, name: str, content: bytes | None
) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(NightshiftError, match=r"(?s)package.*(needs|readable detector file)"):
        Package.read(folder)


@pytest.mark.parametrize("position", [0, 9, 300, -1])
def test_a_truncated_head_is_refused(folder: Path, position: int) -> None:
    content = (folder / "head.safetensors").read_bytes()
    (folder / "head.safetensors").write_bytes(content[:position])
    with pytest.raises(NightshiftError, match=r"head\.safetensors is not a readable detector fil"):
        Package.read(folder)


def test_a_threshold_that_was_edited_is_refused(folder: Path) -> None:
    path = folder / "calibration.json"
    data = json.loads(path.read_text())
    data["threshold"] = 1e9
    path.write_text(json.dumps(data))
    with pytest.raises(NightshiftError, match=r"threshold .* is not the one of its"):
        Package.read(folder)


def test_a_package_of_an_earlier_release_has_no_statistics(folder: Path) -> None:
    path = folder / "calibration.json"
    data = json.loads(path.read_text())
    assert set(data.pop("image_statistics")) == set(STATISTICS)
    del data["fdr"]
    path.write_text(json.dumps(data))
    package = Package.read(folder)
    assert (package.reference.statistics, package.reference.calibration.fdr) == ({}, 0.1)


@pytest.mark.parametrize(
    "wrong", [{"calibration_scores": ["low"]}, {"image_statistics": {"brightness": ["dark"]}}]
)
def test_calibration_values_that_are_no_numbers_are_refused(
    folder: Path, wrong: dict[str, object]
) -> None:
    path = folder / "calibration.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    with pytest.raises(PackageError, match="package is no whole package"):
        Package.read(folder)


def test_the_digest_is_of_what_decides_and_of_nothing_else(folder: Path, tmp_path: Path) -> None:
    package = Package.read(folder)
    digest = package_digest(folder)
    assert len(digest) == 64

    def digest_of(name: str, **changes: object) -> str:
        dataclasses.replace(package, **changes).write(tmp_path / name, {})
        return package_digest(tmp_path / name)

    record = dataclasses.replace(package.record, timings_s={}, metrics={"another": 1.0})
    assert digest_of("record", record=record) == digest
    scores = np.array(package.reference.calibration.scores) + 1.0
    rate = package.reference.calibration.false_alarm_rate
    threshold = fit(scores, CalibrationConfig(false_alarm_rate=rate))
    scale = MapScale(low=0.0, threshold=1.0)
    for name, change in (
        ("threshold", {"calibration": threshold}),
        ("scale", {"map_scale": scale}),
        ("regions", {"regions": None}),
    ):
        reference = dataclasses.replace(package.reference, **change)
        assert digest_of(name, reference=reference) != digest
    make_package(tmp_path / "other", seed=1)
    assert digest_of("head", heads=Package.read(tmp_path / "other").heads) != digest


def test_a_digest_of_half_a_package_is_refused(folder: Path) -> None:
    (folder / "calibration.json").unlink()
    with pytest.raises(PackageError, match=r"No such file.*calibration\.json"):
        package_digest(folder)


def test_a_file_that_the_system_does_not_read_is_not_called_damaged(folder: Path) -> None:
    path = folder / "calibration.json"
    path.unlink()
    path.symlink_to(path)  # a loop of links: as refused rights, but for root too
    for read in (package_digest, Package.read):
        with pytest.raises(PackageNotRead, match=r"could not be read.*Ask again"):
            read(folder)


def test_map_levels_at_the_median_the_threshold_and_beyond() -> None:
    scale = MapScale(low=1.0, threshold=3.0)
    levels = np.array([-5.0, 1.0, 2.0, 3.0, 11.0, 1e9], np.float32)
    # linear to 96 at the threshold; level 5 is 4 beyond it: 96 + 159 * 4 / 8 = 175.5, to even
    assert scale.to_grey(levels).tolist() == [0, 0, 48, 96, 176, 255]


@given(
    low=st.floats(-10, 10),
    span=st.floats(0, 10),
    levels=st.lists(st.floats(-100, 1000, width=32), min_size=2, max_size=20),
)
def test_more_anomalous_is_never_darker(low: float, span: float, levels: list[float]) -> None:
    scale = MapScale(low=low, threshold=low + span)
    grey = scale.to_grey(np.sort(np.array(levels, np.float32)))
    assert (np.diff(grey.astype(int)) >= 0).all()
