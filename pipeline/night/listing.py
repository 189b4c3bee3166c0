"""The images of a dump that is listed: every file below it that is not known to be something else.

The first folder below the dump is the category; a file beside those folders has category "".
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from pipeline import storage
from pipeline.datasets.image_lists import ROWS_AT_ONCE, ManifestError
from pipeline.images.file_names import kinds_in_words, other_kind
from pipeline.night.inventory import OBJECTS, InventoriedDump, inventory_objects
from pipeline.night.manifest import MANIFEST_SCHEMA

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What lies below a dump."""

    uri: str  # of the dump, absolute
    images: pa.Table  # MANIFEST_SCHEMA, sorted by image_uri
    other_files: Mapping[str, int]  # files that are no images, by kind (``file_names.py``)


def list_dump(dump: str, inventory: str | None = None) -> Listing:
    """List every file below a prefix, as it is or as the ``manifest.json`` of an S3 Inventory says.

    Raises:
        ObjectMissing: no such bucket or prefix.
        ManifestError: the dump holds no image, or the inventory cannot be used.
    """
    started = time.monotonic()
    dump = storage.absolute(dump).rstrip("/")
    others: Counter[str] = Counter()
    objects = _stored_objects(dump) if inventory is None else _inventoried(dump, inventory)
    batches = (_images(batch, dump, others) for batch in objects)
    images = pa.Table.from_batches(batches, MANIFEST_SCHEMA)
    if not images.num_rows:
        found = f"{kinds_in_words(others)}, and no image" if others else "no file"
        raise ManifestError(f"{dump} holds {found}; a dump is <dump>/<category>/<image>")
    seconds = time.monotonic() - started
    logger.info(
        "listed %s: %d images, %d other files, %.1f s",
        *(dump, images.num_rows, others.total(), seconds),
    )
    return Listing(uri=_unicode(dump), images=images.sort_by("image_uri"), other_files=dict(others))


def _stored_objects(dump: str) -> Iterator[pa.RecordBatch]:
    objects = storage.list_objects(dump, hidden=True)
    while page := list(islice(objects, ROWS_AT_ONCE)):
        rows = [(item.uri, item.etag, item.size_bytes) for item in page]
        yield pa.record_batch([pa.array(c) for c in zip(*rows, strict=True)], schema=OBJECTS)


def _inventoried(dump: str, inventory: str) -> Iterator[pa.RecordBatch]:
    objects = inventory_objects(InventoriedDump(prefix=dump, inventory=inventory))
    yield from objects.to_batches(max_chunksize=ROWS_AT_ONCE)


def _images(objects: pa.RecordBatch, dump: str, others: Counter[str]) -> pa.RecordBatch:
    """Give the images among the objects their category; count in ``others`` what is none."""
    names = [_name(uri, dump) for uri in objects["image_uri"].to_pylist()]
    kinds = [other_kind(name) for name in names]
    others.update(kind for kind in kinds if kind)
    categories = pa.array([_category(name) for name in names], pa.string())
    images = pa.record_batch([*objects.columns, categories], schema=MANIFEST_SCHEMA)
    return images.filter(pa.array([kind is None for kind in kinds], pa.bool_()))


def _name(uri: str, dump: str) -> str:
    """Return a file's name below the dump."""
    path = storage.absolute(uri) if uri.startswith("file://") else uri
    return path[len(dump) + 1 :]


def _category(name: str) -> str:
    return _unicode(name.partition("/")[0]) if "/" in name else ""


def _unicode(name: str) -> str:
    """A name on disk may be no Unicode."""
    return name.encode(errors="replace").decode()
