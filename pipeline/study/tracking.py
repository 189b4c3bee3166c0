"""A study in MLflow: one run for it, one child for each trial, whatever was killed in between."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.registry import tracking
from pipeline.registry.tracking import RunRecord
from pipeline.study.records import TrialRecord
from pipeline.study.settings import Study

STEPS = 100  # a rung's step is its share of the training, in percent


def begin(study: Study) -> str:
    """Return the id of the study's run, which is RUNNING from now on."""
    return tracking.begin_run(_of_study(study))


def log_trial(study: Study, parent: str, record: TrialRecord) -> None:
    """Log a trial that has ended; twice is once."""
    metrics = [("seconds", record.seconds, 0), ("rungs", float(len(record.rungs)), 0)]
    for rung in record.rungs:
        step = round(STEPS * rung["share"])
        metrics.append(("objective", rung["objective"], step))
        for name, found in rung["categories"].items():
            metrics += [(f"{name}/{metric}", value, step) for metric, value in found.items()]
    for name, curve in (record.rungs[-1]["curves"] if record.rungs else {}).items():
        metrics += [(f"{name}/loss", loss, number) for number, loss in enumerate(curve, start=1)]
    tracking.log_run(
        RunRecord(
            name=f"trial {record.trial}",
            key=trial_key(study, record.trial),
            category="",
            settings=record.configuration,
            metrics=metrics,
            error=record.error if record.status == "failed" else None,
            parent=parent,
        )
    )


def finish(
    study: Study,
    records: Sequence[TrialRecord],
    metrics: Sequence[tuple[str, float, int]],
    files: Mapping[str, bytes],
) -> str:
    """Log what the study came to; every trial has one run, and none is RUNNING any more."""
    parent = begin(study)
    ended = tracking.ended_parts(parent)
    for record in records:
        if ended.pop(trial_key(study, record.trial), None) is None:
            log_trial(study, parent, record)
    for unknown in ended.values():
        tracking.discard_run(unknown)
    return tracking.log_run(_of_study(study, metrics, files))


def trial_key(study: Study, trial: str) -> str:
    """Name a trial's run: the same for the same trial of the same study."""
    return f"{study.key}-{trial}"


def _of_study(
    study: Study,
    metrics: Sequence[tuple[str, float, int]] = (),
    files: Mapping[str, bytes] | None = None,
) -> RunRecord:
    settings: dict[str, Any] = study.settings.model_dump(mode="json", exclude={"space"})
    settings["space"] = {name: domain.to_json() for name, domain in study.space.items()}
    return RunRecord(
        name=f"study {study.name}",
        key=study.key,
        category=",".join(category.name for category in study.categories),
        settings=settings,
        metrics=metrics,
        files=files or {},
    )
