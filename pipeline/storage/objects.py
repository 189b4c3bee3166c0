"""Objects on S3 or on the local disk, by URI: each function asks the backend that the URI names.

A URI is ``s3://bucket/key``, the key taken literally (nothing in it is percent-decoded), or a
local path; ``file://`` is accepted and turned into a plain path. S3 is reached as AWS_* says,
AWS_ENDPOINT_URL included. Every function may be called from many threads at once.
"""

import posixpath
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from pipeline.storage import local
from pipeline.storage.backend import S3_SCHEME, Backend, StoredObject
from pipeline.storage.errors import ObjectMissing


def is_local(uri: str) -> bool:
    """Whether a URI names a place on the local disk."""
    return not uri.startswith(S3_SCHEME)


def absolute(uri: str, relative_to: str | None = None) -> str:
    """The same place without ``.``, ``..`` or ``file://``.

    A relative path starts at ``relative_to``, a folder (default: the working directory).
    S3 URIs come back unchanged. Any other scheme is a StorageError.
    """
    if not is_local(uri):
        return uri
    path = local.local_path(uri)
    if posixpath.isabs(path):
        return posixpath.normpath(path)
    folder = str(Path.cwd()) if relative_to is None else absolute(relative_to)
    return _backend(folder).below(folder, path)


def join(base: str, *parts: str) -> str:
    """``base`` and ``parts`` with exactly one slash between them."""
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])


def list_objects(prefix: str, *, hidden: bool = False) -> Iterator[StoredObject]:
    """Every file below the folder ``prefix``, page by page: a million objects cost no memory.

    Linked folders are followed.

    Args:
        prefix: the folder.
        hidden: also name what starts with a dot, which is skipped otherwise. A hidden folder of
            the disk is named and not opened: it may hold snapshots of everything.

    Raises:
        ObjectMissing: there is no such folder or bucket, or no object below an S3 prefix.
    """
    return _backend(prefix).list_objects(prefix, hidden)


def objects_below(prefix: str, *, hidden: bool = False) -> list[StoredObject]:
    """What ``list_objects`` says; nothing where there is no such folder."""
    with suppress(ObjectMissing):
        return list(list_objects(prefix, hidden=hidden))
    return []


def look_up(uris: Iterable[str]) -> dict[str, StoredObject]:
    """What a listing says of many objects, by URI; one that is not there is left out.

    On S3 the folders of the objects are listed, a thousand objects a request. Of a folder that has
    not ended after as many requests as objects are wanted of it, single objects are asked for.

    Raises:
        AccessDenied: a folder may not be listed, or a file not be looked at.
    """
    found: dict[str, StoredObject] = {}
    known = set(uris)
    here = {uri for uri in known if is_local(uri)}
    for some in filter(None, (here, known - here)):
        found |= _backend(min(some)).look_up(some)
    return found


def list_names(prefix: str) -> list[str]:
    """Names of the files and folders directly below ``prefix``, sorted; no dot names."""
    names = _backend(prefix).list_names(prefix)
    return sorted(name for name in names if name and not name.startswith("."))


def names_below(prefix: str) -> list[str]:
    """What ``list_names`` says; nothing where there is no such folder."""
    with suppress(ObjectMissing):
        return list_names(prefix)
    return []


def read_bytes(uri: str, etag: str | None = None) -> bytes:
    """The whole object.

    Args:
        uri: its address.
        etag: what a listing said of it. One that this storage does not write, a version id or
            another system's checksum, is not compared.

    Raises:
        ObjectChanged: the object's etag is another one now.
    """
    return _backend(uri).read_bytes(uri, etag)


def read_if_there(uri: str) -> bytes | None:
    """The whole object, or None where there is none."""
    with suppress(ObjectMissing):
        return read_bytes(uri)
    return None


def write_bytes(uri: str, data: bytes) -> None:
    """Write the whole object or nothing; missing local folders are made."""
    _backend(uri).write_bytes(uri, data)


def write_file(uri: str, path: Path) -> None:
    """Write a file's content, whole or not at all, without holding it in memory."""
    _backend(uri).write_file(uri, path)


def write_new(uri: str, data: bytes) -> bool:
    """Write the whole object unless there is one of this name; False: there is.

    Of many that try at once, one writes: the server, or the disk, decides.
    """
    return _backend(uri).write_new(uri, data)


def exists(uri: str) -> bool:
    """Whether an object or a folder of this name is there; a missing bucket counts as no."""
    return _backend(uri).exists(uri)


def delete(uri: str) -> None:
    """Remove one object; one that is already gone is no error."""
    _backend(uri).delete(uri)


def remove_below(prefix: str) -> None:
    """Remove every object below a folder, if there is one, and on the disk the folder itself.

    Of a link in it the link alone goes.

    Raises:
        StorageError: something cannot be removed; some of the rest may be gone.
    """
    if is_local(prefix):
        local.remove_folder(prefix)
        return
    for item in objects_below(prefix, hidden=True):
        delete(item.uri)


def _backend(uri: str) -> Backend:
    if is_local(uri):
        return local
    from pipeline.storage import s3  # noqa: PLC0415  its clients take a second to import

    return s3
