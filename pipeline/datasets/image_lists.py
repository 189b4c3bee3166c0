"""Files that list images, one row each: Parquet, CSV or JSON Lines, here or on S3, gzip or not.

Other tools name the same things differently; a caller asks for columns under its own names and says
which spellings count, in any case, with blanks around them, and with hyphens for underscores.
Blanks around values do not count in CSV, where people write them after commas. A column that is
nearly named as one that is missing is refused, and so is one that holds no text: lists, objects,
bytes. Numbers are text as they are written. Of nested objects in JSON Lines only the ``class-name``
counts that Ground Truth and Lookout for Vision put inside ``<label>-metadata``.
"""

import difflib
import gzip
import io
import json
import posixpath
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from model.errors import CategoryFault
from pipeline import storage

ROWS_AT_ONCE = 65_536
PARQUET_SUFFIXES = (".parquet", ".pq")
JSON_SUFFIXES = (".jsonl", ".json", ".ndjson", ".manifest")
PACKED = ".gz"
TEXT_SUFFIXES = (".csv", *JSON_SUFFIXES)
MANIFEST_SUFFIXES = (*PARQUET_SUFFIXES, *TEXT_SUFFIXES, *(s + PACKED for s in TEXT_SUFFIXES))
NEAR = 0.8  # similarity from which on a column's name must be a slip
SHORT = 4  # letters: names like `key` and `size` are near to too much

Spellings = Mapping[str, tuple[str, ...]]
EXAMPLE_LETTERS = 60


class ManifestError(CategoryFault):
    """A manifest that cannot be used as it is."""


def is_manifest(uri: str) -> bool:
    """Say whether a file lists images, by its suffix in whatever case."""
    return uri.lower().endswith(MANIFEST_SUFFIXES)


def is_csv(uri: str) -> bool:
    """Say whether a manifest is CSV, packed or not."""
    return _suffix(uri) == ".csv"


@dataclass(frozen=True, kw_only=True)
class Raw:
    """A file as its format gives it: only the columns that may be asked for, under any spelling."""

    table: pa.Table
    present: list[str]  # the names of all columns
    nested: Mapping[str, "Nested"] = field(default_factory=dict)  # by column, JSON Lines only


@dataclass(kw_only=True)
class Nested:
    """Values of a column of JSON Lines that are lists or objects."""

    first_row: int
    example: str
    count: int = 0


@dataclass(frozen=True, kw_only=True)
class ImageList:
    """The columns that were asked for, and what else the file has."""

    table: pa.Table  # strings, null where the file has no such column or no value
    used: Mapping[str, str]  # name asked for -> the column's own
    unused: list[str]  # columns that nobody asked for, or of which another spelling was taken


def read_columns(uri: str, columns: Spellings) -> pa.Table:
    """Return the table of ``read_list``."""
    return read_list(uri, columns).table


def read_list(uri: str, columns: Spellings) -> ImageList:
    """Read the asked columns of a file.

    Args:
        uri: the manifest; its suffix says what it is.
        columns: name wanted -> spellings that count; the first one with any value is taken.

    Raises:
        StorageError: the file cannot be read.
        ManifestError: it is not what its suffix says, a column is nearly named as a missing one, or
            an asked one holds no text.
    """
    data, suffix = storage.read_bytes(uri), _suffix(uri)
    try:
        if uri.lower().endswith(PACKED):
            data = gzip.decompress(data)
        if suffix in PARQUET_SUFFIXES:
            raw = _read_parquet(data, columns)
        elif suffix == ".csv":
            raw = _read_csv(data, columns)
        else:
            raw = _read_json_lines(uri, data, columns)
    except (pa.ArrowException, UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise ManifestError(f"{uri} is no readable {suffix} file: {reason}") from error
    return _chosen(uri, raw, columns)


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


def _suffix(uri: str) -> str:
    """Return the suffix of a manifest as it is unpacked."""
    if not is_manifest(uri):
        raise ManifestError(f"{uri}: a manifest ends in {', '.join(MANIFEST_SUFFIXES)}")
    return posixpath.splitext(uri.lower().removesuffix(PACKED))[1]


def _read_parquet(data: bytes, columns: Spellings) -> Raw:
    file = pq.ParquetFile(pa.BufferReader(data))
    present = file.schema_arrow.names
    return Raw(table=file.read(columns=_wanted(present, columns)), present=present)


def _read_csv(data: bytes, columns: Spellings) -> Raw:
    present = pa.csv.open_csv(pa.BufferReader(data)).schema.names
    wanted = _wanted(present, columns) or present
    convert = pa.csv.ConvertOptions(
        include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string())
    )
    parse = pa.csv.ParseOptions(newlines_in_values=True)
    source = pa.BufferReader(data)
    table = pa.csv.read_csv(source, parse_options=parse, convert_options=convert)
    trimmed = [pc.utf8_trim_whitespace(column) for column in table.columns]
    return Raw(table=pa.table(trimmed, table.column_names), present=present)


def _read_json_lines(uri: str, data: bytes, columns: Spellings) -> Raw:
    wanted = {_plain(spelling) for names in columns.values() for spelling in names}
    schema = pa.schema([(name, pa.string()) for name in sorted(wanted)])
    present: dict[str, str] = {}  # as written, by plain name
    nested: dict[str, Nested] = {}
    batches, rows, before = [], list[dict[str, str | None]](), 0
    for number, line in enumerate(io.BytesIO(data), start=1):
        if line.strip():
            row = _flat(uri, number, line)
            present |= {_plain(name): name for name in row if _plain(name) not in present}
            plain = {_plain(name): value for name, value in row.items()}
            if len(plain) < len(row):
                raise ManifestError(f"{uri} line {number}: two keys are named alike; rename one")
            _note_nested(nested, plain, before + len(rows) + 1)
            rows.append({name: _text(value) for name, value in plain.items()})
        if len(rows) == ROWS_AT_ONCE:
            batches.append(pa.RecordBatch.from_pylist(rows, schema))
            before, rows = before + len(rows), []
    batches.append(pa.RecordBatch.from_pylist(rows, schema))
    table = pa.Table.from_batches(batches).select(sorted(wanted & present.keys()))
    return Raw(
        table=table.rename_columns([present[name] for name in table.column_names]),
        present=[*present.values()],
        nested={present[name]: values for name, values in nested.items()},
    )


def _flat(uri: str, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except ValueError as error:
        raise ManifestError(f"{uri} line {number} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ManifestError(f"{uri} line {number} is not a JSON object; write one per line")
    flat = {key: value for key, value in row.items() if not key.endswith("-metadata")}
    for key, value in row.items():
        if key.endswith("-metadata") and isinstance(value, dict) and "class-name" in value:
            flat["class-name"] = value["class-name"]
    return flat


def _note_nested(nested: dict[str, Nested], row: Mapping[str, Any], number: int) -> None:
    for name, value in row.items():
        if isinstance(value, dict | list):
            first = Nested(first_row=number, example=json.dumps(value)[:EXAMPLE_LETTERS])
            nested.setdefault(name, first).count += 1


def _text(value: Any) -> str | None:
    return value if isinstance(value, str | None) else json.dumps(value)


def _plain(name: str) -> str:
    """Return a column's name as it is compared."""
    return re.sub(r"[\s-]+", "_", name.strip().lstrip("\ufeff").casefold())


def _wanted(present: Sequence[str], columns: Spellings) -> list[str]:
    spellings = {_plain(spelling) for names in columns.values() for spelling in names}
    return [name for name in present if _plain(name) in spellings]


def _chosen(uri: str, raw: Raw, columns: Spellings) -> ImageList:
    """Take the first spelling of each column that has any value, or is there at all."""
    table, present = raw.table, raw.present
    nothing = pa.nulls(table.num_rows, pa.string())
    by_plain = {_plain(name): name for name in present}
    if len(by_plain) < len(present):
        unlike = Counter(_plain(name) for name in present)
        alike = next(name for name in present if unlike[_plain(name)] > 1)
        raise ManifestError(f"{uri}: two columns are named like {alike!r}; rename one")
    taken, used = {}, {}
    for name, spellings in columns.items():
        there = [by_plain[_plain(s)] for s in spellings if _plain(s) in by_plain]
        filled = [own for own in there if table[own].null_count < table.num_rows]
        for own in (filled or there)[:1]:
            taken[name], used[name] = _texts(uri, raw, name, own), own
    unused = [name for name in present if name not in used.values()]
    _refuse_slips(uri, unused, {name: columns[name] for name in columns if name not in used})
    return ImageList(
        table=pa.table({name: taken.get(name, nothing) for name in columns}),
        used=used,
        unused=unused,
    )


def _texts(uri: str, raw: Raw, name: str, own: str) -> pa.ChunkedArray:
    """Return the values of a column as text; ``name`` is what it was asked for as."""
    column, nested = raw.table[own], raw.nested.get(own)
    if nested is not None:
        raise ManifestError(
            f"{uri}: {nested.count} of {len(column)} rows have a nested {name} in the column "
            f"`{own}`, first row {nested.first_row}: {nested.example}; write plain text"
        )
    if column.null_count == len(column):
        return pa.nulls(len(column), pa.string())
    try:
        return column.cast(pa.string())
    except pa.ArrowException as error:  # lists, structs, maps; bytes that are no UTF-8
        raise ManifestError(
            f"{uri}: the column `{own}` is of type {column.type}, which is no text; write {name} "
            f"as plain text (UTF-8)"
        ) from error


def _refuse_slips(uri: str, unused: Sequence[str], missing: Spellings) -> None:
    """Raise ManifestError where a column is nearly named as one that is missing."""
    spellings = [_plain(s) for names in missing.values() for s in names if len(s) > SHORT]
    for name in unused:
        close = difflib.get_close_matches(_plain(name), spellings, n=1, cutoff=NEAR)
        if close:
            raise ManifestError(
                f"{uri}: is the column {name!r} to mean `{close[0]}`? It is not used as it is; "
                f"rename it, or leave it out"
            )
