"""The local disk, seen as storage: the part of pipeline.storage that needs no server."""

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from pipeline.storage.errors import StorageError, storage_errors


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a listing says about one object; ``etag`` changes when the content does."""

    uri: str
    etag: str  # "" for a link to nothing
    size_bytes: int


def local_path(uri: str) -> str:
    """The plain path behind a path or a ``file://`` URI."""
    if uri.startswith("file://"):  # percent-encoded by its standard, unlike a plain path
        return os.fsdecode(unquote_to_bytes(uri.removeprefix("file://").removeprefix("localhost")))
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", uri):
        raise StorageError(f"{uri}: Nightshift reads s3://bucket/key and local paths only")
    return uri


def walk(folder: str, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[StoredObject]:
    """Every file below ``folder`` but dot names; linked folders are followed."""
    with storage_errors(folder), os.scandir(folder) as entries:
        visible = sorted((e for e in entries if e.name[0] != "."), key=lambda entry: entry.name)
    for entry in visible:
        if entry.is_dir():
            identity = (entry.stat().st_dev, entry.stat().st_ino)
            if identity not in above:  # a link to a folder above would never end
                yield from walk(entry.path, above | {identity})
        elif entry.is_file() or entry.is_symlink():
            yield _stored(entry)


def _stored(entry: os.DirEntry[str]) -> StoredObject:
    uri = entry.path
    if re.search("[\ud800-\udfff]", uri):  # a name that is not Unicode
        uri = "file://" + quote(os.fsencode(uri))
    try:
        status = entry.stat()
    except FileNotFoundError:  # a link to nothing, or deleted since: still named, never dropped
        return StoredObject(uri, "", 0)
    return StoredObject(uri, etag_of(status), status.st_size)


def etag_of(status: os.stat_result) -> str:
    """A file's time of change and size: no file is read to list it."""
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


def write_whole(path: Path, data: bytes) -> None:
    """Whole or not at all: written beside, then renamed; missing folders are made."""
    with _beside(path, data) as unfinished:
        unfinished.replace(path)


def write_if_absent(path: Path, data: bytes) -> bool:
    """Like ``write_whole``, but replace nothing; False: there is such a file already."""
    with _beside(path, data) as unfinished:
        try:
            path.hardlink_to(unfinished)  # unlike a rename it never replaces
        except FileExistsError:
            return False
    return True


@contextmanager
def _beside(path: Path, data: bytes) -> Iterator[Path]:
    unfinished = path.parent / f".{uuid.uuid4().hex}.part"  # a dot name: no listing shows it
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        unfinished.write_bytes(data)
        yield unfinished
    finally:
        unfinished.unlink(missing_ok=True)
