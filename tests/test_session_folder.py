"""A TMPDIR with a long name: the sockets of Ray fit all the same, and files lie where it says."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray._private.utils import validate_socket_filepath

from jobs.cluster import session_folder as module
from jobs.cluster.join import cluster
from jobs.cluster.probe import ClusterError
from jobs.cluster.session_folder import session_folder
from jobs.doctor.doctor import check_ray
from pipeline.checks import Verdict

# As Ray names it, by the latest process that Linux can have.
SOCKET = "session_2026-03-11_23-59-59_123456_4194304/sockets/plasma_store"


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name; pytest's own are long."""
    with tempfile.TemporaryDirectory(prefix="ns", dir="/tmp") as folder:
        yield Path(folder)


def named(parent: Path, num_bytes: int) -> Path:
    """A path of so many bytes."""
    return parent / ("x" * (num_bytes - len(os.fsencode(parent)) - 1))


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
@pytest.mark.parametrize(("num_bytes", "fits"), [(30, True), (39, True), (40, False), (46, False)])
def test_ray_keeps_its_own_folder_while_its_sockets_fit(
    variable: str, num_bytes: int, fits: bool, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = named(short, num_bytes)
    monkeypatch.setenv(variable, str(folder))
    with session_folder() as found:
        assert (found is None) == fits
        validate_socket_filepath(f"{found or folder / 'ray'}/{SOCKET}")
    if not fits:
        with pytest.raises(OSError, match="cannot exceed 107 bytes"):
            validate_socket_filepath(f"{folder}/ray/{SOCKET}")


def test_bytes_count_not_characters(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(short / ("é" * 15)))
    with session_folder() as found:
        assert found is not None


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_ray_works_below_a_long_folder_and_leaves_no_link_behind(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = named(short, 120)  # longer than a socket's path without anything below it
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(module, "SHORT_PLACES", (str(short / "none"), str(short)))
    with cluster(num_cpus=1):
        session = Path(ray.nodes()[0]["ObjectStoreSocketName"]).parents[1]
        told = ray.get(
            [ray.remote(os.getenv).remote(name) for name in ("TMPDIR", "OMP_WAIT_POLICY")]
        )
        assert told == [str(folder), "PASSIVE"]
        assert "OMP_WAIT_POLICY" not in os.environ  # for the workers alone
        assert session.resolve().parent == folder / "ray"
        assert len(list(short.glob("ns-*/ray"))) == 1
    assert list(short.glob("ns-*")) == []
    assert (folder / "ray" / session.name / "logs").is_dir()


def test_without_a_short_place_the_folder_is_named_before_ray_is_started(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = named(short, 61)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(module, "SHORT_PLACES", (str(short / "none"),))
    with pytest.raises(ClusterError) as caught, cluster():
        pass
    assert str(caught.value) == (
        f"the temporary folder {folder} has too long a name: Ray's sockets leave room for 39 bytes,"
        f" it has 61, and none of {short}/none can be written. Set TMPDIR to a folder with a "
        f"shorter name."
    )
    [check] = check_ray("", None)
    assert (check.verdict, check.finding) == (Verdict.FAIL, str(caught.value))
