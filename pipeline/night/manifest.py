"""The list of a dump's images, and its cut into shards.

One row per image, sorted by URI: a manifest of the same dump is the same table wherever and
whenever it is made, and so are its shards. A million rows are 0.1 GB of Arrow, never a list of
objects.
"""

import hashlib
import json
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.catalogue.category_name import file_name
from pipeline.datasets.image_lists import (
    ManifestError,
    is_csv,
    read_columns,
    refuse_duplicates,
    refuse_missing,
    resolve_uris,
)
from pipeline.night.inventory import current, decoded_keys, refuse_inventory

MANIFEST_SCHEMA = pa.schema(
    [
        ("image_uri", pa.string()),
        ("image_etag", pa.string()),  # null when a ready manifest does not say
        ("size_bytes", pa.int64()),  # null likewise
        ("category", pa.string()),
    ]
)
SPELLINGS = {
    "image_uri": ("image_uri", "source-ref"),
    "image_etag": ("image_etag", "etag", "e_tag", "version", "version_id"),
    "size_bytes": ("size_bytes", "size"),
    "category": ("category",),
    "bucket": ("bucket",),
    "key": ("key",),
    "is_latest": ("is_latest", "islatest"),
    "is_delete_marker": ("is_delete_marker", "isdeletemarker"),
}


@dataclass(frozen=True, slots=True)
class Shard:
    """A fixed slice of one category's rows; the same rows always have the same name."""

    name: str
    category: str
    rows: pa.Table


def read_manifest(uri: str) -> pa.Table:
    """Read a ready manifest: Parquet, CSV or JSON Lines with an image and a category per row.

    The image is ``image_uri``, Lookout's ``source-ref``, or ``bucket`` and ``key``. A key is
    URL-encoded in CSV and taken as it is in Parquet and JSON Lines, as S3 Inventory writes it; its
    ``is_latest`` and ``is_delete_marker`` leave rows out. A relative path starts at the manifest's
    folder and may not leave it. ETag or version, and size, are taken when they are there. A row
    without a category keeps "", which no champion has.

    Raises:
        StorageError: the file cannot be read.
        ManifestError: a column is missing, an image has no URI or is listed twice, a path leads
            out of the folder.
    """
    uri = storage.absolute(uri)
    if uri.lower().endswith(".json"):
        refuse_inventory(uri)
    table = current(read_columns(uri, SPELLINGS), "is_latest", "is_delete_marker")
    table = _with_uris(table, uri)
    for column in ("image_uri", "category"):
        if table[column].null_count == table.num_rows:
            raise ManifestError(
                f"{uri}: no row has {' or '.join(SPELLINGS[column])}; every row needs an "
                f"image_uri (or source-ref, or bucket and key) and a category"
            )
    refuse_missing(table, "image_uri", uri)
    table = table.set_column(0, "image_uri", resolve_uris(table["image_uri"], uri))
    refuse_duplicates(table, "image_uri", uri)
    return _as_manifest(table, uri).sort_by("image_uri")


def shards(manifest: pa.Table, rows_per_shard: int = 512) -> list[Shard]:
    """Consecutive slices of each category's rows, named by category, position and content.

    A shard holds one category, so that a new champion touches no other category's shards.
    """
    if rows_per_shard < 1:
        raise ValueError(f"rows_per_shard must be at least 1, got {rows_per_shard}")
    ordered = manifest.sort_by([("category", "ascending"), ("image_uri", "ascending")])
    cut, start = [], 0
    for entry in ordered["category"].value_counts().to_pylist():
        category, count = entry["values"], entry["counts"]
        for number, first in enumerate(range(0, count, rows_per_shard)):
            rows = ordered.slice(start + first, min(rows_per_shard, count - first))
            name = f"{shard_prefix(category)}-{number:05d}-{_digest(rows):.12}"
            cut.append(Shard(name, category, rows))
        start += count
    return cut


def shard_prefix(category: str) -> str:
    """How the names of a category's shards begin: a folder of a dump may have any name."""
    return file_name(category)


def _with_uris(table: pa.Table, manifest: str) -> pa.Table:
    """An S3 Inventory names bucket and key; everybody else names the image."""
    if table["image_uri"].null_count < table.num_rows or not table.num_rows:
        return table
    if table["key"].null_count == table.num_rows:
        return table
    refuse_missing(table, "bucket", manifest)
    refuse_missing(table, "key", manifest)
    keys = decoded_keys(table["key"], manifest) if is_csv(manifest) else table["key"]
    start = pc.binary_join_element_wise("s3://", table["bucket"], "")
    uris = pc.binary_join_element_wise(start, keys, "/")
    return table.set_column(0, "image_uri", uris)


def _as_manifest(table: pa.Table, uri: str) -> pa.Table:
    try:
        sizes = pc.cast(_null_if_empty(table["size_bytes"]), pa.int64())
    except pa.ArrowInvalid as error:
        raise ManifestError(f"{uri}: size must be a whole number of bytes: {error}") from error
    etags = _null_if_empty(pc.utf8_trim(table["image_etag"], '"'))
    categories = pc.fill_null(table["category"], "")
    return pa.table([table["image_uri"], etags, sizes, categories], MANIFEST_SCHEMA)


def _null_if_empty(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.equal(values, ""), None, values)


def _digest(rows: pa.Table) -> str:
    identity = rows.select(["image_uri", "image_etag", "category"]).to_pydict()
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
