"""The connection to MLflow: bounded waits, one experiment, one-line errors without credentials.

Also the run of a finished piece of work, which is logged in one go.
"""

import http.client
import os
import socket
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from model.errors import ServiceAway

EXPERIMENT = "nightshift"
WORK_TAG, WORK_CATEGORY_TAG, ERROR_TAG = (
    "nightshift.work",
    "nightshift.category",
    "nightshift.error",
)
PARENT_TAG = "mlflow.parentRunId"  # MLflow's own
RUNNING = " and attributes.status = 'RUNNING'"
BATCH_METRICS, BATCH_PARAMS = 1000, 100  # as many as a server takes at a time
LONGEST_PARAM, LONGEST_TAG = 500, 5000  # characters
ANSWER_TIMEOUT_S = 4  # for a connection, and again for the first answer
SET_UP_TIMEOUT_S = 20  # for the experiment; MLflow alone would try a dead database for 100 s
DEFAULT_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
# MLflow's own would take minutes.
CLIENT_SETTINGS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}


class RegistryError(ServiceAway):
    """The MLflow server is away, or refuses what it was asked."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a finished piece of work leaves in MLflow."""

    name: str
    key: str  # equal for equal work
    category: str
    settings: Mapping[str, Any]  # may be nested; logged as parameters a.b.c
    metrics: Sequence[tuple[str, float, int]] = ()  # name, value, step
    files: Mapping[str, bytes] = field(default_factory=dict)  # artifacts by path
    error: str | None = None  # why the work failed
    parent: str | None = None  # id of the run it is part of; such work has one run for its key


def connect() -> str:
    """Check that the tracking server answers; return its address without credentials.

    Raises:
        RegistryError: it does not answer within 30 seconds, or refuses.
    """
    for name, value in CLIENT_SETTINGS.items():
        os.environ.setdefault(name, value)
    uri = mlflow.get_tracking_uri()
    try:
        _probe_tcp(uri)
        with mlflow_errors():  # a fresh SQLite file is set up here, by one process
            _within(SET_UP_TIMEOUT_S, lambda: experiment_id(MlflowClient()))
    except (OSError, http.client.HTTPException) as error:
        raise RegistryError(
            f"the MLflow server {_address(uri)} does not answer ({_without_secrets(error)}). "
            f"Start it, or correct MLFLOW_TRACKING_URI."
        ) from None
    return _address(uri)


def _probe_tcp(uri: str) -> None:
    """See whether anybody answers at all, long before MLflow would give up."""
    try:
        parts = urlsplit(uri)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme.partition("+")[0])
    except ValueError:  # its message may quote a password
        raise RegistryError(
            "MLFLOW_TRACKING_URI is not an address; write http://host:port, "
            "postgresql+psycopg2://user:password@host/name or sqlite:///file.db, and "
            "percent-encode what is special in a password."
        ) from None
    if parts.hostname and port and parts.scheme != "file":
        socket.create_connection((parts.hostname, port), ANSWER_TIMEOUT_S).close()
    if parts.scheme in ("http", "https"):
        _ask_health(parts)


def _ask_health(parts: SplitResult) -> None:
    host = parts.netloc.rpartition("@")[2]
    url = f"{parts.scheme}://{host}{parts.path.rstrip('/')}/health"
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_TIMEOUT_S):  # noqa: S310  checked above
            pass
    except urllib.error.HTTPError as error:
        if error.code >= 500:  # anything else is an answer; what it is we shall see
            raise


def _within(seconds: float, action: Callable[[], object]) -> None:
    """Run an action that may hang; what hangs is left behind and ends with the process."""
    failed: list[Exception] = []

    def run() -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001  raised again below
            failed.append(error)

    thread = threading.Thread(target=run, name="mlflow-set-up", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise RegistryError(
            f"the MLflow server {_address(mlflow.get_tracking_uri())} gave no answer within "
            f"{seconds:g} s. Look after it, or correct MLFLOW_TRACKING_URI."
        )
    if failed:
        raise failed[0]


def _address(uri: str) -> str:
    """Return an address without what may be secret: user, password and options."""
    scheme, separator, rest = uri.partition("://")
    rest = rest.partition("?")[0]
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _without_secrets(error: Exception) -> str:
    """Return an error's first line without the credentials of the tracking address."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    netloc = urlsplit(mlflow.get_tracking_uri()).netloc
    login = netloc.rpartition("@")[0]
    password = login.partition(":")[2]
    for secret in filter(None, (f"{login}@" if login else "", password, unquote(password))):
        line = line.replace(secret, "")
    return line


def experiment_id(client: MlflowClient) -> str:
    """Return the id of the experiment all runs belong to, made on first use."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    try:
        return str(client.create_experiment(name, artifact_location=_artifact_location()))
    except MlflowException:  # another process was faster
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            raise
        return str(experiment.experiment_id)


def _artifact_location() -> str | None:
    """Keep artifacts beside a local SQLite file, wherever this is run from; a server decides."""
    scheme, _, path = mlflow.get_tracking_uri().partition(":///")
    return str(Path(path).resolve().parent / "mlartifacts") if scheme == "sqlite" else None


def log_run(record: RunRecord) -> str:
    """Log a run that is FINISHED, or FAILED with its error, whatever happens; return its id.

    Every call makes a run of its own, but for one that a killed process left RUNNING with the same
    key: that one is taken over, so that none stays behind.

    Raises:
        RegistryError: MLflow is away or refuses.
    """
    with mlflow_errors():
        client = MlflowClient()
        wanted = "" if record.parent else RUNNING
        run_id = _find_run(client, record.key, wanted) or _create_run(client, record)
        status = "FAILED"
        try:
            _fill(client, run_id, record)
            status = "FAILED" if record.error else "FINISHED"
        finally:
            client.set_terminated(run_id, status)
    return run_id


def begin_run(record: RunRecord) -> str:
    """Return the id of the one run with the record's key, RUNNING until ``log_run`` ends it.

    Raises:
        RegistryError: MLflow is away or refuses.
    """
    with mlflow_errors():
        client = MlflowClient()
        run_id = _find_run(client, record.key) or _create_run(client, record)
        client.update_run(run_id, "RUNNING")
    return run_id


def ended_parts(parent: str) -> dict[str, str]:
    """Return the runs of a parent's work that have ended: id by key.

    Raises:
        RegistryError: MLflow is away or refuses.
    """
    with mlflow_errors():
        parts = _all_runs(MlflowClient(), f"tags.`{PARENT_TAG}` = '{parent}'")
        return {
            run.data.tags.get(WORK_TAG, ""): run.info.run_id
            for run in parts
            if run.info.status != "RUNNING"
        }


def discard_run(run_id: str) -> None:
    """Delete a run.

    Raises:
        RegistryError: MLflow is away or refuses.
    """
    with mlflow_errors():
        MlflowClient().delete_run(run_id)


def _all_runs(client: MlflowClient, wanted: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment_id(client)], wanted, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _find_run(client: MlflowClient, key: str, wanted: str = "") -> str | None:
    runs = client.search_runs([experiment_id(client)], f"tags.`{WORK_TAG}` = '{key}'{wanted}")
    return str(runs[0].info.run_id) if runs else None


def _create_run(client: MlflowClient, record: RunRecord) -> str:
    tags = {WORK_TAG: record.key, WORK_CATEGORY_TAG: record.category}
    if record.parent:
        tags[PARENT_TAG] = record.parent
    run = client.create_run(experiment_id(client), tags=tags, run_name=record.name)
    return str(run.info.run_id)


def _fill(client: MlflowClient, run_id: str, record: RunRecord) -> None:
    """Log everything; the run's start is every metric's time, so twice is once."""
    when = client.get_run(run_id).info.start_time
    params = [Param(name, str(value)[:LONGEST_PARAM]) for name, value in flat(record.settings)]
    metrics = [Metric(name, value, when, step) for name, value, step in record.metrics]
    for start in range(0, len(params), BATCH_PARAMS):
        client.log_batch(run_id, params=params[start : start + BATCH_PARAMS])
    for start in range(0, len(metrics), BATCH_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH_METRICS])
    if record.error:
        client.set_tag(run_id, ERROR_TAG, record.error[:LONGEST_TAG])
    with tempfile.TemporaryDirectory(prefix="nightshift-run-") as folder:
        for name, content in record.files.items():
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


@contextmanager
def mlflow_errors() -> Iterator[None]:
    """Turn what MLflow and its database raise into one line an operator can act on."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        raise RegistryError(
            f"MLflow refused: {_without_secrets(error)}. Check the server and MLFLOW_TRACKING_URI."
        ) from None
