"""Amazon S3 Inventory: the objects of a bucket as S3 lists them once a day, read instead of listed.

An inventory is a ``manifest.json`` that names its data files, which are CSV (gzip, no header),
Parquet or ORC. Keys are URL-encoded in CSV, a blank as ``+``, and plain in the other two.

Source: Amazon S3 User Guide, "Amazon S3 Inventory list" and "Locating your inventory list".
"""

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.orc
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.datasets.image_lists import ManifestError

OBJECTS = pa.schema(
    [("image_uri", pa.string()), ("image_etag", pa.string()), ("size_bytes", pa.int64())]
)
KEYS_OF_MANIFEST = {"sourceBucket", "destinationBucket", "fileFormat", "fileSchema", "files"}
COLUMNS = ("key", "etag", "size", "islatest", "isdeletemarker")  # as ``_plain`` writes them
NOT_ENCODED = r"[^!-~]|%([^0-9A-Fa-f]|.[^0-9A-Fa-f]|.?$)"  # what URL encoding never leaves


@dataclass(frozen=True, kw_only=True)
class InventoriedDump:
    """A dump whose objects an S3 Inventory lists."""

    prefix: str  # s3://bucket/folder
    inventory: str  # its manifest.json


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """What the ``manifest.json`` of an inventory says."""

    uri: str
    source_bucket: str
    file_format: str  # CSV, Parquet or ORC
    columns: list[str]  # of CSV, which has no header; the others name their own
    files: list[dict[str, str]]  # uri and md5 of each
    made_at: str  # "" where it does not say


def inventory_objects(dump: InventoriedDump) -> pa.Table:
    """Return the current objects below the dump's prefix, hidden ones too.

    Old versions, delete markers and the marks of folders are left out.

    Returns:
        A table of OBJECTS, in any order; ETag and size are null where the inventory has none.

    Raises:
        StorageError: a file of the inventory cannot be read.
        ManifestError: it is no inventory, or one of another bucket, or its files are not whole.
    """
    inventory = _read_manifest(dump.inventory)
    bucket, _, folder = dump.prefix.rstrip("/").removeprefix("s3://").partition("/")
    if storage.is_local(dump.prefix) or bucket != inventory.source_bucket:
        raise ManifestError(
            f"{dump.inventory} is the inventory of s3://{inventory.source_bucket}, and the dump is "
            f"{dump.prefix}; name a prefix of that bucket"
        )
    start = f"{folder}/" if folder else ""
    parts = [_below(rows, start, inventory) for rows in _data_files(inventory)]
    objects = pa.concat_tables([OBJECTS.empty_table(), *parts])
    if not objects.num_rows:
        raise ManifestError(
            f"{dump.inventory}, made {inventory.made_at or 'at an unknown time'}, lists nothing "
            f"below {dump.prefix}; wait for the next one, or list the dump without --inventory"
        )
    return objects


def refuse_inventory(uri: str) -> None:
    """Raise ManifestError where a file is the ``manifest.json`` of an S3 Inventory."""
    content = _json(storage.read_bytes(uri))
    if isinstance(content, dict) and content.keys() >= KEYS_OF_MANIFEST:
        raise ManifestError(
            f"{uri} is an S3 Inventory, which does not say where the dump begins: write nightshift "
            f"score s3://{content['sourceBucket']}/<dump> --inventory {uri}"
        )


def decoded_keys(keys: pa.ChunkedArray, uri: str) -> pa.ChunkedArray:
    """Return URL-encoded keys as they are.

    Raises:
        ManifestError: a key is not URL-encoded.
    """
    plain = pc.match_substring_regex(keys, NOT_ENCODED)
    row = pc.index(plain, True).as_py()
    if row >= 0:
        raise ManifestError(
            f"{uri}: keys in CSV are URL-encoded, as S3 Inventory writes them, and "
            f"{pc.sum(plain).as_py()} of {len(keys)} are not, the first is row {row + 1}: "
            f"{keys[row].as_py()!r}; write image_uri as s3://bucket/key, which is taken as it is"
        )
    encoded = pc.match_substring_regex(keys, "[%+]")
    try:
        found = [unquote_plus(key, errors="strict") for key in keys.filter(encoded).to_pylist()]
    except UnicodeDecodeError as error:
        raise ManifestError(f"{uri}: a key is no URL-encoded UTF-8: {error}") from error
    decoded = pc.replace_with_mask(
        keys.combine_chunks(), encoded.combine_chunks(), pa.array(found, pa.string())
    )
    return pa.chunked_array([decoded])


def current(rows: pa.Table, is_latest: str, is_delete_marker: str) -> pa.Table:
    """Return the rows that are neither an old version nor a delete marker; null says no."""
    old = pc.equal(pc.utf8_lower(rows[is_latest]), "false")
    deleted = pc.equal(pc.utf8_lower(rows[is_delete_marker]), "true")
    gone = pc.or_(pc.fill_null(old, False), pc.fill_null(deleted, False))
    return rows.filter(pc.invert(gone))


def _read_manifest(uri: str) -> Inventory:
    try:
        return _inventory(uri, json.loads(storage.read_bytes(uri)))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ManifestError(
            f"{uri} is not the manifest.json of an S3 Inventory ({error!r}): it must name "
            f"{', '.join(sorted(KEYS_OF_MANIFEST))}"
        ) from error


def _inventory(uri: str, content: Any) -> Inventory:
    bucket = content["destinationBucket"].rpartition(":")[2]  # an ARN
    return Inventory(
        uri=uri,
        source_bucket=str(content["sourceBucket"]),
        file_format=str(content["fileFormat"]),
        columns=[name.strip() for name in content["fileSchema"].split(",")],
        files=[
            {"uri": f"s3://{bucket}/{file['key']}", "md5": file.get("MD5checksum", "")}
            for file in content["files"]
        ],
        made_at=_time(content.get("creationTimestamp")),
    )


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _time(milliseconds: str | None) -> str:
    if not milliseconds:
        return ""
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC).isoformat(timespec="minutes")


def _data_files(inventory: Inventory) -> Iterator[pa.Table]:
    """Read one data file after the other: COLUMNS as text, null where a column is missing."""
    for file in inventory.files:
        data = storage.read_bytes(file["uri"])
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if file["md5"] not in ("", md5):
            raise ManifestError(
                f"{file['uri']} is not the file that {inventory.uri} names: its MD5 is {md5}, not "
                f"{file['md5']}; copy the inventory whole, or take the next one"
            )
        try:
            table = _read_rows(data, inventory)
        except (pa.ArrowException, OSError, EOFError, zlib.error) as error:
            reason = " ".join(str(error).split())
            raise ManifestError(
                f"{file['uri']} is no readable {inventory.file_format} file of an inventory: "
                f"{reason}"
            ) from error
        yield _as_text(table, file["uri"])


def _read_rows(data: bytes, inventory: Inventory) -> pa.Table:
    match inventory.file_format.lower():
        case "csv":
            text = pa.BufferReader(gzip.decompress(data))
            names = inventory.columns
            wanted = [name for name in names if _plain(name) in COLUMNS]
            return pa.csv.read_csv(
                text,
                read_options=pa.csv.ReadOptions(column_names=names),
                convert_options=pa.csv.ConvertOptions(
                    include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string())
                ),
            )
        case "parquet":
            return pq.read_table(pa.BufferReader(data))
        case "orc":
            return pyarrow.orc.read_table(pa.BufferReader(data))
    raise ManifestError(
        f"{inventory.uri}: the format {inventory.file_format} is unknown; choose CSV, Parquet or "
        f"ORC for the inventory"
    )


def _as_text(table: pa.Table, uri: str) -> pa.Table:
    present = {_plain(name): table[name] for name in table.column_names}
    if "key" not in present:
        raise ManifestError(f"{uri} has no column of keys, only {', '.join(table.column_names)}")
    nothing = pa.nulls(table.num_rows, pa.string())
    return pa.table({name: present.get(name, nothing).cast(pa.string()) for name in COLUMNS})


def _below(rows: pa.Table, start: str, inventory: Inventory) -> pa.Table:
    """Return what is below a prefix as OBJECTS."""
    rows = current(rows, "islatest", "isdeletemarker")
    if inventory.file_format.lower() == "csv":
        rows = rows.set_column(0, "key", decoded_keys(rows["key"], inventory.uri))
    inside = pc.and_(pc.starts_with(rows["key"], start), pc.invert(pc.ends_with(rows["key"], "/")))
    rows = rows.filter(inside)
    uris = pc.binary_join_element_wise(f"s3://{inventory.source_bucket}", rows["key"], "/")
    etags, sizes = (pc.if_else(pc.equal(rows[n], ""), None, rows[n]) for n in ("etag", "size"))
    return pa.table([uris, pc.utf8_trim(etags, '"'), sizes.cast(pa.int64())], schema=OBJECTS)


def _plain(name: str) -> str:
    """Write ``IsLatest`` of CSV and ``is_latest`` of Parquet and ORC in one way."""
    return re.sub(r"[^a-z]", "", name.lower())
