"""The connection to MLflow: bounded waits, experiments, one-line errors without credentials."""

import http.client
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from model.errors import ServiceAway

EXPERIMENT = "nightshift"  # of onboardings; MLFLOW_EXPERIMENT_NAME gives another
EVALUATIONS, STUDIES = "-evaluations", "-studies"  # suffixes: experiments of their own
ANSWER_TIMEOUT_S = 4  # for a connection, and again for the first answer
SET_UP_TIMEOUT_S = 20  # for the experiment; MLflow alone would try a dead database for 100 s
DEFAULT_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
# MLflow's own would take minutes.
CLIENT_SETTINGS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
PAGE = 1000  # entries that a listing asks for at a time


class RegistryError(ServiceAway):
    """The MLflow server is away, or refuses what it was asked."""


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


def experiment_id(client: MlflowClient, suffix: str = "") -> str:
    """Return the id of an experiment, made on first use."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT) + suffix
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


def pages(search: Callable[..., Any], **query: Any) -> Iterator[Any]:
    """Yield all that a paged listing has."""
    query = {"max_results": PAGE, **query}
    page = search(**query)
    yield from page
    while page.token:
        page = search(**query, page_token=page.token)
        yield from page


@contextmanager
def mlflow_errors() -> Iterator[None]:
    """Turn what MLflow and its database raise into one line an operator can act on."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        raise RegistryError(
            f"MLflow refused: {_without_secrets(error)}. Check the server and MLFLOW_TRACKING_URI."
        ) from None
