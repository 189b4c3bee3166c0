"""Commands that onboard the same category at the same time register it once."""

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
from pipeline.registry import connection, models
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
