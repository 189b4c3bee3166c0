"""The connection to MLflow: bounded waits, experiments, one-line errors without credentials."""

import http.client
import logging
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from sqlalchemy.exc import SQLAlchemyError

from model.errors import ServiceAway
from pipeline.registry import local_database

logger = logging.getLogger(__name__)
T = TypeVar("T")

EXPERIMENT = "nightshift"  # MLFLOW_EXPERIMENT_NAME gives another
# What is logged has experiments of its own, by these suffixes to that name.
ONBOARDINGS, EVALUATIONS, STUDIES = "", "-evaluations", "-studies"
INSPECTIONS = "-inspections"
EXPERIMENTS = (ONBOARDINGS, EVALUATIONS, STUDIES, INSPECTIONS)
ANSWER_TIMEOUT_S = 4  # for a connection, and again for the first answer
SET_UP_TIMEOUT_S = 20  # for the experiments; MLflow alone would try a dead database for 100 s
# For the tables of a local file: 3 s on a local disk, and what is cut off may never be mended.
MIGRATION_TIMEOUT_S = 1800
PATIENCE_S = 10  # after which a line says what takes so long
DEFAULT_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
# MLflow's own would take minutes.
CLIENT_SETTINGS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
PAGE = 1000  # entries that a listing asks for at a time


class RegistryError(ServiceAway):
    """The MLflow server is away, or refuses what it was asked."""


class RegistryUnfit(RegistryError):
    """MLflow answers, but what it holds has to be mended first; the message says how."""


def connect(*log_to: str) -> str:
    """Check that MLflow answers and can be logged to; return its address without credentials.

    A new SQLite file is set up here, by one process, which may take longer on a slow disk.

    Args:
        log_to: suffixes of the experiments that will be logged to; they are made on first use.

    Raises:
        RegistryUnfit: its file is set up halfway or was moved, or an experiment is deleted.
        RegistryError: it does not answer within 30 seconds, or refuses.
    """
    for name, value in CLIENT_SETTINGS.items():
        os.environ.setdefault(name, value)
    uri = mlflow.get_tracking_uri()
    try:
        _probe_tcp(uri)
        with mlflow_errors():
            _open(local_database.database_file(uri), log_to)
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


def _open(file: Path | None, log_to: Sequence[str]) -> None:
    """Look at our experiments; before that MLflow may have to set up the local file it uses."""
    is_ready = file is None or local_database.is_up_to_date(file)
    try:
        _within(
            SET_UP_TIMEOUT_S if is_ready else MIGRATION_TIMEOUT_S,
            lambda: _look_at_experiments(file, log_to),
        )
    except (MlflowException, SQLAlchemyError) as error:
        if file is not None and (fault := local_database.cut_off(file, error)):
            raise RegistryUnfit(fault) from None
        raise


def _look_at_experiments(file: Path | None, log_to: Sequence[str]) -> None:
    if file is not None and not file.exists():
        local_database.make(file)
    client = MlflowClient()
    for suffix in log_to:
        experiment_id(client, suffix)
    for suffix in EXPERIMENTS:
        experiment = client.get_experiment_by_name(_experiment_name(suffix))
        if file is not None and experiment is not None:
            name, place = experiment.name, experiment.artifact_location
            if fault := local_database.misplaced(file, name, place):
                raise RegistryUnfit(fault)


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
    thread.join(min(seconds, PATIENCE_S))
    if thread.is_alive() and seconds > SET_UP_TIMEOUT_S:
        logger.warning(
            "MLflow sets up the tables of %s, which takes minutes on a slow disk. Let it end: "
            "what is cut off may be lost.",
            _address(mlflow.get_tracking_uri()),
        )
    thread.join(max(0, seconds - PATIENCE_S))
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


def check_experiments() -> None:
    """See that each experiment can be logged to, if it is there; none is made.

    Raises:
        RegistryUnfit: one is deleted.
        RegistryError: MLflow is away or refuses.
    """
    with mlflow_errors():
        for suffix in EXPERIMENTS:
            find_experiment(MlflowClient(), suffix)


def experiment_id(client: MlflowClient, suffix: str = ONBOARDINGS) -> str:
    """Return the id of an experiment, made on first use.

    Raises:
        RegistryUnfit: it is deleted.
    """
    experiment = find_experiment(client, suffix)
    if experiment is not None:
        return str(experiment.experiment_id)
    file = local_database.database_file(mlflow.get_tracking_uri())
    place = None if file is None else str(local_database.artifact_folder(file))  # a server decides
    try:
        return str(client.create_experiment(_experiment_name(suffix), artifact_location=place))
    except MlflowException:  # another process was faster
        experiment = find_experiment(client, suffix)
        if experiment is None:
            raise
        return str(experiment.experiment_id)


def find_experiment(client: MlflowClient, suffix: str = ONBOARDINGS) -> Experiment | None:
    """Return an experiment if it is there; MLflow keeps deleted ones and their names.

    Raises:
        RegistryUnfit: it is deleted.
    """
    experiment = client.get_experiment_by_name(_experiment_name(suffix))
    if experiment is not None and experiment.lifecycle_stage == LifecycleStage.DELETED:
        number = experiment.experiment_id
        raise RegistryUnfit(
            f"the MLflow experiment {experiment.name} (id {number}) is deleted, and nothing can be "
            f"logged to it. Restore it (mlflow experiments restore -x {number}), or set "
            f"MLFLOW_EXPERIMENT_NAME to another name."
        )
    return experiment


def _experiment_name(suffix: str) -> str:
    return os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT) + suffix


def pages(search: Callable[..., Any], **query: Any) -> Iterator[Any]:
    """Yield all that a paged listing has."""
    query = {"max_results": PAGE, **query}
    page = search(**query)
    yield from page
    while page.token:
        page = search(**query, page_token=page.token)
        yield from page


def if_there(ask: Callable[[], T]) -> T | None:
    """Return what MLflow answers; None where there is no such model or version."""
    try:
        return ask()
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        return None


@contextmanager
def mlflow_errors() -> Iterator[None]:
    """Turn what MLflow and its database raise into one line an operator can act on."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        raise RegistryError(
            f"MLflow refused: {_without_secrets(error)}. Check the server and MLFLOW_TRACKING_URI."
        ) from None
