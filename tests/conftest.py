"""What every test may rely on: an environment of its own and a real S3 server."""

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs
import torch
from command_line import Run, runner
from factory import make_category, make_package, write_catalogue, write_images

from jobs.local.s3 import LocalS3

# A developer's own settings: with them a test could read or write their real data.
FOREIGN_PREFIXES = ("AWS_", "MLFLOW_", "RAY_ADDRESS", "NIGHTSHIFT_FEATURES")
BEHIND_RAY = 5  # niceness


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with Ray come first: they take longest, and wait more than they compute."""
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where Ray's tests run beside them, the others step back: they are done sooner anyway."""
    if "PYTEST_XDIST_WORKER" in os.environ and item.get_closest_marker("ray") is None:
        os.nice(max(0, BEHIND_RAY - os.nice(0)))


@pytest.fixture(autouse=True)
def as_many_threads_as_before() -> Iterator[None]:
    """Some tests choose a number of threads: what comes after them must not be slower for it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def foreign_settings_removed() -> Iterator[None]:
    """Session-wide, so that servers and clusters that tests share start without them too."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in list(os.environ):
            if name.startswith(FOREIGN_PREFIXES):
                monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 would be behind all that runs beside
        yield


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    """One server for the whole run: its environment is the same in every test."""
    with LocalS3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a fresh bucket; AWS_* of this process lead to its server."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    return s3_server.create_bucket(f"test-{uuid.uuid4().hex}")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow takes seconds to set a database up; every test gets a copy of this one."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def tracking_uri(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An MLflow of the test's own, which MLFLOW_TRACKING_URI leads to."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


@pytest.fixture
def run(
    tracking_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Runs a command in a folder and with an MLflow of its own."""
    monkeypatch.chdir(tmp_path)
    return runner(monkeypatch, capsys)


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Packages of two categories, for tests that only read them."""
    root = tmp_path_factory.mktemp("packages")
    for seed, name in enumerate(("steel", "wood")):
        make_package(root / name, seed=seed)
    return {name: root / name for name in ("steel", "wood")}


@pytest.fixture(scope="session")
def package(packages: dict[str, Path]) -> Path:
    """The package of steel."""
    return packages["steel"]


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """A catalogue of one category with too few images to train on."""
    images = make_category(tmp_path / "steel", num_good=2, num_test=0)
    return write_catalogue(tmp_path / "catalogue.yaml", {"steel": images})


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """Three images of that category."""
    write_images(tmp_path / "dump/steel", range(3))
    return tmp_path / "dump"
