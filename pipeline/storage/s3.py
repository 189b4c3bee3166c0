"""Objects on S3, reached as AWS_* says; only here and in ``s3_reads.py`` are its clients known."""

import asyncio
import functools
import os
import posixpath
import re
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp
import s3fs
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from fsspec.asyn import sync

from pipeline.storage.backend import StoredObject, refuse_changed
from pipeline.storage.common_folders import by_folder
from pipeline.storage.errors import (
    AccessDenied,
    ObjectMissing,
    ObjectPresent,
    StorageAway,
    StorageError,
)
from pipeline.storage.s3_reads import ObjectReader

Settings = tuple[tuple[str, str], ...]  # AWS_* variables, sorted

CONNECT_TIMEOUT_S = 3
READ_TIMEOUT_S = 7  # without a single byte
ATTEMPTS = 3  # 3 x 7 s and the pauses between them stay below the deadline
DEADLINE_S = 27  # for an answer; the bytes of a large object may take longer
SLOWEST_UPLOAD_BYTES_S = 1_000_000
MAX_FOLDERS = 1000  # listed one by one; of more, the folders above them are listed whole
PARALLEL_REQUESTS = 16
ETAG = re.compile(r"[0-9a-f]{32}(-[0-9]+)?")
CONTENT_TYPES = {  # a browser saves what has none instead of showing it
    ".csv": "text/csv; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".jpg": "image/jpeg",
    ".png": "image/png",
}
NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    ProfileNotFound,
)
BROKEN_CONNECTION = (HTTPClientError, IncompleteReadError, aiohttp.ClientError)
AWAY = (BotoConnectionError, TimeoutError, ConnectionError, *BROKEN_CONNECTION)
BUSY_CODES = ("SlowDown", "RequestTimeout", "ServiceUnavailable", "InternalError")


def below(folder: str, path: str) -> str:
    """Return where a relative path leads, seen from a folder."""
    bucket, key = _bucket_and_key(folder)
    joined = posixpath.normpath(posixpath.join(key, path))
    if joined == ".." or joined.startswith("../"):
        raise StorageError(f"{path} leads out of the bucket s3://{bucket}, seen from {folder}")
    return f"s3://{bucket}" if joined == "." else f"s3://{bucket}/{joined}"


def list_objects(prefix: str, hidden: bool) -> Iterator[StoredObject]:
    """Yield every object below a prefix, and hidden ones if asked to."""
    bucket, key = _bucket_and_key(prefix)
    start = len(_folder_prefix(key))
    for page in _pages(prefix):
        for item in page.get("Contents", []):
            name = item["Key"][start:]
            is_folder = not name or name.endswith("/")
            if not is_folder and (hidden or "/." not in f"/{name}"):
                yield _stored(f"s3://{bucket}/{item['Key']}", item, item["Size"])


def _stored(uri: str, answer: dict[str, Any], size_bytes: int) -> StoredObject:
    return StoredObject(uri, answer.get("ETag", "").strip('"'), size_bytes)


def look_up(uris: Collection[str]) -> dict[str, StoredObject]:
    """List the folders that hold the objects; ask for single ones where they are few of many."""
    own = by_folder(uris, MAX_FOLDERS)
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        listed = [*pool.map(_look_below, own.keys(), own.values())]
        left = [uri for _, others in listed for uri in others]
        found = dict(zip(left, pool.map(_look_at, left), strict=True))
    for below, _ in listed:
        found |= below
    return {uri: item for uri, item in found.items() if item is not None}


def _look_below(folder: str, uris: Collection[str]) -> tuple[dict[str, StoredObject], set[str]]:
    """List a folder for as many requests as there are objects; also what is left to ask for."""
    bucket, found, is_cut = _bucket_and_key(folder)[0], dict[str, StoredObject](), False
    with suppress(ObjectMissing):
        for page in islice(_pages(folder), len(uris)):
            for item in page.get("Contents", []):
                if (uri := f"s3://{bucket}/{item['Key']}") in uris:
                    found[uri] = _stored(uri, item, item["Size"])
            is_cut = bool(page.get("IsTruncated"))
            if len(found) == len(uris):
                break
    return found, {*uris} - found.keys() if is_cut else set()


def _look_at(uri: str) -> StoredObject | None:
    with suppress(ObjectMissing):
        answer = _request(uri, "head_object")
        return _stored(uri, answer, answer["ContentLength"])
    return None


def list_names(prefix: str) -> set[str]:
    """Return the names directly below a prefix."""
    names: set[str] = set()
    start = len(_folder_prefix(_bucket_and_key(prefix)[1]))
    for page in _pages(prefix, Delimiter="/"):
        names |= {item["Key"][start:] for item in page.get("Contents", [])}
        names |= {item["Prefix"][start:-1] for item in page.get("CommonPrefixes", [])}
    return names


def read_bytes(uri: str, etag: str | None) -> bytes:
    """Return the whole object."""
    bucket, key = _bucket_and_key(uri)
    with storage_errors(uri):
        reader = _reader(*_client_key())
        found = reader.read(bucket, key)
        content, current = found or _read_patiently(bucket, key)
        reader.note(failed=found is None)
    refuse_changed(uri, etag, current, ETAG)
    return content


def write_bytes(uri: str, data: bytes) -> None:
    """Write the whole object or nothing."""
    _put(uri, data)


def write_file(uri: str, path: Path) -> None:
    """Upload a file; a large one in parts, of which nothing is seen before the last."""
    timeout_s = max(DEADLINE_S, path.stat().st_size / SLOWEST_UPLOAD_BYTES_S)
    _bucket_and_key(uri)
    with storage_errors(uri):
        filesystem = _filesystem()
        upload = filesystem._put_file
        sync(filesystem.loop, upload, str(path), uri, timeout=timeout_s, **_content_type(uri))


def write_new(uri: str, data: bytes) -> bool:
    """Write the whole object unless there is one: the server decides."""
    try:
        _put(uri, data, IfNoneMatch="*")
    except ObjectPresent:
        return False
    return True


def exists(uri: str) -> bool:
    """Whether there is an object or a prefix of this name."""
    key = _bucket_and_key(uri)[1]
    try:
        if key and not key.endswith("/"):
            _request(uri, "head_object")
            return True
    except ObjectMissing:
        pass  # not an object; perhaps a folder
    try:
        return bool(next(_pages(uri, MaxKeys=1)))
    except ObjectMissing:
        return False


def delete(uri: str) -> None:
    """Remove one object, if it is there."""
    _request(uri, "delete_object")


def _put(uri: str, data: bytes, **options: str) -> None:
    timeout_s = max(DEADLINE_S, len(data) / SLOWEST_UPLOAD_BYTES_S)
    _request(uri, "put_object", timeout_s, Body=data, **_content_type(uri), **options)


def _content_type(uri: str) -> dict[str, str]:
    kind = CONTENT_TYPES.get(posixpath.splitext(uri)[1], "application/octet-stream")
    return {"ContentType": kind}


def _bucket_and_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise StorageError(f"{uri} names no bucket; write s3://bucket/key")
    return bucket, key


def _folder_prefix(key: str) -> str:
    return key.removesuffix("/") + "/" if key else ""


def _pages(uri: str, **options: Any) -> Iterator[dict[str, Any]]:
    key = _bucket_and_key(uri)[1]
    request: dict[str, Any] = {"Prefix": _folder_prefix(key), **options}
    is_there = not key  # a bucket may be empty; a prefix without a key does not exist
    while True:
        page = _request(uri, "list_objects_v2", **request)
        is_there = is_there or bool(page.get("Contents") or page.get("CommonPrefixes"))
        if not is_there and not page.get("IsTruncated"):
            raise ObjectMissing(f"nothing lies under {uri}; check the prefix (case counts)")
        yield page
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def _request(uri: str, method: str, timeout_s: float = DEADLINE_S, **request: Any) -> Any:
    """One S3 request about ``uri``: about its bucket when ``Prefix`` is given, else its key."""
    bucket, key = _bucket_and_key(uri)
    request |= {"Bucket": bucket} if "Prefix" in request else {"Bucket": bucket, "Key": key}
    with storage_errors(uri):
        filesystem = _filesystem()
        call = filesystem._call_s3
        return sync(filesystem.loop, call, method, timeout=timeout_s, **request)


def _read_patiently(bucket: str, key: str) -> tuple[bytes, str]:
    filesystem = _filesystem()
    found: tuple[bytes, str] = sync(filesystem.loop, _get, filesystem, bucket, key)
    return found


async def _get(filesystem: s3fs.S3FileSystem, bucket: str, key: str) -> tuple[bytes, str]:
    for attempt in range(1, ATTEMPTS + 1):
        request = filesystem._call_s3("get_object", Bucket=bucket, Key=key)
        answer = await asyncio.wait_for(request, DEADLINE_S)
        try:
            async with answer["Body"] as body:
                return bytes(await body.read()), answer.get("ETag", "").strip('"')
        except BROKEN_CONNECTION:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")


def _client_key() -> tuple[int, Settings]:
    """What a client is made for: a process, since it survives no fork, and AWS_* variables."""
    settings = sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))
    return os.getpid(), tuple(settings)


def _filesystem() -> s3fs.S3FileSystem:
    return _connected(*_client_key())


@functools.lru_cache(maxsize=4)
def _reader(process: int, settings: Settings) -> ObjectReader:
    return ObjectReader(_connected(process, settings))


@functools.lru_cache(maxsize=4)
def _connected(process: int, settings: Settings) -> s3fs.S3FileSystem:
    """Return the one client of a process and its settings."""
    filesystem = s3fs.S3FileSystem(
        skip_instance_cache=True,
        use_listings_cache=False,
        config_kwargs={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
            "retries": {"mode": "standard", "total_max_attempts": ATTEMPTS},
            "max_pool_connections": 32,
            "user_agent": "nightshift",  # botocore's own costs a tenth of a request to put together
        },
    )
    filesystem.retries = 1  # botocore retries; twice nested, a dead server would take minutes
    return filesystem


@contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Turn whatever the S3 client raises about ``uri`` into a StorageError or StorageAway."""
    try:
        yield
    except (OSError, BotoCoreError, ClientError, aiohttp.ClientError, ValueError) as error:
        raise _explain(uri, error) from error


def _explain(uri: str, error: Exception) -> StorageError | StorageAway:
    answer = error if isinstance(error, ClientError) else error.__cause__
    if isinstance(answer, ClientError):  # the server did answer
        return _explain_answer(uri, answer)
    server = _server()
    if isinstance(error, NO_CREDENTIALS):
        return AccessDenied(
            f"{uri}: no S3 credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
            f"(or AWS_PROFILE) for {server}"
        )
    if isinstance(error, AWAY):
        return StorageAway(
            f"{uri}: {server} does not answer ({type(error).__name__}); check that it runs and "
            f"that AWS_ENDPOINT_URL names it"
        )
    if isinstance(error, ValueError) and "endpoint" in str(error).lower():
        return StorageError(f"AWS_ENDPOINT_URL is not an address: {server}; write http://host:port")
    if isinstance(error, ParamValidationError):
        return StorageError(f"{uri} is not a possible S3 name; write s3://bucket/key")
    return StorageError(f"{uri}: {type(error).__name__}: {' '.join(str(error).split())}")


def _explain_answer(uri: str, answer: ClientError) -> StorageError | StorageAway:
    code = str(answer.response.get("Error", {}).get("Code", ""))
    status = answer.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = f"{_server()} answered {status} {code}".removesuffix(f" {status}")
    if code == "NoSuchBucket":
        bucket = uri.removeprefix("s3://").partition("/")[0]
        return ObjectMissing(
            f"the bucket {bucket!r} does not exist on {_server()}; create it or correct {uri}"
        )
    if status == 404:
        return ObjectMissing(f"{uri} does not exist on {_server()}; check bucket and key")
    if status == 412 or code == "ConditionalRequestConflict":
        return ObjectPresent(f"{uri} is there already; it was to be written only if it was not")
    if status in (401, 403):
        return AccessDenied(
            f"{uri}: {said}; check the AWS_* credentials and the rights on the bucket"
        )
    if status >= 500 or status == 429 or code in BUSY_CODES:
        return StorageAway(f"{uri}: {said} every time; try again when it has recovered")
    return StorageError(f"{uri}: {said}; check AWS_REGION and the name of the bucket")


def _server() -> str:
    """Where requests go, without a user name or password that the address may carry."""
    address = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return f"the S3 server {address.rpartition('@')[2]}" if address else "Amazon S3"
