"""A study's folder: whose it is, what is kept, and what MLflow shows of it."""

import dataclasses
from pathlib import Path

import pytest
from mlflow import MlflowClient
from studied import load, make_study, record, repeat, write_study_catalogue

from pipeline.catalogue.zone_settings import ZoneSettings
from pipeline.registry import connection
from pipeline.registry.runs import PARENT_TAG
from pipeline.study import tracking
from pipeline.study.records import StudyError, StudyFolder, TrialStatus, repeat_name
from pipeline.study.settings import differences

A = {"sigma": 1.0, "layers": [2]}
# What is written of a category; a setting that is new belongs into ``LATER``, not here.
WRITTEN = """
anomalies backbone cache_disk_gb cache_gb calibration calibration_share contamination crop
detector embedding_kind exclude false_alarm_rate fdr fit group images layers layout max_images
max_pixels memory_bank pages patch_size pixel_range precision preset realnet resize training
weights
"""


def test_a_study_is_begun_once_and_resumed_as_often_as_wanted(tmp_path: Path) -> None:
    study, folder = make_study(tmp_path), StudyFolder(str(tmp_path / "first"))
    with pytest.raises(StudyError, match=r"no study first .* to resume"):
        folder.begin(study, resume=True)
    folder.begin(study, resume=False)
    with pytest.raises(StudyError, match="--resume goes on with it"):
        folder.begin(study, resume=False)
    folder.begin(study, resume=True)
    folder.begin(study, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_name_that_another_study_has_is_refused_with_the_difference(
    tmp_path: Path, resume: bool
) -> None:
    catalogue = write_study_catalogue(tmp_path)
    folder = StudyFolder(str(tmp_path / "first"))
    folder.begin(load(catalogue), resume=False)
    other = write_study_catalogue(tmp_path, space={"sigma": {"uniform": [1, 2]}})
    with pytest.raises(StudyError) as error:
        folder.begin(load(other, trials=9), resume=resume)
    assert 'space.layers: {"choice": [[2], [2, 3]]} -> (not there)' in str(error.value)
    assert 'space.sigma: {"loguniform": [0.2, 4.0]} -> {"uniform": [1, 2]}' in str(error.value)
    assert "study.trials: 3 -> 9" in str(error.value)


def test_a_study_that_was_begun_before_a_setting_was_there_is_the_same(tmp_path: Path) -> None:
    """A setting that came later counts where it is set."""
    study = make_study(tmp_path)
    whole = study.categories[0].model_dump(mode="json")
    names = {name.split(".")[1] for name in study.identity if name.startswith("steel.")}
    assert names == set(WRITTEN.split())
    assert study.identity["steel.layers"] == whole["layers"]
    for changes in ({"zones": ZoneSettings(size=(96, 96), min_area=9)}, {"region_rate": 0.2}):
        category = study.categories[0].model_copy(update=changes)
        other = dataclasses.replace(study, categories=[category])
        assert [line.split(":")[0] for line in differences(study.identity, other.identity)] == [
            f"steel.{name}" for name in changes
        ]
        assert other.at("here").key != study.at("here").key


def test_trials_and_repeats_come_back_as_they_were_written(tmp_path: Path) -> None:
    folder = StudyFolder(str(tmp_path / "first"))
    assert folder.trials() == {}
    first, second = record("a", A, {"steel": 0.5}), repeat(A, 0.25, 2)
    folder.write_trial(first)
    folder.write_trial(first)
    folder.write_repeat(second)
    assert folder.trials() == {"a": first}
    assert folder.repeats() == {repeat_name(A, "steel", 2): second}
    assert folder.noted("nothing") == {}


def test_mlflow_has_one_run_for_each_trial_however_often_it_is_logged(
    tmp_path: Path, tracking_uri: str
) -> None:
    study = make_study(tmp_path).at(str(tmp_path))
    client = MlflowClient()
    parent = tracking.begin(study)
    assert tracking.begin(study) == parent
    assert client.get_run(parent).info.status == "RUNNING"
    good, bad = record("a", A, {"steel": 0.5}), record("b", A, {"steel": 0.25}, rungs=1)
    bad.status, bad.error = TrialStatus.FAILED, "its process died"
    lost = record("lost", A, {"steel": 0.1})
    for each in (good, good, lost):
        tracking.log_trial(study, parent, each)
    tracking.finish(study, [good, bad], {"objective": 0.5}, {"study.json": b"{}"})

    runs = client.search_runs([connection.experiment_id(client, connection.STUDIES)])
    status = {run.info.run_name: run.info.status for run in runs}
    assert status == {"study first": "FINISHED", "trial a": "FINISHED", "trial b": "FAILED"}
    assert len(runs) == 3
    (trial,) = (run for run in runs if run.info.run_name == "trial a")
    assert trial.data.tags["mlflow.parentRunId"] == parent
    assert trial.data.params == {"sigma": "1.0", "layers": "[2]"}
    history = client.get_metric_history(trial.info.run_id, "steel/loss")
    assert [(entry.step, entry.value) for entry in history] == [(1, 0.9), (2, 0.5)]
    rungs = client.get_metric_history(trial.info.run_id, "objective")
    assert [entry.step for entry in rungs] == [25, 50, 100]
    files = [file.path for file in client.list_artifacts(parent)]
    assert files == ["settings.json", "study.json"]


def test_a_study_that_was_begun_among_onboardings_is_whole_in_the_studies_experiment(
    tmp_path: Path, tracking_uri: str
) -> None:
    """As earlier releases did: its runs lie in the experiment of onboardings."""
    study, client = make_study(tmp_path).at(str(tmp_path)), MlflowClient()
    tags = {"nightshift.work": study.key, "nightshift.category": "steel"}
    earlier = client.create_run(connection.experiment_id(client), tags=tags).info.run_id
    trials = [record(name, A, {"steel": 0.5}) for name in "ab"]
    parent = tracking.begin(study)
    assert parent != earlier
    tracking.log_trial(study, parent, trials[1])  # the first one ended before the upgrade
    tracking.finish(study, trials, {"objective": 0.5}, {})
    runs = client.search_runs([connection.experiment_id(client, connection.STUDIES)])
    status = {run.info.run_name: run.info.status for run in runs}
    assert status == dict.fromkeys(("study first", "trial a", "trial b"), "FINISHED")
    parents = {run.data.tags.get(PARENT_TAG) for run in runs} - {None}
    assert parents == {parent}


def test_studies_in_two_places_are_two(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    assert study.at("here").key == study.at("here").key != study.at("there").key
