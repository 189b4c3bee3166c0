"""The command line: answers on stdout, one line on stderr for what must be mended, exit codes."""

import importlib.metadata
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Run
from factory import write_catalogue

from jobs.cli.exit_codes import ExitCode
from jobs.cluster.probe import ClusterError, ask_cluster

NIGHT = "2026-03-12"
HEAVY = ("torch", "ray", "mlflow", "pyarrow", "s3fs", "pandas")
HELP = """\
import sys
from jobs.cli.app import main
sys.argv = ["nightshift", *sys.argv[1:]]
try:
    main()
finally:
    print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize("command", [[], ["onboard"], ["score"], ["report"], ["demo"]])
def test_help_is_fast_because_nothing_heavy_is_imported(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP.format(heavy=HEAVY), *command, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert "Usage: nightshift" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["unknown"],
        ["score", "dump"],
        ["onboard"],
        ["onboard", "c.yaml", "--wrong"],
        ["report", "x"],
    ],
)
def test_bad_usage_is_code_2_and_says_so_on_stderr(run: Run, arguments: list[str]) -> None:
    answer = run(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert "Usage: nightshift" in answer.err


def test_the_version_is_the_one_that_is_installed(run: Run) -> None:
    answer = run("--version")
    assert (answer.code, answer.out) == (
        0,
        f"nightshift {importlib.metadata.version('nightshift')}\n",
    )


def test_exit_codes_are_what_schedulers_were_told() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "DONE": 0,
        "MEND": 1,
        "USAGE": 2,
        "PARTLY": 3,
    }


@pytest.mark.parametrize("night", ["12.3.2026", "2026-02-30", "2026-3-1", "../x", ""])
@pytest.mark.parametrize("command", ["score", "report"])
def test_a_night_that_is_no_date_is_refused(run: Run, command: str, night: str) -> None:
    place = ["dump", "--out", "out"] if command == "score" else ["out"]
    assert "a night is named by its date" in run(command, *place, "--night", night).refusal()


def test_a_catalogue_that_is_not_there_is_refused(run: Run) -> None:
    assert "catalogue.yaml does not exist" in run("onboard", "catalogue.yaml").refusal()


def test_a_catalogue_with_faults_names_each_on_a_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("categories: [{name: A}]\ndefauls: {}\n")
    answer = run("onboard", "bad.yaml")
    assert (answer.code, answer.out) == (1, "")
    assert [line.split(": ")[-2] for line in answer.err.splitlines()] == [
        "defauls",
        "categories[0].images",
        "categories[0].name",
    ]


def test_only_an_unknown_category_is_refused(run: Run, catalogue: Path) -> None:
    answer = run("onboard", catalogue, "--only", "stel")
    assert "--only stel: no such category; did you mean `steel`?" in answer.refusal()


def test_a_dump_that_is_not_there_is_refused(run: Run) -> None:
    answer = run("score", "dump", "--out", "out", "--night", NIGHT)
    assert "dump does not exist" in answer.refusal()


def test_a_report_of_a_night_that_was_not_scored_is_refused(run: Run) -> None:
    assert NIGHT in run("report", "out", "--night", NIGHT).refusal()


@pytest.mark.parametrize("command", ["onboard", "score"])
def test_an_mlflow_server_that_is_away_is_one_line(
    run: Run, catalogue: Path, dump: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://alice:s3cret@127.0.0.1:9")
    arguments = {"onboard": [catalogue], "score": [dump, "--out", "out", "--night", NIGHT]}
    refusal = run(command, *arguments[command]).refusal()
    assert "the MLflow server http://127.0.0.1:9 does not answer" in refusal
    assert "s3cret" not in refusal


@pytest.mark.parametrize("place", ["images", "catalogue", "dump", "out", "report"])
def test_an_s3_server_that_is_away_is_one_line(
    run: Run, dump: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    images = {name: f"s3://factory/{name}" for name in ("steel", "wood", "cork")}
    far = write_catalogue(tmp_path / "far.yaml", images)
    night = ["--night", NIGHT]
    answer = run(
        *{
            "images": ["onboard", far],
            "catalogue": ["onboard", "s3://factory/catalogue.yaml"],
            "dump": ["score", "s3://factory/dump", "--out", "out", *night],
            "out": ["score", dump, "--out", "s3://factory/out", *night],
            "report": ["report", "s3://factory/out", *night],
        }[place]
    )
    assert "the S3 server http://127.0.0.1:9 does not answer" in answer.refusal()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "127.0.0.1:port"])
def test_a_ray_cluster_that_is_away_is_one_line(
    run: Run, catalogue: Path, dump: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    for command in (["onboard", catalogue], ["score", dump, "--out", "out", "--night", NIGHT]):
        assert f"RAY_ADDRESS={address}" in run(*command).refusal()


def test_something_that_is_not_ray_is_given_up_by_the_clock() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(
            ClusterError, match=rf"RAY_ADDRESS={address} \(no answer within 0.5 s\)"
        ):
            ask_cluster(address, timeout_s=0.5)


@pytest.mark.ray
def test_something_that_is_not_ray_is_given_up_within_seconds(
    run: Run, dump: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        refusal = run("score", dump, "--out", "out", "--night", NIGHT).refusal()
        assert f"no Ray cluster answers at RAY_ADDRESS={address} (something listens, but" in refusal


def test_a_whole_process_says_one_line_and_no_more(catalogue: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "onboard", str(catalogue)],
        cwd=tmp_path,
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:9"},  # MLflow: a fresh database in the folder
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    # On a slow disk, and beside other tests, a fresh database is announced to take its time.
    (said,) = [line for line in done.stderr.splitlines() if "MLflow sets up the tables" not in line]
    assert said.startswith("nightshift: no Ray cluster answers at RAY_ADDRESS=127.0.0.1:9")
