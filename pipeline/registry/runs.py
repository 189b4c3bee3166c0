"""Runs: what a piece of work leaves in MLflow, in one run for its key.

An onboarding's parameters are its model's too: they are logged first, then the model, then what
came out of the work.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag

from pipeline import storage
from pipeline.registry.connection import experiment_id, mlflow_errors, pages
from pipeline.version import version

KEY_TAG, CATEGORY_TAG = "nightshift.key", "nightshift.category"
VERSION_TAG = "nightshift.version"  # of the program that began the run
DIGEST_TAG, ERROR_TAG = "nightshift.dataset_digest", "nightshift.error"
PARENT_TAG, CONTEXT_TAG = "mlflow.parentRunId", "mlflow.data.context"  # MLflow's own
SETTINGS_FILE = "settings.json"  # parameters are cut, it is whole
LONGEST_PARAM, LONGEST_TAG, LONGEST_DIGEST = 500, 5000, 36  # characters


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """A category's images, as MLflow names a data set; none of them is read for it."""

    digest: str  # over the contents of the good ones
    uri: str
    counts: Mapping[str, int]  # images of each part


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a piece of work leaves in MLflow."""

    experiment: str = ""  # suffix of its name
    name: str
    key: str  # equal for equal work
    category: str
    settings: Mapping[str, Any]  # may be nested; logged as parameters a.b.c
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Sequence[tuple[str, float, int]] = ()  # name, value, step
    files: Mapping[str, bytes] = field(default_factory=dict)  # artifacts by path
    images: ImageSet | None = None
    error: str | None = None  # why the work failed
    parent: str | None = None  # id of the run it is part of; such work has one run for its key


def log_run(record: RunRecord) -> str:
    """Log a run that is FINISHED, or FAILED with its error, whatever happens; return its id.

    Every call makes a run of its own, but for one that a killed process left RUNNING with the same
    key: that one is taken over, so that none stays behind.

    Raises:
        RegistryError: MLflow is away or refuses.
    """
    with mlflow_errors():
        client = MlflowClient()
        status = "" if record.parent else "RUNNING"
        run = find_or_create(client, record, status)
        status = "FAILED"
        try:
            log_settings(client, run, record)
            log_results(client, run, record)
            status = "FAILED" if record.error else "FINISHED"
        finally:
            client.set_terminated(run.info.run_id, status)
    return str(run.info.run_id)


def begin_run(record: RunRecord) -> str:
    """Return the id of the one run with the record's key, RUNNING until ``log_run`` ends it.

    Raises:
        RegistryError: MLflow is away or refuses.
    """
    with mlflow_errors():
        client = MlflowClient()
        run_id = find_or_create(client, record).info.run_id
        client.update_run(run_id, "RUNNING")
    return str(run_id)


def ended_parts(experiment: str, parent: str) -> dict[str, str]:
    """Return the runs of a parent's work that have ended: id by key; ``experiment`` is a suffix.

    Raises:
        RegistryError: MLflow is away or refuses.
    """
    with mlflow_errors():
        client = MlflowClient()
        experiments = [experiment_id(client, experiment)]
        wanted = f"tags.`{PARENT_TAG}` = '{parent}' and attributes.status != 'RUNNING'"
        parts = pages(client.search_runs, experiment_ids=experiments, filter_string=wanted)
        return {run.data.tags.get(KEY_TAG, ""): run.info.run_id for run in parts}


def discard_run(run_id: str) -> None:
    """Delete a run.

    Raises:
        RegistryError: MLflow is away or refuses.
    """
    with mlflow_errors():
        MlflowClient().delete_run(run_id)


def find_run(client: MlflowClient, experiment: str, key: str, status: str = "") -> Run | None:
    """Return the run of a key in an experiment, if there is one."""
    wanted = f"tags.`{KEY_TAG}` = '{key}'"
    if status:
        wanted += f" and attributes.status = '{status}'"
    runs = client.search_runs([experiment], wanted, max_results=1)
    return runs[0] if runs else None


def find_or_create(client: MlflowClient, record: RunRecord, status: str = "") -> Run:
    """Return the run of a record's key, made on first use."""
    experiment = experiment_id(client, record.experiment)
    tags = {KEY_TAG: record.key, CATEGORY_TAG: record.category, VERSION_TAG: version()}
    if record.parent:
        tags[PARENT_TAG] = record.parent
    return find_run(client, experiment, record.key, status) or client.create_run(
        experiment, tags=tags, run_name=record.name
    )


def log_settings(client: MlflowClient, run: Run, record: RunRecord) -> None:
    """Log what the work was asked to do, and on which images."""
    params = [Param(name, str(value)[:LONGEST_PARAM]) for name, value in flat(record.settings)]
    tags = [RunTag(DIGEST_TAG, record.images.digest)] if record.images else []
    client.log_batch(run.info.run_id, params=params, tags=tags)  # in as many parts as it takes
    if record.images:
        client.log_inputs(run.info.run_id, [_data_set(record.category, record.images)])


def log_results(client: MlflowClient, run: Run, record: RunRecord, model_id: str = "") -> None:
    """Log what came out; the run's start is every metric's time, so twice is once.

    The metrics, not the curves, are the model's too, so that MLflow shows models side by side.
    """
    run_id, when = run.info.run_id, run.info.start_time
    model = {"model_id": model_id, "run_id": run_id} if model_id else {}
    metrics = [Metric(name, value, when, 0, **model) for name, value in record.metrics.items()]
    metrics += [Metric(name, value, when, step) for name, value, step in record.curves]
    tags = [RunTag(ERROR_TAG, record.error[:LONGEST_TAG])] if record.error else []
    client.log_batch(run_id, metrics=metrics, tags=tags)
    settings = json.dumps(record.settings, indent=1).encode()
    with tempfile.TemporaryDirectory(prefix="nightshift-run-") as folder:
        for name, content in {SETTINGS_FILE: settings, **record.files}.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        client.log_artifacts(run_id, folder)


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested settings one by one, by their dotted names."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _data_set(category: str, images: ImageSet) -> DatasetInput:
    data_set = Dataset(
        name=category,
        digest=images.digest[:LONGEST_DIGEST],
        source_type="local" if storage.is_local(images.uri) else "s3",
        source=json.dumps({"uri": images.uri}),
        profile=json.dumps(dict(images.counts)),
    )
    return DatasetInput(data_set, [InputTag(CONTEXT_TAG, "training")])
