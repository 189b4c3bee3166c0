"""What an operator reads when an S3 server is away, unwilling or misnamed."""

import os
import socket
import time
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.storage import AccessDenied, ObjectMissing, StorageAway, StorageError
from pipeline.storage import s3 as s3_backend


def test_a_missing_bucket_is_named(s3: str) -> None:
    with pytest.raises(ObjectMissing, match=r"bucket 'no-such-bucket' does not exist on .*127"):
        list(storage.list_objects("s3://no-such-bucket/prefix"))
    with pytest.raises(ObjectMissing, match="no-such-bucket"):
        storage.read_bytes("s3://no-such-bucket/key")
    assert not storage.exists("s3://no-such-bucket/key")


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_denied_and_never_shown(
    s3: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    secrets = [os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]]
    monkeypatch.setenv(variable, "wrong-one")
    for action in (storage.read_bytes, storage.list_names, storage.exists):
        with pytest.raises(AccessDenied, match=r"403.* check the AWS_\* credentials") as caught:
            action(f"{s3}/any")
        assert not any(secret in str(caught.value) for secret in [*secrets, "wrong-one"])


@pytest.fixture
def strange_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Credentials for a server that the test chooses, and no others."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-word")
    return monkeypatch


def test_a_dead_server_is_one_clear_line_within_seconds(
    strange_server: pytest.MonkeyPatch,
) -> None:
    strange_server.setenv("AWS_ENDPOINT_URL", "http://user:secret-word@127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(StorageAway, match=r"127\.0\.0\.1:9 does not answer") as caught:
        storage.write_bytes("s3://bucket/key", b"x")
    assert time.monotonic() - started < 20
    assert "\n" not in str(caught.value)
    assert "secret-word" not in str(caught.value)


def test_a_server_that_never_answers_is_given_up(strange_server: pytest.MonkeyPatch) -> None:
    strange_server.setattr(s3_backend, "READ_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        strange_server.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(StorageAway, match="does not answer"):
            storage.read_bytes("s3://bucket/key")
        assert time.monotonic() - started < 10


def test_all_attempts_fit_into_thirty_seconds() -> None:
    attempts = s3_backend.ATTEMPTS
    pauses_s = sum(2**i for i in range(attempts - 1))  # botocore: random below 2^i
    assert attempts * s3_backend.READ_TIMEOUT_S + pauses_s <= s3_backend.DEADLINE_S < 30


def test_missing_credentials_say_what_to_set(strange_server: pytest.MonkeyPatch) -> None:
    strange_server.delenv("AWS_ACCESS_KEY_ID")
    strange_server.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(AccessDenied, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        storage.read_bytes("s3://bucket/key")


def test_an_endpoint_that_is_no_address_is_explained(strange_server: pytest.MonkeyPatch) -> None:
    strange_server.setenv("AWS_ENDPOINT_URL", "somewhere")
    with pytest.raises(StorageError, match=r"AWS_ENDPOINT_URL is not an address: .*somewhere"):
        storage.read_bytes("s3://bucket/key")


@pytest.mark.parametrize("uri", ["s3://Not_A_Bucket!/key", "s3://bucket"])
def test_impossible_s3_names_are_refused_in_one_line(
    strange_server: pytest.MonkeyPatch, uri: str
) -> None:
    strange_server.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="is not a possible S3 name"):
        storage.read_bytes(uri)
