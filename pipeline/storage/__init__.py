"""Object storage: S3 and the local disk by URI; ``from pipeline import storage`` has all of it."""

from pipeline.storage.backend import StoredObject
from pipeline.storage.errors import (
    AccessDenied,
    ObjectChanged,
    ObjectMissing,
    ObjectPresent,
    StorageAway,
    StorageError,
)
from pipeline.storage.objects import (
    absolute,
    delete,
    exists,
    is_local,
    join,
    list_names,
    list_objects,
    read_bytes,
    write_bytes,
    write_new,
)

__all__ = [
    "AccessDenied",
    "ObjectChanged",
    "ObjectMissing",
    "ObjectPresent",
    "StorageAway",
    "StorageError",
    "StoredObject",
    "absolute",
    "delete",
    "exists",
    "is_local",
    "join",
    "list_names",
    "list_objects",
    "read_bytes",
    "write_bytes",
    "write_new",
]
