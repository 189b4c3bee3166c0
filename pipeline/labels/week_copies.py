"""Copies of the label table by week, so that a report of many nights reads a few files.

``<folder>/week=<monday>.copy`` repeats the files of one week's nights, every row with the file
that it is from: a SHA-256 digest, then the Parquet file that it is of. The table alone says what
counts: rows of a file that is not asked for are left out, a file that the copy lacks is read where
it lies and copied, and a copy that is missing or damaged is made anew. Files of the table never
change, so a copy of one is never out of date. Two reports at once each write a copy that is right.
"""

import datetime as dt
import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.labels.label import LABEL_SCHEMA
from pipeline.storage.parquet import from_parquet, to_parquet

FILE = pa.field("file", pa.string(), nullable=False)
SCHEMA = pa.schema([*LABEL_SCHEMA, FILE])
DIGEST_BYTES = hashlib.sha256().digest_size

ReadFiles = Callable[[Collection[str]], list[pa.Table]]  # one table for each


@dataclass(frozen=True)
class WeekCopies:
    """The copies in one folder."""

    folder: str

    def read(self, files: Collection[str], read_files: ReadFiles) -> pa.Table:
        """Return the rows of files of the table, LABEL_SCHEMA; copies are written meanwhile.

        Args:
            files: addresses that end in ``category=<category>/<night>-<digest>.parquet``.
            read_files: reads those that no copy has.
        """
        weeks: dict[str, dict[str, str]] = defaultdict(dict)  # address by name in the copy
        for uri in files:
            *_, category, name = uri.split("/")
            weeks[monday(name.rpartition("-")[0])][f"{category}/{name}"] = uri
        tables = [self._of_week(week, own, read_files) for week, own in sorted(weeks.items())]
        return pa.concat_tables([LABEL_SCHEMA.empty_table(), *tables])

    def _of_week(self, week: str, files: dict[str, str], read_files: ReadFiles) -> pa.Table:
        uri = storage.join(self.folder, f"week={week}.copy")
        rows = _read(uri)
        new = sorted(files.keys() - {*rows[FILE.name].unique().to_pylist()})
        if new:
            tables = read_files([files[name] for name in new])
            rows = pa.concat_tables([rows, *map(_with_file, tables, new)])
            content = to_parquet(rows)
            storage.write_bytes(uri, hashlib.sha256(content).digest() + content)
        asked = pc.is_in(rows[FILE.name], value_set=pa.array(sorted(files), FILE.type))
        return rows.filter(asked).select(LABEL_SCHEMA.names)


def monday(night: str) -> str:
    """Return the first day of a night's week."""
    date = dt.date.fromisoformat(night)
    return (date - dt.timedelta(days=date.weekday())).isoformat()


def _read(uri: str) -> pa.Table:
    """Return a copy's rows; none where there is no copy, or one that is damaged."""
    found = storage.read_if_there(uri) or b""
    digest, content = found[:DIGEST_BYTES], found[DIGEST_BYTES:]
    if hashlib.sha256(content).digest() == digest:
        with suppress(pa.ArrowException, KeyError):  # of a release with other columns
            return from_parquet(content).select(SCHEMA.names).cast(SCHEMA)
    return SCHEMA.empty_table()


def _with_file(rows: pa.Table, name: str) -> pa.Table:
    return rows.append_column(FILE, pa.repeat(pa.scalar(name, FILE.type), rows.num_rows))
