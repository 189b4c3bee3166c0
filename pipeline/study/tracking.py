"""A study in MLflow: one run for it, one child for each trial, whatever was killed in between."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.registry import runs
from pipeline.registry.connection import STUDIES
from pipeline.registry.runs import RunRecord
from pipeline.study.records import TrialRecord, TrialStatus
from pipeline.study.settings import Study

STEPS = 100  # a rung's step is its share of the training, in percent


def begin(study: Study) -> str:
    """Return the id of the study's run, which is RUNNING from now on.

    A study that was begun while studies shared the experiment of onboardings gets a new run:
    ``finish`` logs every trial that its folder holds, so that the new one is whole.
    """
    return runs.begin_run(_of_study(study))


def log_trial(study: Study, parent: str, record: TrialRecord) -> None:
    """Log a trial that has ended; twice is once."""
    curves = []
    for rung in record.rungs:
        step = round(STEPS * rung["share"])
        curves.append(("objective", rung["objective"], step))
        for name, metrics in rung["categories"].items():
            curves += [(f"{name}/{metric}", value, step) for metric, value in metrics.items()]
    for name, losses in (record.rungs[-1]["curves"] if record.rungs else {}).items():
        curves += [(f"{name}/loss", loss, number) for number, loss in enumerate(losses, start=1)]
    runs.log_run(
        RunRecord(
            experiment=STUDIES,
            name=f"trial {record.trial}",
            key=trial_key(study, record.trial),
            category="",
            settings=record.configuration,
            metrics={"seconds": record.seconds, "rungs": float(len(record.rungs))},
            curves=curves,
            error=record.error if record.status is TrialStatus.FAILED else None,
            parent=parent,
        )
    )


def finish(
    study: Study,
    records: Sequence[TrialRecord],
    metrics: Mapping[str, float],
    files: Mapping[str, bytes],
) -> str:
    """Log what the study came to; every trial has one run, and none is RUNNING any more."""
    parent = begin(study)
    ended = runs.ended_parts(STUDIES, parent)
    for record in records:
        if ended.pop(trial_key(study, record.trial), None) is None:
            log_trial(study, parent, record)
    for unknown in ended.values():
        runs.discard_run(unknown)
    return runs.log_run(_of_study(study, metrics, files))


def trial_key(study: Study, trial: str) -> str:
    """Name a trial's run: the same for the same trial of the same study."""
    return f"{study.key}-{trial}"


def _of_study(
    study: Study,
    metrics: Mapping[str, float] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> RunRecord:
    settings: dict[str, Any] = study.settings.model_dump(mode="json", exclude={"space"})
    settings["space"] = {name: domain.to_json() for name, domain in study.space.items()}
    return RunRecord(
        experiment=STUDIES,
        name=f"study {study.name}",
        key=study.key,
        category=",".join(category.name for category in study.categories),
        settings=settings,
        metrics=metrics or {},
        files=files or {},
    )
