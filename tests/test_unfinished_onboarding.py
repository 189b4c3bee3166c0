"""What an onboarding under way stores, on the disk and on S3."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from pipeline import storage
from pipeline.onboarding.unfinished import STATE_FILE, UnfinishedOnboarding


@pytest.fixture(params=["disk", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> UnfinishedOnboarding:
    on_s3 = request.param == "s3"
    base = request.getfixturevalue("s3") if on_s3 else str(tmp_path)
    return UnfinishedOnboarding(f"{base}/runs/steel-1234")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    (folder / "examples").mkdir(parents=True)
    (folder / "head.safetensors").write_bytes(b"head")
    (folder / "examples/0.png").write_bytes(b"picture")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_the_last_state_is_what_is_gone_on_with(files: UnfinishedOnboarding) -> None:
    assert files.load() is None
    for passes in (1, 2):
        files.save({"passes": torch.arange(passes)})
    state = files.load()
    assert state is not None
    assert state["passes"].tolist() == [0, 1]
    assert not files.is_complete


def test_a_package_comes_back_as_it_was_and_ends_the_training(
    files: UnfinishedOnboarding, package: Path, tmp_path: Path
) -> None:
    files.save({"passes": 3})
    files.save_package(package)
    assert files.is_complete
    assert files.load() is None
    files.fetch_package(tmp_path / "fetched")
    assert content(tmp_path / "fetched") == content(package)


def test_half_a_package_is_no_package(files: UnfinishedOnboarding, package: Path) -> None:
    files.save({"passes": 3})
    name = storage.join(files.place, "package-1", "head.safetensors")
    storage.write_bytes(name, b"head")
    assert not files.is_complete
    assert files.load() == {"passes": 3}


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_state_is_none(
    files: UnfinishedOnboarding, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    files.save({"passes": torch.arange(1000)})
    path = storage.join(files.place, STATE_FILE)
    whole = storage.read_bytes(path)
    damaged = {"cut": whole[: len(whole) // 2], "empty": b"", "other": b"not a state"}[damage]
    storage.write_bytes(path, damaged)
    assert files.load() is None
    assert "begins again" in caplog.text


def test_nothing_is_left_after_it_was_registered(
    files: UnfinishedOnboarding, package: Path
) -> None:
    files.save_package(package)
    files.save({"passes": 3})
    files.remove()
    assert not files.is_complete
    assert files.load() is None
    assert not storage.exists(files.place)
    files.remove()  # nothing is there, and that is no error


def test_of_two_packages_the_first_complete_one_counts(
    files: UnfinishedOnboarding, package: Path, tmp_path: Path
) -> None:
    files.save_package(package)
    first = content(package)
    (package / "head.safetensors").write_bytes(b"another head")
    files.save_package(package)
    files.fetch_package(tmp_path / "fetched")
    assert content(tmp_path / "fetched") == first
    stored = [item.uri for item in storage.list_objects(files.place)]
    assert len(stored) == len(first) + 1


def test_one_of_many_registers_it(files: UnfinishedOnboarding) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: files.claim(), range(8))) == 1
