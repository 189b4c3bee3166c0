"""What the doctor says of a machine: each finding has a verdict and a way to mend it."""

import importlib.metadata
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Run

from jobs.doctor.doctor import to_text
from jobs.doctor.nodes import check_resources, compare, source_digest
from pipeline.checks import Check, Verdict, failed, passed, warned, worst
from pipeline.doctor import machine

GB = 10**9


def raising(error: Exception) -> float:
    raise error


def test_the_worst_verdict_counts() -> None:
    good, fair, bad = passed("a", "."), warned("b", ".", "do"), failed("c", ".", "do")
    assert worst([]) is Verdict.PASS
    assert worst([good, fair, good]) is Verdict.WARN
    assert worst([bad, fair, good]) is Verdict.FAIL


@pytest.mark.parametrize(
    ("version", "verdict"),
    [((3, 11, 0), "PASS"), ((3, 14, 2), "PASS"), ((3, 10, 14), "FAIL"), ((2, 7, 18), "FAIL")],
)
def test_python_3_11_is_the_least(version: tuple[int, ...], verdict: str) -> None:
    assert machine.check_python(version).verdict == verdict


def test_packages_that_do_not_fit_are_named_with_both_versions() -> None:
    versions = {"torch": "2.13.0", "ray": "2.60.0"}

    def installed(name: str) -> str:
        try:
            return versions[name]
        except KeyError:
            raise importlib.metadata.PackageNotFoundError from None

    wanted = ["torch>=2.15,<2.16", "ray[train]>=2.60", "scipy>=1", "onnx; extra == 'export'"]
    check = machine.check_packages(lambda _: wanted, installed)
    assert check.verdict is Verdict.FAIL
    assert check.finding.split("; ") == [
        "torch 2.13.0 where <2.16,>=2.15 is needed",
        "scipy nothing where >=1 is needed",
    ]
    assert "constraints.txt" in check.advice
    fitting = machine.check_packages(lambda _: ["ray>=2.60", "onnx; extra == 'x'"], installed)
    assert fitting == passed("packages", "the 1 packages asked for, in fitting versions")


def test_a_checkout_that_is_not_installed_is_no_failure() -> None:
    def nothing(_: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError

    assert machine.check_packages(nothing, str).verdict is Verdict.WARN


def test_a_gpu_that_cannot_compute_fails_and_one_that_is_not_seen_warns() -> None:
    def check(has_device: bool, count: int, error: Exception | None = None) -> Check:
        def compute() -> float:
            return raising(error) if error else 2.0

        return machine.check_gpu(has_device=has_device, count=count, compute=compute)

    assert check(True, 2).verdict is Verdict.PASS
    assert check(False, 0).verdict is Verdict.PASS
    assert check(True, 0).verdict is Verdict.WARN
    broken = check(True, 1, RuntimeError("no kernel image is available\nfor execution"))
    assert broken.verdict is Verdict.FAIL
    assert broken.finding.endswith("cannot compute on it: no kernel image is available")


def test_a_torchvision_of_another_torch_is_one_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    [check] = machine.check_torch()
    assert (check.name, check.verdict) == ("torch", Verdict.FAIL)
    assert "torchvision" in check.finding


@pytest.mark.parametrize(
    ("gigabytes", "verdict"), [(32, "PASS"), (6, "PASS"), (5.9, "WARN"), (1.4, "FAIL")]
)
def test_memory_is_judged_by_what_a_worker_and_a_cache_take(gigabytes: float, verdict: str) -> None:
    assert machine.check_memory(int(gigabytes * GB)).verdict == verdict


def test_a_container_has_what_its_limit_leaves(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 16000000 kB\nMemAvailable:    8000000 kB\n")
    assert machine.available_memory(meminfo, tmp_path) == 8_192_000_000
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.available_memory(meminfo, tmp_path) == 8_192_000_000
    (tmp_path / "memory.max").write_text("4000\n")
    assert machine.available_memory(meminfo, tmp_path) == 3000
    (tmp_path / "memory.max").write_text("900\n")
    assert machine.available_memory(meminfo, tmp_path) == 0


def test_memory_is_found_without_proc(tmp_path: Path) -> None:
    assert machine.available_memory(tmp_path / "none", tmp_path) > GB


def test_the_temporary_folder_must_take_a_file(tmp_path: Path) -> None:
    check = machine.check_disk(tmp_path / "missing", lambda _: "ext4")
    assert check.verdict is Verdict.FAIL
    assert "TMPDIR" in check.advice


def test_a_temporary_folder_in_memory_is_a_warning(tmp_path: Path) -> None:
    check = machine.check_disk(tmp_path, lambda _: "tmpfs")
    assert check.verdict is not Verdict.PASS
    assert "TMPDIR" in check.advice


def test_a_full_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LEAST_DISK_GB", 1e9)
    check = machine.check_disk(tmp_path, lambda _: "ext4")
    assert check.verdict is Verdict.FAIL
    assert "free" in check.finding


def test_little_shared_memory_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.check_shared_memory(tmp_path / "none").verdict is Verdict.PASS
    monkeypatch.setattr(machine, "ENOUGH_SHARED_MEMORY_GB", 1e9)
    assert "--shm-size" in machine.check_shared_memory(tmp_path).advice


def test_a_folder_is_on_the_innermost_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    inner = tmp_path / "in"
    mounts.write_text(f"a / ext4 rw 0 0\nb {tmp_path} xfs rw 0 0\nc {inner} tmpfs rw 0 0\n")
    assert machine.mounted_as(inner / "x", mounts) == "tmpfs"
    assert machine.mounted_as(tmp_path / "inside", mounts) == "xfs"
    assert machine.mounted_as(Path("/other"), mounts) == "ext4"
    assert machine.mounted_as(inner, tmp_path / "none") == ""


def test_nodes_without_cpus_are_nothing_to_work_with() -> None:
    nodes = [{"Resources": {"CPU": 2.0, "GPU": 1.0}}, {"Resources": {}}]
    assert "2 nodes, 2 CPUs, 1 GPUs" in check_resources(nodes).finding
    assert check_resources(nodes[1:]).verdict is Verdict.FAIL


def test_a_node_of_another_version_fails_with_both() -> None:
    ours = {"Nightshift": "abc", "torch": "2.15.0"}
    assert compare("node 1", ours, dict(ours)).verdict is Verdict.PASS
    check = compare("node 1", ours, {"Nightshift": "abc", "torch": "2.14.0"})
    assert check.verdict is Verdict.FAIL
    assert check.finding == "torch 2.14.0 there, 2.15.0 here"


def test_code_is_named_by_its_content(tmp_path: Path) -> None:
    def write(root: Path, text: str) -> str:
        (root / "jobs").mkdir(parents=True, exist_ok=True)
        (root / "jobs/a.py").write_text(text)
        return source_digest(root)

    first = write(tmp_path / "one", "x = 1")
    assert write(tmp_path / "two", "x = 1") == first
    (tmp_path / "two/jobs/a.pyc").write_text("compiled")
    assert source_digest(tmp_path / "two") == first
    assert write(tmp_path / "two", "x = 2") != first


def test_advice_stands_below_what_it_mends() -> None:
    text = to_text([passed("disk", "fine"), failed("mlflow", "away", "Start it.")])
    assert text.splitlines() == ["PASS  disk    fine", "FAIL  mlflow  away", " " * 14 + "Start it."]


def names(answer: str) -> Iterator[tuple[str, str]]:
    for check in json.loads(answer)["checks"]:
        assert bool(check["advice"]) == (check["verdict"] != "PASS")
        yield check["name"], check["verdict"]


def test_a_healthy_laptop_ends_with_code_0(run: Run, tmp_path: Path) -> None:
    answer = run("doctor", "--out", "results", "--json")
    found = dict(names(answer.out))
    assert answer.code == 0
    assert json.loads(answer.out)["verdict"] in ("PASS", "WARN")
    needed = ("python", "torch", "mlflow", "weights of efficientnet_lite0", "ray", "disk")
    assert all(found[name] != "FAIL" for name in needed)
    rights = [name for name in found if name.startswith("out: ")]
    assert [found[name] for name in rights] == ["PASS"] * 5
    assert list((tmp_path / "results").rglob("*.*")) == []


def test_what_is_dead_ends_with_code_1_and_names_its_remedy(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://alice:s3cret-w0rd@127.0.0.1:9")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:s3cret-w0rd@127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret-w0rd")
    answer = run("doctor", "--out", "s3://results", "--json")
    found = dict(names(answer.out))
    assert answer.code == 1
    dead = ("mlflow", "clock", "out: write", "ray")
    assert [found[name] for name in dead] == ["FAIL"] * 4
    assert "out: read" not in found
    assert "s3cret" not in answer.out + answer.err
    assert answer.seconds < 60
