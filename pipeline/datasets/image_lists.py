"""Files that list images, one row each: Parquet, CSV or JSON Lines, here or on S3.

Other tools name the same things differently; a caller asks for columns under its own names and says
which spellings count. Nested objects of JSON Lines are not columns, but for the ``class-name`` that
Ground Truth and Lookout for Vision put inside ``<label>-metadata``.
"""

import io
import json
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from model.errors import NightshiftError
from pipeline import storage

ROWS_AT_ONCE = 65_536
PARQUET_SUFFIXES = (".parquet", ".pq")
JSON_SUFFIXES = (".jsonl", ".json", ".ndjson", ".manifest")
MANIFEST_SUFFIXES = (*PARQUET_SUFFIXES, ".csv", *JSON_SUFFIXES)
Spellings = Mapping[str, tuple[str, ...]]


class ManifestError(NightshiftError):
    """A manifest that cannot be used as it is."""


def is_manifest(uri: str) -> bool:
    """Say whether a file lists images, by its suffix in whatever case."""
    return uri.lower().endswith(MANIFEST_SUFFIXES)


def read_columns(uri: str, columns: Spellings) -> pa.Table:
    """The asked columns as strings, null where the file has no such column or no value.

    Args:
        uri: the manifest; its suffix says what it is.
        columns: name wanted -> spellings that count; the first one present is taken.

    Raises:
        StorageError: the file cannot be read.
        ManifestError: it is not what its suffix says.
    """
    data = storage.read_bytes(uri)
    suffix = posixpath.splitext(uri)[1].lower()
    try:
        if suffix in PARQUET_SUFFIXES:
            table = _read_parquet(data, columns)
        elif suffix == ".csv":
            table = _read_csv(data, columns)
        elif suffix in JSON_SUFFIXES:
            table = pa.Table.from_batches(_read_json_lines(uri, data, columns))
        else:
            raise ManifestError(f"{uri}: a manifest ends in {', '.join(MANIFEST_SUFFIXES)}")
    except (pa.ArrowException, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ManifestError(f"{uri} is no readable {suffix} file: {reason}") from error
    return _renamed(table, columns)


def resolve_uris(uris: pa.ChunkedArray, manifest: str) -> pa.ChunkedArray:
    """Relative paths made absolute: they start at the manifest's folder and may not leave it."""
    folder = manifest.rpartition("/")[0]
    chunks = [
        pa.array([resolve_uri(uri, folder) for uri in uris.slice(start, ROWS_AT_ONCE).to_pylist()])
        for start in range(0, len(uris), ROWS_AT_ONCE)
    ]
    return pa.chunked_array(chunks, type=pa.string())


def resolve_uri(uri: str, folder: str) -> str:
    """The place that one row means: a relative path starts at ``folder`` and may not leave it."""
    if uri.startswith(("/", "s3://")):
        return uri
    if "://" in uri:
        return storage.absolute(uri)
    inside = posixpath.normpath(uri)
    if inside == ".." or inside.startswith("../"):
        raise ManifestError(
            f"{uri!r} leads out of the manifest's folder {folder}; write the full path or s3:// URI"
        )
    return storage.join(folder, inside)


def refuse_missing(table: pa.Table, column: str, manifest: str) -> None:
    """Raise ManifestError when any row of ``column`` is null or empty."""
    empty = pc.fill_null(pc.equal(table[column], ""), True)
    count = pc.sum(empty).as_py() or 0
    if count:
        row = pc.index(empty, True).as_py() + 1
        raise ManifestError(
            f"{manifest}: {count} of {table.num_rows} rows have no {column}, the first is row "
            f"{row}; fill or remove them"
        )


def refuse_duplicates(table: pa.Table, column: str, manifest: str) -> None:
    """Raise ManifestError when any value of ``column`` is there twice."""
    counts = table[column].value_counts()
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        example = repeated.field("values")[0].as_py()
        raise ManifestError(
            f"{manifest}: {len(repeated)} values of {column} are there more than once, among them "
            f"{example!r}; list every image once"
        )


def _read_parquet(data: bytes, columns: Spellings) -> pa.Table:
    file = pq.ParquetFile(pa.BufferReader(data))
    return file.read(columns=_wanted(file.schema_arrow.names, columns) or None)


def _read_csv(data: bytes, columns: Spellings) -> pa.Table:
    header = pa.csv.open_csv(pa.BufferReader(data)).schema.names
    wanted = _wanted(header, columns) or header
    convert = pa.csv.ConvertOptions(
        include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string())
    )
    parse = pa.csv.ParseOptions(newlines_in_values=True)
    return pa.csv.read_csv(pa.BufferReader(data), parse_options=parse, convert_options=convert)


def _read_json_lines(uri: str, data: bytes, columns: Spellings) -> Iterator[pa.RecordBatch]:
    spellings = sorted({spelling for names in columns.values() for spelling in names})
    schema = pa.schema([(spelling, pa.string()) for spelling in spellings])
    rows: list[dict[str, str | None]] = []
    for number, line in enumerate(io.BytesIO(data), start=1):
        if line.strip():
            rows.append(_flat(uri, number, line))
        if len(rows) == ROWS_AT_ONCE:
            yield pa.RecordBatch.from_pylist(rows, schema)
            rows = []
    yield pa.RecordBatch.from_pylist(rows, schema)


def _flat(uri: str, number: int, line: bytes) -> dict[str, str | None]:
    try:
        row = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except ValueError as error:
        raise ManifestError(f"{uri} line {number} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ManifestError(f"{uri} line {number} is not a JSON object; write one per line")
    flat = {key: _text(value) for key, value in row.items()}
    for key, value in row.items():
        if key.endswith("-metadata") and isinstance(value, dict) and "class-name" in value:
            flat["class-name"] = _text(value["class-name"])
    return flat


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, dict | list):
        return None
    return value if isinstance(value, str) else json.dumps(value)


def _wanted(present: list[str], columns: Spellings) -> list[str]:
    spellings = [spelling for names in columns.values() for spelling in names]
    return [spelling for spelling in spellings if spelling in present]


def _renamed(table: pa.Table, columns: Spellings) -> pa.Table:
    nothing = pa.nulls(table.num_rows, pa.string())
    found = {}
    for name, spellings in columns.items():
        present = [table[s] for s in spellings if s in table.column_names]
        filled = [c for c in present if c.null_count < len(c)]
        found[name] = filled[0].cast(pa.string()) if filled else nothing
    return pa.table(found)
