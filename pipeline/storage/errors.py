"""What an operator is told when the storage does not do what it was asked.

Messages name the object and the server, never a credential.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
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

from model.errors import NightshiftError

NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    ProfileNotFound,
)
BROKEN_CONNECTION = (HTTPClientError, IncompleteReadError, aiohttp.ClientError)
AWAY = (BotoConnectionError, TimeoutError, ConnectionError, *BROKEN_CONNECTION)
BUSY_CODES = ("SlowDown", "RequestTimeout", "ServiceUnavailable", "InternalError")


class StorageError(NightshiftError):
    """The storage refused a request for a reason that has no class of its own."""


class ObjectMissing(StorageError):
    """No such bucket, folder or object."""


class ObjectPresent(StorageError):
    """An object was to be written only where none is, and one is there."""


class AccessDenied(StorageError):
    """The storage does not know us or does not let us."""


class ObjectChanged(StorageError):
    """The object is another one than the listing named."""


class StorageAway(StorageError):
    """The storage does not answer, or answers that it cannot serve now."""


@contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Turn whatever the disk or the S3 client raises about ``uri`` into a StorageError."""
    try:
        yield
    except (OSError, BotoCoreError, ClientError, aiohttp.ClientError, ValueError) as error:
        explain = _explain_s3 if uri.startswith("s3://") else _explain_local
        raise explain(uri, error) from error


def _explain_local(uri: str, error: Exception) -> StorageError:
    match error:
        case FileNotFoundError():
            return ObjectMissing(f"{uri} does not exist; check the path")
        case NotADirectoryError():
            return ObjectMissing(f"{uri} is not a folder, or lies below a file; check the path")
        case IsADirectoryError():
            return ObjectMissing(f"{uri} is a folder where a file was needed; check the path")
        case OSError(errno=errno.ENAMETOOLONG):
            return ObjectMissing(f"{uri} does not exist: no name may be that long")
        case PermissionError():
            return AccessDenied(f"{uri} may not be accessed; give user {os.getuid()} the right")
    reason = getattr(error, "strerror", None) or error
    return StorageError(f"{uri}: {reason}")


def _explain_s3(uri: str, error: Exception) -> StorageError:
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


def _explain_answer(uri: str, answer: ClientError) -> StorageError:
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
