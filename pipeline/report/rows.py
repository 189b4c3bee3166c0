"""A night's rows as its report needs them: all of them counted, the notable ones kept.

The night is read shard by shard. Of every row only what is counted stays, some twenty bytes; whole
rows stay of the notable images and of the failed ones, and of those never more than a limit.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.images.decode import ImageStatus
from pipeline.images.image_statistics import STATISTICS
from pipeline.night.folder import NightFolder
from pipeline.night.results import RESULT_SCHEMA, each_shard, read_night

NOTABLE_P_VALUE = 0.05  # flagged images are notable too; the others are left out
MAX_IMAGES = 200_000  # kept of a night
MAX_FAILURES = 20_000  # kept of a night
CONTROLLED = "flagged_fdr"  # flagged still, with the share of false discoveries controlled
MODEL = ("model_name", "model_version")
NOT_COUNTED = {"image_uri", "image_etag", "error", "map_uri", "shard", "model_digest", *MODEL}
OF_AN_IMAGE = {"image_uri", "image_etag", "category", "score", "p_value", "flagged", CONTROLLED}
OF_AN_IMAGE |= {*STATISTICS, *MODEL}
OF_A_FAILURE = {"image_uri", "category", "status", "error"}


@dataclass(frozen=True, kw_only=True)
class NightRows:
    """What is left of a night for its report."""

    counted: pa.Table  # every row, without the columns that only one image needs
    notable: pa.Table  # by category, flagged first, then by score
    num_notable: int  # kept or not
    failed: pa.Table  # by category, status and address
    num_failed: int  # kept or not


@dataclass
class _Pile:
    """Rows that are thinned to the first ``limit`` whenever twice as many have come together."""

    thin: Callable[[pa.Table, int], pa.Table]
    limit: int
    rows: list[pa.Table] = field(default_factory=list)
    num_seen: int = 0
    num_held: int = 0

    def add(self, rows: pa.Table) -> None:
        self.rows.append(rows)
        self.num_seen += rows.num_rows
        self.num_held += rows.num_rows
        if self.num_held > 2 * self.limit:
            self.rows = [self.result()]
            self.num_held = self.rows[0].num_rows

    def result(self) -> pa.Table:
        return self.thin(_concat(self.rows), self.limit)


def read_report_rows(folder: NightFolder) -> NightRows:
    """Read a night once, from its first shard to its last.

    Raises:
        ResultsError: a shard is damaged or of another format, or an image is there twice.
    """
    notable, failed = _Pile(worst_images, MAX_IMAGES), _Pile(first_failures, MAX_FAILURES)
    counted, prints = [], [np.empty(0, np.int64)]
    for rows in each_shard(folder):
        counted.append(_select(rows, set(rows.column_names) - NOT_COUNTED))
        prints.append(np.fromiter(map(hash, rows["image_uri"].to_pylist()), np.int64))
        notable.add(_select(rows, OF_AN_IMAGE).filter(_is_notable(rows)))
        failed.add(_select(rows, OF_A_FAILURE).filter(_has_failed(rows)))
    fingerprints = np.concatenate(prints)
    if len(np.unique(fingerprints)) < len(fingerprints):
        read_night(folder)  # says which image is there twice
    return NightRows(
        counted=_concat(counted),
        notable=notable.result(),
        num_notable=notable.num_seen,
        failed=failed.result(),
        num_failed=failed.num_seen,
    )


def _concat(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables) if tables else RESULT_SCHEMA.empty_table()


def _select(rows: pa.Table, names: set[str]) -> pa.Table:
    return rows.select([name for name in rows.column_names if name in names])


def _is_notable(rows: pa.Table) -> pa.ChunkedArray:
    notable = pc.or_kleene(rows["flagged"], pc.less_equal(rows["p_value"], NOTABLE_P_VALUE))
    return pc.fill_null(notable, False)


def _has_failed(rows: pa.Table) -> pa.ChunkedArray:
    settled = pa.array([ImageStatus.OK.value, ImageStatus.UNROUTED.value])
    return pc.invert(pc.is_in(rows["status"], value_set=settled))


def worst_images(rows: pa.Table, limit: int) -> pa.Table:
    """The most anomalous images, by category, flagged first, then by score.

    When they are too many, flagged images go before others, and every category keeps its worst
    before any keeps its second.
    """
    order = [("flagged", "descending"), ("score", "descending"), ("image_uri", "ascending")]
    ordered = rows.sort_by([("category", "ascending"), *order])
    if ordered.num_rows <= limit:
        return ordered
    calm = ~ordered["flagged"].to_numpy().astype(bool)
    place = np.lexsort((rank_within([ordered["category"]]), calm))
    return ordered.take(np.sort(place[:limit]))


def first_failures(rows: pa.Table, limit: int) -> pa.Table:
    """Failed images by category, status and address; each kind keeps some when they are many."""
    ordered = rows.sort_by([(name, "ascending") for name in ("category", "status", "image_uri")])
    if ordered.num_rows <= limit:
        return ordered
    place = np.argsort(rank_within([ordered["category"], ordered["status"]]), kind="stable")
    return ordered.take(np.sort(place[:limit]))


def rank_within(columns: list[pa.ChunkedArray]) -> NDArray[np.int64]:
    """0, 1, 2, ... within each run of rows that are equal in all of these columns."""
    num_rows = len(columns[0])
    begins = np.zeros(num_rows, dtype=bool)
    begins[:1] = True
    for column in columns:
        codes = column.combine_chunks().dictionary_encode().indices.to_numpy()
        begins[1:] |= codes[1:] != codes[:-1]
    starts = np.flatnonzero(begins)
    return np.arange(num_rows) - np.repeat(starts, np.diff(starts, append=num_rows))
