"""What an operator reads when MLflow is away, unwilling or misnamed: one line, soon, no secret."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from web_server import Quiet, serving

from pipeline.registry import connection
from pipeline.registry.connection import RegistryError

GIVE_UP_SOON = """\
from pipeline.registry import connection
connection.SET_UP_TIMEOUT_S = 1
try:
    connection.connect()
except connection.RegistryError as error:
    print(error)
"""
LOGIN = "alice:s3cret-w0rd"


class Refusing(Quiet):
    """Healthy, and forbids everything; quotes what it was asked."""

    def do_GET(self) -> None:
        is_health = self.path == "/health"
        self.send_response(200 if is_health else 403)
        self.end_headers()
        self.wfile.write(b"OK" if is_health else b"you may not")

    do_POST = do_GET


@pytest.fixture
def refusing_server() -> Iterator[str]:
    with serving(Refusing) as place:
        yield place


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Accepts, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def refusal(uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    started = time.monotonic()
    with pytest.raises(RegistryError, match="MLFLOW_TRACKING_URI") as caught:
        connection.connect()
    assert time.monotonic() - started < 25
    message = str(caught.value)
    assert "\n" not in message
    assert not any(word in message for word in ("alice", "s3cret-w0rd", "s3cret"))
    return message


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:9",
        f"http://{LOGIN}@127.0.0.1:9",
        f"https://{LOGIN}@127.0.0.1:9/prefix",
        f"postgresql+psycopg2://{LOGIN}@127.0.0.1:9/mlflow",
        "postgresql://127.0.0.1:9/mlflow?user=alice&password=s3cret-w0rd",
    ],
)
def test_a_closed_port_is_one_line_without_credentials(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = refusal(uri, monkeypatch)
    assert message.startswith("the MLflow server ")
    assert "127.0.0.1:9" in message
    assert "does not answer ([Errno 111] Connection refused)" in message


def test_a_server_that_never_answers_is_given_up(
    silent_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ANSWER_TIMEOUT_S", 0.5)
    assert "does not answer (timed out)" in refusal(f"http://{LOGIN}@{silent_server}", monkeypatch)


def test_a_database_that_cannot_be_opened_is_given_up_and_left_behind(tmp_path: Path) -> None:
    """It is a folder; MLflow would try for 100 s, and it locks out every other database."""
    (tmp_path / "mlflow.db").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", GIVE_UP_SOON],
        env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.startswith(
        f"the MLflow server sqlite:///{tmp_path}/mlflow.db gave no answer"
    )


def test_all_waits_fit_into_thirty_seconds() -> None:
    assert 2 * connection.ANSWER_TIMEOUT_S + connection.SET_UP_TIMEOUT_S < 30


def test_a_refusal_is_passed_on_without_credentials(
    refusing_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = refusal(f"http://{LOGIN}@{refusing_server}", monkeypatch)
    assert message.startswith("MLflow refused: ")
    assert "403" in message or "you may not" in message


@pytest.mark.parametrize(
    "uri", [f"http://{LOGIN}@127.0.0.1:port", "postgresql://alice:s3cret/w0rd@127.0.0.1/mlflow"]
)
def test_an_address_that_is_none_is_explained_and_not_repeated(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refusal(uri, monkeypatch).startswith("MLFLOW_TRACKING_URI is not an address; write")


def test_a_place_that_cannot_hold_a_database_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no database at all" * 100)
    assert "not a database" in refusal(f"sqlite:///{tmp_path}/file", monkeypatch)
    assert "Not a directory" in refusal(f"sqlite:///{tmp_path}/file/x/mlflow.db", monkeypatch)


def test_a_driver_that_is_not_installed_is_named(
    silent_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "mysql.nothing" in refusal(f"mysql+nothing://{LOGIN}@{silent_server}/m", monkeypatch)
