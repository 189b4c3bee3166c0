"""The doctor at a real Ray cluster with token authentication."""

import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator

import pytest
import ray

from jobs.cluster.probe import ask_cluster
from jobs.doctor.doctor import check_ray
from jobs.local.process import HOST, bound_to_this_process, free_ports, start, stop
from jobs.local.s3 import LocalS3
from pipeline.checks import Check, Verdict

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def head(s3_server: LocalS3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Settings for a cluster of one node that asks for a token; it knows the S3 server."""
    home = tmp_path_factory.mktemp("head")
    [port] = free_ports(1)
    environment = {
        **s3_server.environment(),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += [f"--port={port}", f"--node-ip-address={HOST}", "--num-cpus=1"]
    command += ["--min-worker-port=0", "--max-worker-port=0"]  # any: ours may be among the usual
    command += ["--include-dashboard=false", "--object-store-memory=100000000"]
    command += ["--disable-usage-stats"]
    bound = bound_to_this_process(command)
    process = start(bound, home, os.environ | environment, home / "server.log")
    deadline = time.monotonic() + 60
    try:
        while socket.socket().connect_ex((HOST, port)) != 0:
            assert process.poll() is None, (home / "server.log").read_text()
            assert time.monotonic() < deadline, "the cluster did not start"
            time.sleep(0.1)
        yield environment | {"RAY_ADDRESS": f"{HOST}:{port}"}
    finally:
        stop(process, 3)


@pytest.fixture
def address(head: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the cluster is; this process's environment leads to it."""
    for name, value in head.items():
        monkeypatch.setenv(name, value)
    return head["RAY_ADDRESS"]


def by_name(address: str, out: str | None = None) -> dict[str, Check]:
    return {check.name: check for check in check_ray(address, out)}


def test_every_node_says_what_it_runs_and_may(address: str, s3: str) -> None:
    found = by_name(address, s3)
    assert {check.verdict for check in found.values()} == {Verdict.PASS}
    assert f"Ray {ray.__version__}, 1 nodes, 1 CPUs, 0 GPUs" in found["ray"].finding
    [node] = [name for name in found if name.startswith("node ") and "," not in name]
    rights = [name for name in found if name.startswith(f"{node}, out: ")]
    assert len(rights) == 5


def test_a_place_that_the_nodes_may_not_write_fails_for_each(address: str) -> None:
    found = by_name(address, "s3://no-such-bucket")
    assert found["ray"].verdict is Verdict.PASS
    [denied] = [check for name, check in found.items() if name.endswith("out: write")]
    assert denied.verdict is Verdict.FAIL


def test_a_wrong_token_is_a_finding_that_does_not_show_it(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = secrets.token_hex(32)
    monkeypatch.setenv("RAY_AUTH_TOKEN", wrong)
    [check] = check_ray(address, None)
    assert check.verdict is Verdict.FAIL
    assert wrong not in check.finding
    assert "token" in check.finding


def test_a_cluster_that_does_not_answer_in_time_is_given_up(address: str) -> None:
    [check] = check_ray(address, None, timeout_s=0.1)
    assert check.verdict is Verdict.FAIL
    assert "no answer within 0.1 s" in check.finding


def test_a_dead_address_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    [check] = check_ray("127.0.0.1:9", None)
    assert check.verdict is Verdict.FAIL
    assert "RAY_ADDRESS=127.0.0.1:9" in check.finding


def test_a_cluster_that_answers_is_joined(address: str) -> None:
    assert ask_cluster(address) == "joined"
