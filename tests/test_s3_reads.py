"""Objects come by the fast client where it can bring them, and by the patient one otherwise."""

import logging
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from pipeline import storage
from pipeline.storage import s3 as backend
from pipeline.storage import s3_reads
from pipeline.storage.s3_reads import MOST_FAILURES, ObjectReader


@pytest.fixture
def reader(s3: str) -> Iterator[ObjectReader]:
    """One of the test's own: what it learns of the server is forgotten."""
    backend._reader.cache_clear()
    yield backend._reader(*backend._client_key())
    backend._reader.cache_clear()


def refuse(*_: Any) -> NoReturn:
    raise AssertionError("the other client was asked")


@pytest.mark.parametrize("key", ["a.png", "deep/er/a b+c.png", "ä%20.png", "empty"])
@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_the_fast_client_brings_what_is_there(
    s3: str, monkeypatch: pytest.MonkeyPatch, key: str, size: int
) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    storage.write_bytes(f"{s3}/{key}", data[:size])
    (listed,) = storage.list_objects(s3)
    monkeypatch.setattr(backend, "_get", refuse)
    assert storage.read_bytes(f"{s3}/{key}", listed.etag) == data[:size]


def test_a_replaced_object_is_noticed(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_bytes(f"{s3}/a", b"one")
    (listed,) = storage.list_objects(s3)
    storage.write_bytes(f"{s3}/a", b"two")
    monkeypatch.setattr(backend, "_get", refuse)
    with pytest.raises(storage.ObjectChanged):
        storage.read_bytes(f"{s3}/a", listed.etag)


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_SECRET_ACCESS_KEY"])
def test_other_settings_are_another_client(
    s3: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    storage.write_bytes(f"{s3}/a", b"x")
    assert storage.read_bytes(f"{s3}/a") == b"x"
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv(name, "http://127.0.0.1:9")
        elsewhere.delenv("AWS_ENDPOINT_URL_S3")
        with pytest.raises((storage.StorageAway, storage.AccessDenied)):
            storage.read_bytes(f"{s3}/a")
    assert storage.read_bytes(f"{s3}/a") == b"x"


def test_it_is_left_out_where_it_fails_and_the_other_does_not(
    s3: str,
    reader: ObjectReader,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage.write_bytes(f"{s3}/a", b"x")
    monkeypatch.setattr(s3_reads, "_is_special", lambda _: True)
    caplog.set_level(logging.INFO)
    for _ in range(MOST_FAILURES):
        assert reader.is_usable
        assert storage.read_bytes(f"{s3}/a") == b"x"
    assert not reader.is_usable
    assert storage.read_bytes(f"{s3}/a") == b"x"
    assert [record.message for record in caplog.records if "s3fs alone" in record.message] == [
        "objects are read by s3fs alone: obstore does not reach this server"
    ]


def test_objects_that_are_not_there_say_nothing_of_it(s3: str, reader: ObjectReader) -> None:
    storage.write_bytes(f"{s3}/a", b"x")
    for _ in range(2 * MOST_FAILURES):
        with pytest.raises(storage.ObjectMissing, match="does not exist"):
            storage.read_bytes(f"{s3}/b")
    assert reader.is_usable


def test_one_success_makes_up_for_the_failures_before(s3: str, reader: ObjectReader) -> None:
    for _ in range(3):
        for _ in range(MOST_FAILURES - 1):
            reader.note(failed=True)
        reader.note(failed=False)
    assert reader.is_usable


@pytest.mark.parametrize(
    ("endpoint", "settings", "special"),
    [
        ("http://10.0.0.1:9000", {}, False),
        ("https://s3.eu-west-1.amazonaws.com", {}, False),
        ("https://s3.eu-west-1.amazonaws.com", {"AWS_CA_BUNDLE": "/own.pem"}, True),
        ("http://10.0.0.1:9000", {"AWS_CA_BUNDLE": "/own.pem"}, False),
        ("https://minio.factory:9000", {"HTTPS_PROXY": "http://proxy:3128"}, True),
        (
            "https://minio.factory:9000",
            {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "minio.factory"},
            False,
        ),
    ],
)
def test_a_proxy_and_own_certificates_are_the_other_clients(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, settings: dict[str, str], special: bool
) -> None:
    for name in ("AWS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert s3_reads._is_special(endpoint) is special
