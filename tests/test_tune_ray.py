"""Studies on a real, small Ray cluster: killed and resumed, and with trials that die."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from command_line import Run
from mlflow import MlflowClient
from ray import cloudpickle
from ray_watch import wait_until
from studied import load, write_study_catalogue

from jobs.cluster.join import cluster
from jobs.study import search as searching
from jobs.study.tasks import TuneTrial
from jobs.study.tune import tune
from pipeline.catalogue.catalogue import load_catalogue
from pipeline.registry import connection
from pipeline.registry.runs import PARENT_TAG
from pipeline.study.records import StudyFolder

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

DRIVER = """\
import sys
from jobs.cli import app
sys.argv = ["nightshift", *sys.argv[1:]]
app.main()
"""


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    with cluster(num_cpus=2):
        yield


def studies_of(runs: list[Any]) -> tuple[list[Any], list[Any]]:
    """The runs of studies and those of trials."""
    parents = [run for run in runs if PARENT_TAG not in run.data.tags]
    return parents, [run for run in runs if run not in parents]


def all_runs() -> list[Any]:
    client = MlflowClient()
    return list(client.search_runs([connection.experiment_id(client, connection.STUDIES)]))


def kill_midway(arguments: list[str], folder: Path, least: int) -> int:
    """Run a study in a process of its own; kill it once so many of its trials have ended."""
    environment = {
        **os.environ,
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
        "RAY_AUTH_MODE": "token",
    }
    process = subprocess.Popen([sys.executable, "-c", DRIVER, *arguments], env=environment)
    ended: list[str] = []

    def half_done() -> bool:
        assert process.poll() is None, "the driver ended before it was killed"
        told = StudyFolder(str(folder)).trials() if folder.exists() else {}
        ended[:] = [name for name, record in told.items() if record.status != "running"]
        return len(ended) >= least

    try:
        wait_until(half_done)
    finally:
        process.kill()
        process.wait(60)
    return len(ended)


@pytest.mark.parametrize(
    ("names", "trials"),
    [(["steel"], 4), pytest.param(["steel", "brass"], 6, marks=pytest.mark.slow)],
)
def test_a_killed_study_resumes_with_no_trial_lost_and_none_twice(
    ray_cluster: None, run: Run, tmp_path: Path, names: list[str], trials: int
) -> None:
    catalogue = write_study_catalogue(tmp_path, names, trials=trials)
    folder = tmp_path / "out/first"
    arguments = ["tune", str(catalogue), "--study", "first", "--out", str(folder.parent)]
    before = kill_midway(arguments, folder, trials // 2)
    parents, children = studies_of(all_runs())
    assert [parent.info.status for parent in parents] == ["RUNNING"]
    assert len(children) <= before
    known = {name for name, r in StudyFolder(str(folder)).trials().items() if r.status != "running"}

    assert "--resume goes on with it" in run(*arguments).refusal()
    winners = tmp_path / "winners.yaml"
    answer = run(*arguments, "--resume", "--write-catalogue", winners, "--json")
    assert answer.code == 0
    found = json.loads(answer.out)
    tried = {trial["trial"] for trial in found["trials"]}
    assert len(tried) == len(found["trials"]) == trials
    assert known <= tried
    assert {trial["status"] for trial in found["trials"]} <= {"complete", "stopped"}
    parents, children = studies_of(all_runs())
    assert [parent.info.status for parent in parents] == ["FINISHED"]
    assert [child.info.status for child in children] == ["FINISHED"] * trials
    assert {child.data.tags[PARENT_TAG] for child in children} == {parents[0].info.run_id}
    assert found["cost"]["backbone_passes"] == found["cost"]["images"]
    assert len(found["cost"]["images"]) == 2 * len(names)  # each category, and its test images
    assert set(found["check"]) == set(names)
    steel = found["check"]["steel"]["best_over_default"]["image_auroc"]
    assert steel["difference"]["mean"] == pytest.approx(
        steel["best"]["mean"] - steel["default"]["mean"]
    )
    assert json.loads((folder / "study.json").read_text()) == found
    assert "Hyper-parameter study" in (folder / "study.html").read_text()
    assert [category.name for category in load_catalogue(str(winners))] == names
    assert not (folder / "heads").exists() or not list((folder / "heads").rglob("*.safetensors"))
    assert MlflowClient().search_registered_models() == []

    again = run(*arguments, "--resume")  # nothing is left to do, and nothing is done twice
    assert again.code == 0
    assert len(all_runs()) == trials + 1


class DyingTrial(TuneTrial):
    """Its process ends without a word where level 2 is alone."""

    def step(self) -> dict[str, Any]:
        if self.trial.configuration["layers"] == [2]:
            os._exit(1)
        return super().step()


def test_a_trial_whose_process_dies_is_retried_and_then_failed(
    ray_cluster: None,
    tracking_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(searching, "TuneTrial", DyingTrial)
    space = {"layers": {"grid": [[2], [2, 3]]}, "sigma": 1.0}
    few = tmp_path / "few"
    few.mkdir()
    catalogue = write_study_catalogue(tmp_path, ("steel", "few"), space=space, trials=2, seeds=1)
    done = tune(load(catalogue), str(tmp_path / "out"))
    assert list(done.errors) == ["few"]
    status = {str(t["configuration"]["layers"]): t["status"] for t in done.answer["trials"]}
    assert len(status) == 2  # every value of the grid
    assert status["[2]"] == "failed"
    assert set(status.values()) - {"failed"} <= {"complete", "stopped"}
    (failed,) = [t for t in done.answer["trials"] if t["status"] == "failed"]
    assert failed["error"]
    _, children = studies_of(all_runs())
    assert sorted(child.info.status for child in children) == ["FAILED", "FINISHED"]
