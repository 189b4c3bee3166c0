"""Experiments that somebody deleted: MLflow keeps their names, and logs nothing to them."""

import re
from pathlib import Path

import mlflow.experiments
import pytest
from click.testing import CliRunner
from command_line import Run
from mlflow import MlflowClient

from pipeline.checks import Verdict
from pipeline.doctor.services import check_mlflow
from pipeline.registry import connection
from pipeline.registry.connection import EVALUATIONS, ONBOARDINGS, STUDIES, RegistryUnfit
from pipeline.registry.runs import RunRecord, log_run


@pytest.mark.parametrize("suffix", ["", EVALUATIONS, STUDIES])
def test_a_deleted_experiment_is_found_before_the_work_and_restoring_it_helps(
    suffix: str, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient()
    number = connection.experiment_id(client, suffix)
    client.delete_experiment(number)
    said = (
        rf"the MLflow experiment nightshift{suffix} \(id {number}\) is deleted.*"
        rf"mlflow experiments restore -x {number}\b.*MLFLOW_EXPERIMENT_NAME"
    )
    with pytest.raises(RegistryUnfit, match=said):
        connection.connect(suffix)
    [check] = check_mlflow()
    assert check.verdict is Verdict.FAIL
    assert re.search(said, check.finding)
    with monkeypatch.context() as other:
        other.setenv("MLFLOW_EXPERIMENT_NAME", "another")
        connection.connect(suffix)
    done = CliRunner().invoke(mlflow.experiments.commands, ["restore", "-x", number])
    assert done.exit_code == 0, done.output
    connection.connect(suffix)


def test_an_experiment_that_is_deleted_meanwhile_is_named_as_well(tracking_uri: str) -> None:
    connection.connect(ONBOARDINGS)
    client = MlflowClient()
    client.delete_experiment(connection.experiment_id(client))
    with pytest.raises(RegistryUnfit, match="experiments restore -x"):
        log_run(RunRecord(name="run", key="key", category="steel", settings={}))


def test_commands_say_so_before_they_train(run: Run, catalogue: Path) -> None:
    client = MlflowClient()
    commands = {
        ONBOARDINGS: ["onboard", catalogue],
        EVALUATIONS: ["evaluate", catalogue],
        STUDIES: ["tune", catalogue, "--study", "lr", "--trials", "1"],
    }
    for suffix, command in commands.items():
        client.delete_experiment(connection.experiment_id(client, suffix))
        assert f"experiment nightshift{suffix} (id " in run(*command).refusal()


def test_what_logs_nothing_needs_no_experiment(tracking_uri: str) -> None:
    client = MlflowClient()
    client.delete_experiment(connection.experiment_id(client))
    connection.connect()
