"""Commands that onboard the same category at the same time register it once."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from factory import make_package
from mlflow import MlflowClient

from jobs.cluster.work_queue import Ended
from jobs.onboard import onboard as job
from jobs.onboard.onboard import OnboardingOptions, Outcome
from pipeline.catalogue.catalogue import load_catalogue
from pipeline.onboarding.key import identify
from pipeline.onboarding.unfinished import UnfinishedOnboarding
from pipeline.package import Package
from pipeline.registry import aliases, connection, models
from pipeline.registry.connection import RegistryError


@pytest.fixture
def todo(tracking_uri: str, catalogue: Path, tmp_path: Path) -> job._Todo:
    """A category whose package waits for being registered."""
    (steel,) = load_catalogue(str(catalogue))
    make_package(tmp_path / "package")
    place = str(tmp_path / "runs/steel")
    UnfinishedOnboarding(place).save_package(tmp_path / "package")
    connection.connect(connection.ONBOARDINGS)
    return job._Todo(category=steel, identity=identify(steel), place=place)


def take(todo: job._Todo) -> Outcome:
    return job._take(Ended(name="steel"), todo, OnboardingOptions(runs=todo.place))


def test_three_at_once_leave_one_version(todo: job._Todo) -> None:
    start = threading.Barrier(3)

    def register(_: int) -> Outcome:
        start.wait(30)
        return take(todo)

    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(register, range(3)))
    assert sorted(outcome.status for outcome in outcomes) == ["onboarded", *["unchanged"] * 2]
    assert {(outcome.version, outcome.is_champion) for outcome in outcomes} == {("1", True)}
    assert len(MlflowClient().search_model_versions()) == 1
    assert not Path(todo.place).exists()


def test_a_champion_that_has_learned_from_labels_stays_where_none_are_found(
    todo: job._Todo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Package.read(tmp_path / "package")
    assert take(todo).is_champion
    settings = {**package.record.settings, "labels": ["s3://results"]}
    learned = dataclasses.replace(
        package, record=dataclasses.replace(package.record, settings=settings)
    )
    learned.write(tmp_path / "learned", {})
    models.promote(models.register("steel", "another key", tmp_path / "learned"))
    asked: list[str] = []
    history = aliases.history
    monkeypatch.setattr(aliases, "history", lambda name: (asked.append(name), history(name))[1])
    outcome = take(todo)  # the catalogue is as it was before there were labels
    assert asked == ["steel"]  # once, however much is decided by it
    assert (outcome.status, outcome.version, outcome.is_champion) == ("unchanged", "1", False)
    assert outcome.findings is not None
    assert outcome.findings[0].startswith("labels: none are found, and the champion, version 2,")


def test_whoever_was_killed_while_it_registered_is_waited_for_a_while(
    todo: job._Todo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "REGISTERS_S", 0.2)
    monkeypatch.setattr(job, "ASK_EVERY_S", 0.05)
    assert UnfinishedOnboarding(todo.place).claim()
    assert take(todo).status == "onboarded"


def test_a_registry_that_fails_leaves_the_package_to_the_next_command(
    todo: job._Todo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RegistryError("MLflow is full")

    with monkeypatch.context() as patch:
        patch.setattr(models, "register", fail)
        outcome = take(todo)
    assert (outcome.status, outcome.error) == ("failed", "MLflow is full")
    assert take(todo).status == "onboarded"
