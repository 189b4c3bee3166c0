"""What can be wrong with an object or its storage; each backend says which it was.

Messages name the object and the server, never a credential.
"""

from model.errors import NightshiftError, ServiceAway


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


class StorageAway(ServiceAway):
    """The storage does not answer, or answers that it cannot serve now."""
