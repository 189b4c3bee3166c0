"""Files on the local disk, by path or ``file://`` URI."""

import errno
import os
import posixpath
import re
import shutil
import stat
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from pipeline.storage.backend import StoredObject, refuse_changed
from pipeline.storage.errors import AccessDenied, ObjectMissing, StorageError

# What disks say that have no hard links, such as those of cameras and some network shares.
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
ETAG = re.compile(r"[0-9a-f]+-[0-9a-f]+")


def local_path(uri: str) -> str:
    """The plain path behind a path or a ``file://`` URI."""
    if uri.startswith("file://"):  # percent-encoded by its standard, unlike a plain path
        return os.fsdecode(unquote_to_bytes(uri.removeprefix("file://").removeprefix("localhost")))
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", uri):
        raise StorageError(f"{uri}: Nightshift reads s3://bucket/key and local paths only")
    return uri


def below(folder: str, path: str) -> str:
    """Return where a relative path leads, seen from a folder."""
    return posixpath.normpath(posixpath.join(folder, path))


def list_objects(prefix: str, hidden: bool) -> Iterator[StoredObject]:
    """Yield every file below a folder, and hidden names if asked to."""
    return _walk(local_path(prefix), hidden)


def look_up(uris: Collection[str]) -> dict[str, StoredObject]:
    """Look at each file: on a disk that costs no more than a listing."""
    found = {}
    for uri in uris:
        with suppress(ObjectMissing), storage_errors(uri):
            found[uri] = _stored(uri, Path(local_path(uri)).stat())
    return found


def list_names(prefix: str) -> set[str]:
    """Return the names directly below a folder."""
    with storage_errors(prefix):
        return set(os.listdir(local_path(prefix)))  # noqa: PTH208 - names, not paths


def read_bytes(uri: str, etag: str | None) -> bytes:
    """Return the whole file."""
    with storage_errors(uri), Path(local_path(uri)).open("rb") as file:
        refuse_changed(uri, etag, _etag_of(os.fstat(file.fileno())), ETAG)
        return file.read()


def write_bytes(uri: str, data: bytes) -> None:
    """Write the whole file or nothing: written beside, then renamed; missing folders are made."""
    with storage_errors(uri), _beside(Path(local_path(uri)), data) as unfinished:
        unfinished.replace(local_path(uri))


def write_file(uri: str, path: Path) -> None:
    """Copy a file, whole or not at all."""
    with storage_errors(uri), _beside(Path(local_path(uri)), path) as unfinished:
        unfinished.replace(local_path(uri))


def write_new(uri: str, data: bytes) -> bool:
    """Write the whole file unless there is one."""
    with storage_errors(uri), _beside(Path(local_path(uri)), data) as unfinished:
        try:
            Path(local_path(uri)).hardlink_to(unfinished)  # unlike a rename it never replaces
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            return _create(Path(local_path(uri)), data)
    return True


def _create(path: Path, data: bytes) -> bool:
    """Write a file unless there is one, on a disk where others may see it half written."""
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        return False
    return True


def exists(uri: str) -> bool:
    """Whether there is a file or a folder of this name."""
    with suppress(ObjectMissing), storage_errors(uri):
        Path(local_path(uri)).stat()
        return True
    return False


def delete(uri: str) -> None:
    """Remove one file, if it is there."""
    with storage_errors(uri):
        Path(local_path(uri)).unlink(missing_ok=True)


def remove_folder(uri: str) -> None:
    """Remove a folder with all that is in it; what its links lead to stays, and if it is one."""
    folder = Path(local_path(uri))
    with storage_errors(uri):
        if folder.is_symlink():
            folder.unlink()
        while folder.exists():
            with suppress(FileNotFoundError):  # whoever removes the same at once was faster
                shutil.rmtree(folder)


def _walk(
    folder: str, hidden: bool, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[StoredObject]:
    with storage_errors(folder), os.scandir(folder) as entries:
        listed = sorted((e for e in entries if hidden or e.name[0] != "."), key=lambda e: e.name)
    for entry in listed:
        status = _status_of(entry)
        if entry.name[0] != "." and status is not None and stat.S_ISDIR(status.st_mode):
            identity = (status.st_dev, status.st_ino)
            if identity not in above:  # a link to a folder above would never end
                with suppress(ObjectMissing):  # deleted since it was listed
                    yield from _walk(entry.path, hidden, above | {identity})
        elif entry.name[0] == "." or entry.is_symlink() or entry.is_file(follow_symlinks=False):
            yield _stored(entry.path, status)


def _status_of(entry: os.DirEntry[str]) -> os.stat_result | None:
    """What an entry is, or its link leads to; None: to nothing or itself, or deleted since."""
    with suppress(ObjectMissing), storage_errors(entry.path):
        return entry.stat()
    return None


def _stored(uri: str, status: os.stat_result | None) -> StoredObject:
    if re.search("[\ud800-\udfff]", uri):  # a name that is not Unicode
        uri = "file://" + quote(os.fsencode(uri))
    if status is None:  # still named, never dropped
        return StoredObject(uri, "", 0)
    return StoredObject(uri, _etag_of(status), status.st_size)


def _etag_of(status: os.stat_result) -> str:
    """A file's time of change and size: no file is read to list it."""
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


@contextmanager
def _beside(path: Path, content: bytes | Path) -> Iterator[Path]:
    unfinished = path.parent / f".{uuid.uuid4().hex}.part"  # a dot name: no listing shows it
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if isinstance(content, Path):
            shutil.copyfile(content, unfinished)
        else:
            unfinished.write_bytes(content)
        yield unfinished
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Turn whatever the disk raises about ``uri`` into a StorageError."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise _explain(uri, error) from error


def _explain(uri: str, error: Exception) -> StorageError:
    match error:
        case FileNotFoundError():
            return ObjectMissing(f"{uri} does not exist; check the path")
        case NotADirectoryError():
            return ObjectMissing(f"{uri} is not a folder, or lies below a file; check the path")
        case IsADirectoryError():
            return ObjectMissing(f"{uri} is a folder where a file was needed; check the path")
        case OSError(errno=errno.ENAMETOOLONG | errno.ELOOP, strerror=said):
            return ObjectMissing(f"{uri} does not exist: {str(said).lower()}")
        case PermissionError():
            return AccessDenied(f"{uri} may not be accessed; give user {os.getuid()} the right")
    reason = getattr(error, "strerror", None) or error
    return StorageError(f"{uri}: {reason}")
