"""Object storage: S3 and the local disk by URI; ``from pipeline import storage`` has all of it."""

from pipeline.storage.backend import StoredObject as StoredObject
from pipeline.storage.errors import AccessDenied as AccessDenied
from pipeline.storage.errors import ObjectChanged as ObjectChanged
from pipeline.storage.errors import ObjectMissing as ObjectMissing
from pipeline.storage.errors import ObjectPresent as ObjectPresent
from pipeline.storage.errors import StorageAway as StorageAway
from pipeline.storage.errors import StorageError as StorageError
from pipeline.storage.objects import absolute as absolute
from pipeline.storage.objects import delete as delete
from pipeline.storage.objects import exists as exists
from pipeline.storage.objects import is_local as is_local
from pipeline.storage.objects import join as join
from pipeline.storage.objects import list_names as list_names
from pipeline.storage.objects import list_objects as list_objects
from pipeline.storage.objects import look_up as look_up
from pipeline.storage.objects import names_below as names_below
from pipeline.storage.objects import objects_below as objects_below
from pipeline.storage.objects import read_bytes as read_bytes
from pipeline.storage.objects import read_if_there as read_if_there
from pipeline.storage.objects import remove_below as remove_below
from pipeline.storage.objects import write_bytes as write_bytes
from pipeline.storage.objects import write_file as write_file
from pipeline.storage.objects import write_new as write_new
