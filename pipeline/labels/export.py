"""Labels that count, as a file for elsewhere: JSON Lines, COCO JSON or FiftyOne's JSON.

Each can be imported again, and says then what it said before.
"""

import json
from collections.abc import Sequence
from typing import Any, Literal

import pyarrow as pa

from model.preprocessing import MAX_PIXELS
from pipeline import storage
from pipeline.images.page_numbers import split_page
from pipeline.images.picture import ImageTooLarge, UnreadableImage, open_picture
from pipeline.images.prefetch import read_ahead
from pipeline.labels import coco, fiftyone
from pipeline.labels.label import LABEL_SCHEMA, standing
from pipeline.labels.label_table import LabelTable
from pipeline.storage import StorageError

Format = Literal["jsonl", "coco", "fiftyone"]
FORMATS: tuple[Format, ...] = ("jsonl", "coco", "fiftyone")


def export_labels(table: LabelTable, kind: Format, categories: Sequence[str] = ()) -> bytes:
    """Return the labels of categories, by default of all, as the content of a file; empty: none.

    COCO has its boxes in pixels: images with regions are opened for their size, and one that
    cannot be is without a box there.

    Raises:
        LabelsError: a stored file is damaged.
    """
    names = list(categories) or table.categories()
    tables = [standing(rows) for rows in read_ahead(table.of_category, names)]
    rows = pa.concat_tables([LABEL_SCHEMA.empty_table(), *tables]).to_pylist()
    if not rows:
        return b""
    if kind == "coco":
        return to_json(coco.document(list(map(coco.of_label, rows)), _sizes(rows)))
    if kind == "fiftyone":
        return to_json(fiftyone.document(list(map(coco.of_label, rows))))
    return b"".join(json.dumps(coco.own_part(row)).encode() + b"\n" for row in rows)


def to_json(document: dict[str, Any]) -> bytes:
    """Return a document as the content of a file."""
    return json.dumps(document, indent=1).encode() + b"\n"


def _sizes(rows: Sequence[dict[str, Any]]) -> dict[str, coco.Size]:
    """Width and height of the images with regions, as far as they can be read."""
    uris = [row["image_uri"] for row in rows if row["regions"]]
    sizes = zip(uris, read_ahead(_size, uris), strict=True)
    return {uri: size for uri, size in sizes if size is not None}


def _size(uri: str) -> coco.Size | None:
    file, page = split_page(uri)
    try:
        picture = open_picture(storage.read_bytes(file), MAX_PIXELS, page=page or 1)
    except (StorageError, UnreadableImage, ImageTooLarge):
        return None
    height, width = picture.size_in_file
    return width, height
