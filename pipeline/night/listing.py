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
from pipeline.night.manifest import MANIFEST_SCHEMA

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What lies below a dump."""

    uri: str  # of the dump, absolute
    images: pa.Table  # MANIFEST_SCHEMA, sorted by image_uri
    other_files: Mapping[str, int]  # files that are no images, by kind (``file_names.py``)


def list_dump(dump: str) -> Listing:
    """List every file below the prefix ``dump``.

    Raises:
        ObjectMissing: no such bucket or prefix.
        ManifestError: the dump holds no image.
    """
    started = time.monotonic()
    dump = storage.absolute(dump).rstrip("/")
    others: Counter[str] = Counter()
    images = pa.Table.from_batches(_batches(dump, others), MANIFEST_SCHEMA)
    if not images.num_rows:
        found = f"{kinds_in_words(others)}, and no image" if others else "no file"
        raise ManifestError(f"{dump} holds {found}; a dump is <dump>/<category>/<image>")
    seconds = time.monotonic() - started
    logger.info(
        "listed %s: %d images, %d other files, %.1f s",
        *(dump, images.num_rows, others.total(), seconds),
    )
    return Listing(uri=_unicode(dump), images=images.sort_by("image_uri"), other_files=dict(others))


def _batches(dump: str, others: Counter[str]) -> Iterator[pa.RecordBatch]:
    """Yield the images as rows; count in ``others`` what is none."""
    objects = storage.list_objects(dump, hidden=True)
    while page := list(islice(objects, ROWS_AT_ONCE)):
        names = [_name(item.uri, dump) for item in page]
        kinds = [other_kind(name) for name in names]
        others.update(kind for kind in kinds if kind)
        rows = [row for row in zip(page, names, kinds, strict=True) if not row[2]]
        yield pa.record_batch(
            {
                "image_uri": [item.uri for item, _, _ in rows],
                "image_etag": [item.etag for item, _, _ in rows],
                "size_bytes": [item.size_bytes for item, _, _ in rows],
                "category": [_category(name) for _, name, _ in rows],
            },
            MANIFEST_SCHEMA,
        )


def _name(uri: str, dump: str) -> str:
    """Return a file's name below the dump."""
    path = storage.absolute(uri) if uri.startswith("file://") else uri
    return path[len(dump) + 1 :]


def _category(name: str) -> str:
    return _unicode(name.partition("/")[0]) if "/" in name else ""


def _unicode(name: str) -> str:
    """A name on disk may be no Unicode."""
    return name.encode(errors="replace").decode()
