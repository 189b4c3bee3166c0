"""`make up` and `make down`: real servers on this machine, and nothing else is touched."""

import json
import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[1]
SERVERS = ("object-store", "postgres", "mlflow", "ray-head", "ray-worker")
SECRETS = (
    *("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "RAY_AUTH_TOKEN"),
    *("postgres_password", "mlflow_session_key"),
)


def laptop(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infra.laptop", command],
        cwd=ROOT,
        env={**os.environ, "NIGHTSHIFT_LAPTOP": str(folder), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def status(folder: Path) -> dict[str, str]:
    lines = laptop(folder, "status").stdout.splitlines()
    return {line.split()[0]: line.split(maxsplit=1)[1].strip() for line in lines}


def environment(folder: Path) -> dict[str, str]:
    """What a shell has after it read the file."""
    lines = (folder / "environment").read_text().splitlines()
    words = [shlex.split(line)[1] for line in lines]
    return dict(word.split("=", 1) for word in words)


def content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process has ended
        return b""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All servers, started once."""
    place = tmp_path_factory.mktemp("laptop")
    done = laptop(place, "up")
    try:
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"source {place / 'environment'}\n"
        yield place
    finally:
        laptop(place, "down")


def test_all_servers_run_and_a_second_up_leaves_them_alone(folder: Path) -> None:
    before = status(folder)
    assert set(before) == set(SERVERS)
    without = {"postgres"} if "SQLite" in laptop(folder, "up").stderr else set()
    assert {name for name, said in before.items() if said == "does not run"} == without
    assert status(folder) == before


@pytest.mark.slow  # shorter: the doctor at a cluster with a token, and `up` waits for each server
def test_a_shell_that_reads_the_environment_passes_the_doctor(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "doctor", "--out", "s3://results", "--json"],
        cwd=folder,
        env={**os.environ, **environment(folder), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    failed = [c for c in json.loads(done.stdout)["checks"] if c["verdict"] == "FAIL"]
    assert (failed, done.returncode) == ([], 0)


def test_credentials_are_in_two_private_files_and_nowhere_else(folder: Path) -> None:
    known = environment(folder) | json.loads((folder / "settings.json").read_text())
    hidden = [str(known[name]).encode() for name in SECRETS]
    for name in ("environment", "settings.json"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    texts = [path.read_bytes() for path in (folder / "logs").iterdir()]
    texts += [content(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert len(texts) > len(SERVERS)
    assert not any(word in text for text in texts for word in hidden)


def test_down_ends_its_own_servers_and_no_process_that_got_one_of_their_pids(folder: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    try:
        note = {"pid": stranger.pid, "birth": "1"}
        ours = json.loads((folder / "pids/ray-worker.json").read_text())
        laptop(folder, "down")
        (folder / "pids/ray-worker.json").write_text(json.dumps(note))
        laptop(folder, "down")
        assert set(status(folder).values()) == {"does not run"}
        assert not Path(f"/proc/{ours['pid']}").exists()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait(10)
