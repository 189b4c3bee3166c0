"""The connection to MLflow: bounded waits, one experiment, one-line errors."""

import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from model.errors import NightshiftError

EXPERIMENT = "nightshift"
CONNECT_TIMEOUT_S = 10


class RegistryError(NightshiftError):
    """The MLflow server is away, or refuses what it was asked."""


def connect() -> str:
    """Check that the tracking server answers; return its address, credentials masked.

    Raises:
        RegistryError: it does not answer within 30 seconds.
    """
    for name, value in (("MAX_RETRIES", "2"), ("TIMEOUT", "15")):  # MLflow's own would take minutes
        os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)
    uri = mlflow.get_tracking_uri()
    parts = urlsplit(uri)
    shown = uri.replace(parts.netloc, parts.netloc.rpartition("@")[2])
    try:
        if parts.hostname and parts.scheme != "file":
            port = parts.port or {"https": 443, "postgresql": 5432, "mysql": 3306}.get(
                parts.scheme.partition("+")[0], 80
            )
            socket.create_connection((parts.hostname, port), CONNECT_TIMEOUT_S).close()
        if parts.scheme in ("http", "https"):
            _ask_health(uri)
    except OSError as error:
        raise RegistryError(
            f"the MLflow server {shown} does not answer ({error}). "
            f"Start it, or correct MLFLOW_TRACKING_URI."
        ) from error
    with clear_errors():
        experiment_id(MlflowClient())  # a fresh SQLite file is set up here, by one process
    return shown


def _ask_health(uri: str) -> None:
    request = urllib.request.Request(f"{uri.rstrip('/')}/health")  # noqa: S310  scheme is checked
    with urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT_S):  # noqa: S310
        pass


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


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn MLflow's exceptions into one line an operator can act on."""
    try:
        yield
    except (MlflowException, OSError) as error:
        line = str(error).strip().splitlines()[0][:300]
        raise RegistryError(
            f"MLflow refused: {line}. Check the server and MLFLOW_TRACKING_URI."
        ) from error
