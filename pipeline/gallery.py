"""The most anomalous images of a night, each beside its heat map.

Candidates are the images for which a map is stored: flagged, or with a p-value of at most 0.05.
Scores of different models do not compare, so across categories rank and p-value decide.
"""

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model.preprocessing import Preprocessing
from pipeline import heatmap, storage
from pipeline.images import read_image

logger = logging.getLogger(__name__)

NOTABLE_P_VALUE = 0.05
MAX_PER_CATEGORY = 12
MAX_IN_ALL = 60
PARALLEL_READS = 8
BLANK = 150  # grey under the map of an image that is gone


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One image as the page shows it; a picture that is None has a note in its place."""

    uri: str
    category: str
    score: float
    p_value: float
    flagged: bool
    original: str | None  # data URI
    original_note: str
    overlay: str | None  # data URI
    overlay_note: str


def select(groups: Mapping[str, pa.Table]) -> list[dict[str, Any]]:
    """Choose the rows to show, the most anomalous of each category first.

    When they are too many, flagged images go before others, and every category shows its worst
    before any shows its second.
    """
    ranked = []
    for rows in groups.values():
        for rank, row in enumerate(_worst(rows)):
            ranked.append(((not row["flagged"], rank, row["p_value"], row["image_uri"]), row))
    ranked.sort(key=lambda entry: entry[0])
    chosen = [row for _, row in ranked[:MAX_IN_ALL]]
    return sorted(chosen, key=lambda row: (row["category"], -row["score"], row["image_uri"]))


def _worst(rows: pa.Table) -> list[dict[str, Any]]:
    notable = pc.or_kleene(rows["flagged"], pc.less_equal(rows["p_value"], NOTABLE_P_VALUE))
    order = [("score", "descending"), ("image_uri", "ascending")]
    candidates = rows.filter(pc.fill_null(notable, False)).sort_by(order)
    worst: list[dict[str, Any]] = candidates.slice(0, MAX_PER_CATEGORY).to_pylist()
    return worst


def make_tiles(rows: list[dict[str, Any]], champions: Mapping[str, Any]) -> list[Tile]:
    """Read originals and maps again, several at a time, in the order of ``rows``.

    Raises:
        storage.StorageAway: the storage does not answer; one missing file is only noted.
    """

    def tile(row: dict[str, Any]) -> Tile:
        champion = champions.get(row["category"], {})
        return _make_tile(row, Preprocessing(**champion.get("preprocessing", {})))

    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        return list(pool.map(tile, rows))


def _make_tile(row: dict[str, Any], preprocessing: Preprocessing) -> Tile:
    read = read_image(row["image_uri"], preprocessing)
    levels, overlay_note = _read_map(row["map_uri"], preprocessing.crop)
    side = (preprocessing.crop, preprocessing.crop, 3)
    under = read.pixels if read.pixels is not None else np.full(side, BLANK, dtype=np.uint8)
    return Tile(
        uri=row["image_uri"],
        category=row["category"],
        score=row["score"],
        p_value=row["p_value"],
        flagged=row["flagged"],
        original=None if read.pixels is None else heatmap.data_uri(read.pixels),
        original_note="" if read.pixels is not None else f"Original not shown: {read.error}",
        overlay=None if levels is None else heatmap.data_uri(heatmap.overlay(under, levels)),
        overlay_note=overlay_note,
    )


def _read_map(uri: str | None, side: int) -> tuple[NDArray[np.uint8] | None, str]:
    """Grey levels, or None and why there are none."""
    if not uri:
        return None, "No heat map was stored"
    try:
        return heatmap.decode_map(storage.read_bytes(uri), side), ""
    except (storage.ObjectMissing, storage.AccessDenied, OSError) as error:
        logger.warning("heat map %s is left out of the report: %s", uri, error)
        return None, "The heat map is gone or damaged"
