"""The drift of every night as a table on storage, so that trends are seen over nights.

One file a night under ``<out>/drift/night=<YYYY-MM-DD>/``, one row per category and statistic: any
Parquet reader takes all nights at once with ``drift/*/drift.parquet``.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.night.results import PARALLEL_READS, ResultsError, check_night
from pipeline.night.settling.drift import Comparison

DRIFT_SCHEMA = pa.schema(
    [
        pa.field("night", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("statistic", pa.string(), nullable=False),  # score, brightness, ...
        pa.field("model_version", pa.string()),  # whose calibration it is compared with
        pa.field("num_calibration", pa.int64()),
        pa.field("num_images", pa.int64()),
        pa.field("direction", pa.string()),
        pa.field("ks", pa.float64()),
        pa.field("p_value", pa.float64()),
        pa.field("psi", pa.float64()),
        pa.field("median", pa.float64()),
        pa.field("calibration_median", pa.float64()),
        pa.field("alert", pa.bool_(), nullable=False),
    ]
)


def drift_uri(out: str, night: str) -> str:
    """Where a night's drift is."""
    return storage.join(out, "drift", f"night={check_night(night)}", "drift.parquet")


def write_drift(
    out: str,
    night: str,
    comparisons: Sequence[Comparison],
    shifted: Mapping[str, Sequence[Comparison]],
    versions: Mapping[str, str],
) -> str:
    """Store a night's comparisons and return the address of the file.

    Args:
        out: where the night's results are.
        night: its date.
        comparisons: all that were made.
        shifted: those that raise an alert, by category.
        versions: the champion's version by category.
    """
    fields = [name for name in DRIFT_SCHEMA.names if name in Comparison.__dataclass_fields__]
    rows = [
        {name: getattr(comparison, name) for name in fields}
        | {
            "night": night,
            "model_version": versions[comparison.category],
            "alert": comparison in shifted.get(comparison.category, ()),
        }
        for comparison in comparisons
    ]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, DRIFT_SCHEMA), buffer, compression="zstd")
    uri = drift_uri(out, night)
    storage.write_bytes(uri, buffer.getvalue())
    return uri


def read_drift(out: str, nights: Iterable[str]) -> pa.Table:
    """Return the drift of several nights, in their order; nights without any are left out.

    Raises:
        ResultsError: a file is damaged.
    """
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        tables = pool.map(lambda night: _read(drift_uri(out, night)), nights)
        return pa.concat_tables([DRIFT_SCHEMA.empty_table(), *tables])


def _read(uri: str) -> pa.Table:
    try:
        content = storage.read_bytes(uri)
    except storage.ObjectMissing:
        return DRIFT_SCHEMA.empty_table()
    try:
        rows = pq.ParquetFile(pa.BufferReader(content)).read()
        return rows.select(DRIFT_SCHEMA.names).cast(DRIFT_SCHEMA)
    except (pa.ArrowException, KeyError) as error:
        raise ResultsError(
            f"{uri} does not hold a night's drift ({error}); delete it and settle the night again "
            f"(`nightshift score` with the same night)"
        ) from error
