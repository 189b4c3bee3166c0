"""Objects on S3 or on the local disk, by URI. The only module that knows fsspec and s3fs.

A URI is ``s3://bucket/key``, the key taken literally (nothing in it is percent-decoded), or a
local path; ``file://`` is accepted and turned into a plain path. S3 is reached as AWS_* says,
AWS_ENDPOINT_URL included. Every function may be called from many threads at once.
"""

import asyncio
import functools
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import s3fs
from fsspec.asyn import sync

from pipeline.storage.errors import (
    BROKEN_CONNECTION,
    ObjectChanged,
    ObjectMissing,
    ObjectPresent,
    StorageError,
    storage_errors,
)
from pipeline.storage.local import (
    StoredObject,
    etag_of,
    local_path,
    walk,
    write_if_absent,
    write_whole,
)

CONNECT_TIMEOUT_S = 3
READ_TIMEOUT_S = 7  # without a single byte
ATTEMPTS = 3  # 3 x 7 s and the pauses between them stay below the deadline
DEADLINE_S = 27  # for an answer; the bytes of a large object may take longer
SLOWEST_UPLOAD_BYTES_S = 1_000_000
S3_ETAG = re.compile(r"[0-9a-f]{32}(-[0-9]+)?")
LOCAL_ETAG = re.compile(r"[0-9a-f]+-[0-9a-f]+")
CONTENT_TYPES = {  # a browser saves what has none instead of showing it
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".jpg": "image/jpeg",
    ".png": "image/png",
}


def absolute(uri: str, relative_to: str | None = None) -> str:
    """The same place without ``.``, ``..`` or ``file://``.

    A relative path starts at ``relative_to``, a folder (default: the working directory).
    S3 URIs come back unchanged. Any other scheme is a StorageError.
    """
    if uri.startswith("s3://"):
        return uri
    path = local_path(uri)
    base = str(Path.cwd()) if relative_to is None else absolute(relative_to)
    if not base.startswith("s3://") or path.startswith("/"):
        return posixpath.normpath(posixpath.join(base, path))
    bucket, key = _bucket_and_key(base)
    joined = posixpath.normpath(posixpath.join(key, path))
    if joined == ".." or joined.startswith("../"):
        raise StorageError(f"{uri} leads out of the bucket s3://{bucket}, seen from {base}")
    return f"s3://{bucket}" if joined == "." else f"s3://{bucket}/{joined}"


def join(base: str, *parts: str) -> str:
    """``base`` and ``parts`` with exactly one slash between them."""
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])


def list_objects(prefix: str) -> Iterator[StoredObject]:
    """Every file below the folder ``prefix``, page by page: a million objects cost no memory.

    What starts with a dot, file or folder, is skipped. Linked folders are followed.

    Raises:
        ObjectMissing: there is no such folder or bucket, or no object below an S3 prefix.
    """
    if not prefix.startswith("s3://"):
        yield from walk(local_path(prefix))
        return
    bucket, key = _bucket_and_key(prefix)
    start = len(_folder_prefix(key))
    for page in _pages(prefix):
        for item in page.get("Contents", []):
            name = item["Key"][start:]
            if name and not name.endswith("/") and not f"/{name}".count("/."):
                etag = item.get("ETag", "").strip('"')
                yield StoredObject(f"s3://{bucket}/{item['Key']}", etag, item["Size"])


def list_names(prefix: str) -> list[str]:
    """Names of the files and folders directly below ``prefix``, sorted; no dot names."""
    if not prefix.startswith("s3://"):
        with storage_errors(prefix):
            names = set(os.listdir(local_path(prefix)))  # noqa: PTH208 - names, not paths
    else:
        names = set()
        start = len(_folder_prefix(_bucket_and_key(prefix)[1]))
        for page in _pages(prefix, Delimiter="/"):
            names |= {item["Key"][start:] for item in page.get("Contents", [])}
            names |= {item["Prefix"][start:-1] for item in page.get("CommonPrefixes", [])}
    return sorted(name for name in names if name and not name.startswith("."))


def read_bytes(uri: str, etag: str | None = None) -> bytes:
    """The whole object.

    Args:
        uri: its address.
        etag: what a listing said of it. One that this storage does not write, a version id or
            another system's checksum, is not compared.

    Raises:
        ObjectChanged: the object's etag is another one now.
    """
    with storage_errors(uri):
        if not uri.startswith("s3://"):
            with Path(local_path(uri)).open("rb") as file:
                _refuse_changed(uri, etag, etag_of(os.fstat(file.fileno())), LOCAL_ETAG)
                return file.read()
        bucket, key = _bucket_and_key(uri)
        filesystem = _filesystem()
        content, found = sync(filesystem.loop, _get, filesystem, bucket, key)
    _refuse_changed(uri, etag, found, S3_ETAG)
    return bytes(content)


def write_bytes(uri: str, data: bytes) -> None:
    """Write the whole object or nothing; missing local folders are made."""
    if uri.startswith("s3://"):
        timeout_s = max(DEADLINE_S, len(data) / SLOWEST_UPLOAD_BYTES_S)
        kind = CONTENT_TYPES.get(posixpath.splitext(uri)[1], "application/octet-stream")
        _request(uri, "put_object", timeout_s, Body=data, ContentType=kind)
        return
    with storage_errors(uri):
        write_whole(Path(local_path(uri)), data)


def write_new(uri: str, data: bytes) -> bool:
    """Write the whole object unless there is one of this name; False: there is.

    Of many that try at once, one writes: the server, or the disk, decides.
    """
    try:
        if uri.startswith("s3://"):
            _request(uri, "put_object", Body=data, IfNoneMatch="*")
        else:
            with storage_errors(uri):
                return write_if_absent(Path(local_path(uri)), data)
    except ObjectPresent:
        return False
    return True


def exists(uri: str) -> bool:
    """Whether an object or a folder of this name is there; a missing bucket counts as no."""
    if not uri.startswith("s3://"):
        return Path(local_path(uri)).exists()
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
    """Remove one object; one that is already gone is no error."""
    if uri.startswith("s3://"):
        _request(uri, "delete_object")
        return
    with storage_errors(uri):
        Path(local_path(uri)).unlink(missing_ok=True)


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
    found = not key  # a bucket may be empty; a prefix without a key does not exist
    while True:
        page = _request(uri, "list_objects_v2", **request)
        found = found or bool(page.get("Contents") or page.get("CommonPrefixes"))
        if not found and not page.get("IsTruncated"):
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


def _refuse_changed(uri: str, expected: str | None, found: str, kind: re.Pattern[str]) -> None:
    if expected and found != expected and kind.fullmatch(expected) and kind.fullmatch(found):
        raise ObjectChanged(
            f"{uri} was replaced since the dump was listed: its etag is {found}, was {expected}; "
            f"score the night again to take the new one"
        )


async def _get(filesystem: s3fs.S3FileSystem, bucket: str, key: str) -> tuple[bytes, str]:
    for attempt in range(1, ATTEMPTS + 1):
        request = filesystem._call_s3("get_object", Bucket=bucket, Key=key)
        answer = await asyncio.wait_for(request, DEADLINE_S)
        try:
            async with answer["Body"] as body:
                return await body.read(), answer.get("ETag", "").strip('"')
        except BROKEN_CONNECTION:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")


def _filesystem() -> s3fs.S3FileSystem:
    settings = sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))
    return _connected(os.getpid(), tuple(settings))


@functools.lru_cache(maxsize=4)
def _connected(process: int, settings: tuple[tuple[str, str], ...]) -> s3fs.S3FileSystem:
    """One client per process (it does not survive a fork) and per AWS_* environment."""
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
