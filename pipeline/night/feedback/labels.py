"""What people said about a night's images, stored beside the night.

Labels lie under ``<out>/labels/night=<N>/<digest>.parquet``, one object per file that came in.
The name is a digest of the content, so the same labels twice change nothing and two people never
overwrite each other. Of several labels of one image the latest counts.
"""

import hashlib
import io
from collections.abc import Iterable
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from model.errors import NightshiftError
from pipeline import storage
from pipeline.night.folder import SUFFIX, NightFolder

LABEL_SCHEMA = pa.schema(
    [
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("image_etag", pa.string()),
        pa.field("category", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),  # defect | good
        pa.field("night", pa.string(), nullable=False),
        pa.field("model_name", pa.string()),
        pa.field("model_version", pa.string()),
        pa.field("labelled_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)


class LabelsError(NightshiftError):
    """A file of labels has bad lines, or stored labels cannot be read."""


class Label(BaseModel):
    """What somebody said about one image; one line of a file of labels."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    image_uri: Annotated[str, Field(min_length=1)]
    image_etag: str | None = None
    category: str
    label: Literal["defect", "good"]
    night: str
    model_name: str | None = None  # of the model whose decision was judged
    model_version: str | None = None
    labelled_at: AwareDatetime


def read_labels(folder: NightFolder) -> pa.Table:
    """Every labelled image of a night once, with its latest label, sorted by image_uri.

    Raises:
        LabelsError: a stored file is damaged.
    """
    try:
        names = [name for name in storage.list_names(folder.labels) if name.endswith(SUFFIX)]
    except storage.ObjectMissing:
        names = []
    tables = [_read(storage.join(folder.labels, name)) for name in names]
    order = [(name, "ascending") for name in ("image_uri", "labelled_at", "label")]
    rows = pa.concat_tables([LABEL_SCHEMA.empty_table(), *tables]).sort_by(order)
    latest: dict[str, int] = {uri: row for row, uri in enumerate(rows["image_uri"].to_pylist())}
    return rows.take(pa.array(latest.values(), pa.int64()))


def _read(uri: str) -> pa.Table:
    try:
        rows = pq.read_table(pa.BufferReader(storage.read_bytes(uri)))
        return rows.select(LABEL_SCHEMA.names).cast(LABEL_SCHEMA)
    except (pa.ArrowException, KeyError) as error:
        raise LabelsError(
            f"{uri} does not hold labels ({error}); delete it and import its labels again"
        ) from error


def store_labels(folder: NightFolder, labels: Iterable[Label]) -> int:
    """Store labels of one night and return of how many images they are.

    Of two labels of one image at the same moment, the later of ``labels`` counts.
    """
    latest: dict[str, Label] = {}
    for label in labels:
        known = latest.get(label.image_uri)
        if known is None or label.labelled_at >= known.labelled_at:
            latest[label.image_uri] = label
    rows = pa.Table.from_pylist(
        [latest[uri].model_dump() for uri in sorted(latest)], schema=LABEL_SCHEMA
    )
    uri = storage.join(folder.labels, _digest(rows) + SUFFIX)
    if not storage.exists(uri):
        buffer = io.BytesIO()
        pq.write_table(rows, buffer, compression="zstd")
        storage.write_bytes(uri, buffer.getvalue())
    return len(latest)


def _digest(rows: pa.Table) -> str:
    content = repr([tuple(row.values()) for row in rows.to_pylist()])
    return hashlib.sha256(content.encode()).hexdigest()[:32]
