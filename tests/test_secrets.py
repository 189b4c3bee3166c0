"""Secrets stay where they belong: an onboarding, a night and the doctor leave none anywhere."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs
from factory import make_category, make_package, write_catalogue, write_images

from jobs.local.s3 import LocalS3
from pipeline import storage
from pipeline.registry import models

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
ROLES = Path(__file__).resolve().parents[1] / "infra/rights/seaweedfs.json"
NIGHT = "2026-03-12"
COMMANDS = [
    ["onboard", "catalogue.yaml", "--json"],
    ["score", "s3://dump/", "--out", "s3://results", "--night", NIGHT, "--json"],
    ["doctor", "--out", "s3://results"],
]


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    """Knows one who may do what the jobs need, and no more."""
    rights = json.loads(ROLES.read_text())
    guests = {"jobs": rights["onboard"] + rights["night"]}
    with LocalS3(tmp_path_factory.mktemp("secrets"), guests) as running:
        for bucket in ("factory", "dump", "results", "runs"):
            running.create_bucket(bucket)
        yield running


def upload(server: LocalS3, folder: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as owner:
        for name, value in server.environment().items():
            owner.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        for path in folder.rglob("*.png"):
            storage.write_bytes(
                f"s3://{bucket}/{path.relative_to(folder).as_posix()}", path.read_bytes()
            )


def everything(root: Path, buckets: list[str]) -> Iterator[tuple[str, bytes]]:
    """Every file that was written, Ray's logs among them, and every object."""
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield str(path), path.read_bytes()
    for bucket in buckets:
        for item in storage.list_objects(f"s3://{bucket}"):
            yield item.uri, storage.read_bytes(item.uri)


def register(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an onboarding leaves, in no more than a second."""
    monkeypatch.chdir(folder)  # MLflow's artifacts lie beside its database
    make_package(folder / "package")
    models.promote(models.register("steel", "key", folder / "package"))


@pytest.mark.parametrize("onboards", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_no_secret_is_in_logs_parameters_results_or_the_report(
    server: LocalS3,
    empty_database: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    onboards: bool,
) -> None:
    make_category(tmp_path / "images/onboarding/steel", num_test=0)
    write_images(tmp_path / "night/steel", range(70_000, 70_004))
    upload(server, tmp_path / "images", "factory", monkeypatch)
    upload(server, tmp_path / "night", "dump", monkeypatch)
    write_catalogue(tmp_path / "catalogue.yaml", {"steel": "s3://factory/onboarding/steel"})
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    token = secrets.token_hex(32)
    environment = {
        **os.environ,
        **server.environment("jobs"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "NIGHTSHIFT_RUNS": "s3://runs",
        "NIGHTSHIFT_LOG": "DEBUG",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_TMPDIR": str(Path("/tmp", f"ns{os.getpid()}")),  # sockets' paths must be short
    }
    Path(environment["RAY_TMPDIR"]).mkdir()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    if not onboards:
        register(tmp_path, monkeypatch)
    for command in COMMANDS if onboards else COMMANDS[1:]:
        done = subprocess.run(
            [sys.executable, "-m", "jobs", *command],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(ROLES.parents[2])},
            capture_output=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        (tmp_path / f"{command[0]}.said").write_bytes(done.stdout + done.stderr)
    for name, value in server.environment().items():  # the jobs may not read their own report
        monkeypatch.setenv(name, value)
    hidden = [environment["AWS_SECRET_ACCESS_KEY"].encode(), token.encode()]
    places = [*everything(tmp_path, ["results", "runs"])]
    places += everything(Path(environment["RAY_TMPDIR"]), [])
    shutil.rmtree(environment["RAY_TMPDIR"], ignore_errors=True)
    assert len(places) > 30
    assert [name for name, content in places if any(word in content for word in hidden)] == []
