"""The drift of every night as a table on storage, so that trends are seen over nights.

One file a night under ``<out>/drift/night=<YYYY-MM-DD>/``, one row per category and statistic: any
Parquet reader takes all nights at once with ``drift/*/drift.parquet``.
"""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from pipeline import storage
from pipeline.night.folder import NightFolder
from pipeline.night.settling.drift import Comparison
from pipeline.storage.parquet import to_parquet

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


def write_drift(
    folder: NightFolder,
    comparisons: Sequence[Comparison],
    shifted: Mapping[str, Sequence[Comparison]],
    versions: Mapping[str, str],
) -> None:
    """Store a night's comparisons, those of ``shifted`` categories as alerts."""
    fields = [name for name in DRIFT_SCHEMA.names if name in Comparison.__dataclass_fields__]
    rows = [
        {name: getattr(comparison, name) for name in fields}
        | {
            "night": folder.night,
            "model_version": versions[comparison.category],
            "alert": comparison in shifted.get(comparison.category, ()),
        }
        for comparison in comparisons
    ]
    storage.write_bytes(folder.drift, to_parquet(pa.Table.from_pylist(rows, DRIFT_SCHEMA)))
