"""The search of a study: Ray Tune with Optuna's sampler and ASHA, every trial noted as it goes.

The state of Ray Tune is written after every event, so that a driver that is killed loses no more
than the trials in flight; those keep their names and are trained again when it goes on.
"""

import logging
import os
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

from jobs.cluster.join import Resources, reason
from jobs.study.tasks import TuneTrial
from jobs.terminal.progress import Display
from model.errors import NightshiftError, ServiceAway
from pipeline.study.records import StudyFolder, TrialRecord, TrialStatus
from pipeline.study.run import RUNGS, WORST, StudyContext
from pipeline.study.settings import Study
from pipeline.study.space import Domain, decode, label
from pipeline.study.tracking import log_trial

logger = logging.getLogger(__name__)

MAX_FAILURES = 2  # of a trial's process; then it is recorded as failed
NAME = "search"
TOLD = ("objective", "share", "categories", "curves", "errors")  # of a rung
DOMAINS: dict[str, Callable[..., Any]] = {
    "uniform": tune.uniform,
    "loguniform": tune.loguniform,
    "quniform": tune.quniform,
    "randint": tune.randint,
}
ENVIRONMENT = {
    "TUNE_GLOBAL_CHECKPOINT_S": "0",
    # Ray Tune's own files of every trial would take longer than some trials.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",  # the other one prints, however silent it is to be
}


@dataclass
class Recorder(tune.Callback):
    """Notes every trial's rungs, and logs it when it has ended; goes on where it was killed."""

    study: Study
    place: str
    parent: str  # MLflow run of the study

    def __post_init__(self) -> None:
        self.records: dict[str, TrialRecord] = {}
        self.display: Display | None = None
        self.num_ended = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leave the terminal out: Ray Tune keeps callbacks to restore them."""
        return self.__dict__ | {"display": None}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial begins, perhaps not for the first time."""
        self.records[trial.trial_id] = self._begun(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A rung is done."""
        record = self.records[trial.trial_id]
        told = {name: result[name] for name in TOLD}
        del record.rungs[result["training_iteration"] - 1 :]
        record.rungs.append(told)
        record.seconds = result["time_total_s"]
        record.error = "; ".join(sorted(set(told["errors"].values()))) or None
        self._folder.write_trial(record)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has trained to the end, or was stopped."""
        record = self.records[trial.trial_id]
        record.status = TrialStatus.COMPLETE if record.is_whole else TrialStatus.STOPPED
        if record.error and record.objective == WORST:  # in every category
            record = _failed(record, record.error)
        self._end(record)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial is to be tried again; while a service is away, when the study goes on.

        Raises:
            ServiceAway: what every trial needs.
        """
        _error_of(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process has died too often, perhaps before it could begin.

        Raises:
            ServiceAway: what it died of this time, which is not its own fault.
        """
        error = _error_of(trial)
        why = reason(error) if error else "its process ended without a word"
        self._end(_failed(self.records.get(trial.trial_id) or self._begun(trial), why))

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Say which trials there are."""
        self._folder.note(NAME, {"trials": [trial.trial_id for trial in trials]})

    def _begun(self, trial: Any) -> TrialRecord:
        configuration = decode(trial.config, self.study.space)
        return TrialRecord(trial=trial.trial_id, configuration=configuration)

    def _end(self, record: TrialRecord) -> None:
        self._folder.write_trial(record)
        log_trial(self.study, self.parent, record)
        self.num_ended += 1
        self.display = self.display or Display("tuning")
        self.display.update({"search": ("trials", self.num_ended, self.study.settings.trials)})

    @property
    def _folder(self) -> StudyFolder:
        return StudyFolder(self.place)


def _error_of(trial: Any) -> Exception | None:
    """Return what a trial died of, as Ray Tune has just noted it for this process.

    ``Trial.get_pickled_error`` reads the copy in the storage, which comes later, and half at first.

    Raises:
        ServiceAway: it died of that. What Ray Tune counted is not saved then: raised from a
            callback, this ends the search before its state is written.
    """
    noted = trial.pickled_error_file
    if noted is None or not Path(noted).exists():
        return None
    error: Exception = pickle.loads(Path(noted).read_bytes())  # noqa: S301  this process's own
    cause = getattr(error, "cause", None)
    if isinstance(cause, ServiceAway):
        raise cause
    return error


def _failed(record: TrialRecord, why: str) -> TrialRecord:
    record.status, record.error = TrialStatus.FAILED, why
    return record


def search(
    context: StudyContext, folder: StudyFolder, parent: str, resources: Resources
) -> list[TrialRecord]:
    """Run the trials that are left; return all there are, in the order they were begun."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    settings = context.study.settings
    started = time.monotonic()
    gpus = settings.gpus_per_trial if settings.gpus_per_trial and resources.gpus else resources.gpus
    trainable = tune.with_resources(
        tune.with_parameters(TuneTrial, context=context),
        {"cpu": max(1, int(resources.cpus * (gpus or 1))), "gpu": gpus},
    )
    space = {name: to_tune(domain) for name, domain in context.study.space.items()}
    path = folder.join(NAME)
    if tune.Tuner.can_restore(path):
        tuner = tune.Tuner.restore(path, trainable=trainable, param_space=space)
    else:
        recorder = Recorder(study=context.study, place=folder.uri, parent=parent)
        tuner = tune.Tuner(
            trainable,
            param_space=space,
            tune_config=_tune_config(context.study, _concurrency(context.study, resources, gpus)),
            run_config=tune.RunConfig(
                name=NAME,
                storage_path=folder.uri,
                stop={"training_iteration": len(RUNGS)},
                failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[recorder],
                verbose=0,
            ),
        )
    _fit(tuner)
    known = folder.trials()
    found = [known[trial] for trial in folder.noted(NAME)["trials"] if trial in known]
    logger.info("searched %d trials, %.1f s", len(found), time.monotonic() - started)
    return found


def _fit(tuner: tune.Tuner) -> None:
    """Run the trials; what the recorder raises comes out of Ray Tune as it was."""
    with _quiet():
        try:
            tuner.fit()
        except tune.TuneError as error:
            if isinstance(error.__context__, NightshiftError):
                raise error.__context__ from error
            raise


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what Ray Tune and Optuna say of every trial; what matters is in the records."""
    loggers = [logging.getLogger(name) for name in ("ray.tune", "optuna")]
    before = [each.level for each in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="optuna")  # a rung reported twice, after a kill
        for each in loggers:
            each.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for each, level in zip(loggers, before, strict=True):
                each.setLevel(level)


def to_tune(domain: Domain) -> Any:
    """Return a domain as Ray Tune's; a list among the values goes by its label."""
    if domain.kind == "grid":
        return tune.grid_search([label(value) for value in domain.arguments])
    if domain.kind == "choice":
        return tune.choice([label(value) for value in domain.arguments])
    return DOMAINS[domain.kind](*domain.arguments)


def _tune_config(study: Study, concurrency: int) -> tune.TuneConfig:
    """A grid is covered by Ray Tune's own generator: Optuna's sampler has no grids to fill."""
    settings, combinations = study.settings, study.num_combinations
    if combinations:
        searcher: Any = BasicVariantGenerator(
            max_concurrent=concurrency, random_state=settings.seed
        )
        num_samples = -(-settings.trials // combinations)
    else:
        searcher, num_samples = OptunaSearch(seed=settings.seed), settings.trials
    scheduler: Any = FIFOScheduler()
    if settings.early_stopping:
        scheduler = ASHAScheduler(max_t=len(RUNGS), grace_period=1, reduction_factor=2)
    return tune.TuneConfig(
        metric="objective",
        mode="max",
        search_alg=searcher,
        scheduler=scheduler,
        num_samples=num_samples,
        max_concurrent_trials=None if combinations else concurrency,
        reuse_actors=True,
    )


def _concurrency(study: Study, resources: Resources, gpus: float) -> int:
    """Return how many trials run at a time."""
    most = int(resources.num_jobs / gpus) if gpus else resources.num_jobs
    return min(study.settings.concurrency or most, max(most, 1))
