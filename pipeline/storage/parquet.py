"""Tables as the bytes of a Parquet file, and back."""

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq


def to_parquet(rows: pa.Table) -> bytes:
    """Return the file that holds a table, compressed."""
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd")
    return buffer.getvalue()


def from_parquet(content: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Return some columns of a file, by default all; those that it lacks are left out.

    Raises:
        pa.ArrowException: it is no such file, or damaged.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        return file.read(None if columns is None else list(columns), use_threads=False)
    except OSError as error:  # of a damaged header or page
        raise pa.ArrowInvalid(str(error)) from error
