"""A night's regions as a file for elsewhere: COCO JSON, FiftyOne's JSON or CSV.

An image that shows none is left out. The JSON files have the form of label exports, to be looked at
and corrected in an annotation tool; as they are, they cannot be imported as labels.
"""

import io
from collections.abc import Collection, Mapping
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from pipeline.labels import coco, fiftyone
from pipeline.labels.export import to_json
from pipeline.labels.foreign import OWN, REGIONS, Marked
from pipeline.night.folder import NightError, NightFolder
from pipeline.night.results import REGION, each_shard
from pipeline.night.rows_csv import without_formulas

Format = Literal["coco", "fiftyone", "csv"]
WORD = "anomaly"  # what a region is called
OF_AN_IMAGE = ("image_uri", "image_etag", "category", "model_name", "model_version")
SIZE = ("image_width", "image_height")


def export_regions(folder: NightFolder, kind: Format, categories: Collection[str] = ()) -> bytes:
    """Return the regions of a night's images, by default of all categories, as a file's content.

    Raises:
        NightError: the night has no rows, or a category has none in it.
        ResultsError: a shard is damaged.
    """
    rows = _rows_with_regions(folder, categories)
    if kind == "csv":
        return _csv(rows)
    found = rows.to_pylist()
    marked = [_marked(row, folder.night) for row in found]
    if kind == "fiftyone":
        return to_json(fiftyone.document(marked) | {OWN: REGIONS})
    sizes = {row["image_uri"]: (row["image_width"], row["image_height"]) for row in found}
    return to_json(coco.document(marked, sizes) | {OWN: REGIONS})


def _rows_with_regions(folder: NightFolder, categories: Collection[str]) -> pa.Table:
    names = [*OF_AN_IMAGE, *SIZE, "regions"]
    wanted, known, tables = pa.array(sorted(categories), pa.string()), set[str](), []
    for shard in each_shard(folder):
        known |= set(shard["category"].unique().to_pylist())
        has_any = pc.fill_null(pc.greater(shard["num_regions"], 0), False)
        if categories:
            has_any = pc.and_(has_any, pc.is_in(shard["category"], value_set=wanted))
        tables.append(shard.select(names).filter(has_any))
    if missing := sorted({*categories} - known):
        raise NightError(f"night {folder.night} has no images of {', '.join(missing)}")
    if not tables:
        raise NightError(f"night {folder.night} has no rows in {folder.results}; score it first")
    return pa.concat_tables(tables).sort_by("image_uri")


def _marked(row: Mapping[str, Any], night: str) -> Marked:
    width, height = row["image_width"], row["image_height"]
    boxes = [
        [each["x"] / width, each["y"] / height, each["width"] / width, each["height"] / height]
        for each in row["regions"]
    ]
    details = [{"area": each["area"], "score": each["peak"]} for each in row["regions"]]
    own = {name: row[name] for name in OF_AN_IMAGE if name != "image_uri"} | {"night": night}
    return Marked(uri=row["image_uri"], words=[WORD], boxes=boxes, own=own, details=details)


def _csv(rows: pa.Table) -> bytes:
    """One line for each region, of its image first."""
    lists = rows["regions"].combine_chunks()
    of_image = rows.select([*OF_AN_IMAGE, *SIZE]).take(pc.list_parent_indices(lists))
    flat = pc.list_flatten(lists)
    for field in REGION:
        of_image = of_image.append_column(field.name, pc.struct_field(flat, field.name))
    buffer = io.BytesIO()
    csv.write_csv(without_formulas(of_image), buffer)
    return buffer.getvalue()
