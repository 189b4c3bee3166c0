"""A night's rows as its report needs them: all of them for the charts, the notable ones to look at.

The night is read shard by shard. Of every row only what is drawn stays, some twenty bytes; whole
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
from pipeline.labels.audit import AUDIT_IMAGES, LEAST_SCORED, audit_sample
from pipeline.night.folder import NightFolder
from pipeline.night.results import REGIONS, RESULT_SCHEMA, by_category, each_shard

NOTABLE_P_VALUE = 0.05  # flagged images and discoveries are notable too; the others are left out
MAX_IMAGES = 200_000  # kept of a night
MAX_FAILURES = 20_000  # kept of a night
MODEL = ("model_name", "model_version")
DRAWN = {"category", "status", "score", "flagged", "scored_at"}
OF_AN_IMAGE = {"image_uri", "image_etag", "category", "score", "p_value", "flagged"}
OF_AN_IMAGE |= {"flagged_fdr", *STATISTICS, *MODEL, *REGIONS}
OF_A_FAILURE = {"image_uri", "category", "status", "error"}


@dataclass(frozen=True, kw_only=True)
class NightRows:
    """What is left of a night for its report."""

    drawn: pa.Table  # every row, without the columns that only one image needs
    notable: pa.Table  # by category, flagged first, then by score
    num_notable: int  # kept or not
    audit: pa.Table  # each category's sample, if it can count; some is notable too
    failed: pa.Table  # by category, status and address
    num_failed: int  # kept or not

    @property
    def images(self) -> pa.Table:
        """Notable images and the audit sample, in the order of ``notable``; columns say which."""
        known = self.notable["image_uri"].combine_chunks()
        is_more = pc.invert(pc.is_in(self.audit["image_uri"], value_set=known))
        more = self.audit.filter(is_more).select(self.notable.column_names)
        both = worst_images(pa.concat_tables([self.notable, more]), MAX_IMAGES + more.num_rows)
        for name, uris in (("audit", self.audit["image_uri"]), ("usual", more["image_uri"])):
            is_one = pc.is_in(both["image_uri"], value_set=uris.combine_chunks())
            both = both.append_column(name, is_one)
        return both


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


def read_report_rows(folder: NightFolder, audit_images: int = AUDIT_IMAGES) -> NightRows:
    """Read a night once, from its first shard to its last.

    Args:
        folder: the night.
        audit_images: of each category's audit sample.

    Raises:
        ResultsError: a shard is damaged or of another format.
    """
    notable, failed = _Pile(worst_images, MAX_IMAGES), _Pile(first_failures, MAX_FAILURES)
    drawn, audit = [], []
    for rows in each_shard(folder):
        drawn.append(_select(rows, DRAWN))
        notable.add(_select(rows, OF_AN_IMAGE).filter(_is_notable(rows)))
        audit.append(_audit(_select(rows, OF_AN_IMAGE | {"status"}), folder.night, audit_images))
        failed.add(_select(rows, OF_A_FAILURE).filter(_has_failed(rows)))
    whole = _concat(drawn)
    return NightRows(
        drawn=whole,
        notable=notable.result(),
        num_notable=notable.num_seen,
        audit=_audit(_of_large(_concat(audit), whole), folder.night, audit_images),
        failed=failed.result(),
        num_failed=failed.num_seen,
    )


def _audit(rows: pa.Table, night: str, count: int) -> pa.Table:
    """The audit sample of each category of these rows; of parts of a night: those it may have."""
    scored = rows.filter(pc.equal(rows["status"], ImageStatus.OK.value))
    uris = {name: own["image_uri"].to_pylist() for name, own in by_category(scored).items()}
    sample = [uri for own in uris.values() for uri in audit_sample(night, own, count)]
    return scored.filter(pc.is_in(scored["image_uri"], value_set=pa.array(sample, pa.string())))


def _of_large(rows: pa.Table, night: pa.Table) -> pa.Table:
    """Rows of categories with enough scored images in the night for their sample to count."""
    is_scored = pc.equal(night["status"], ImageStatus.OK.value)
    counts = night.filter(is_scored)["category"].value_counts()
    large = counts.filter(pc.greater_equal(counts.field("counts"), LEAST_SCORED)).field("values")
    return rows.filter(pc.is_in(rows["category"], value_set=large))


def _concat(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables) if tables else RESULT_SCHEMA.empty_table()


def _select(rows: pa.Table, names: set[str]) -> pa.Table:
    return rows.select([name for name in rows.column_names if name in names])


def _is_notable(rows: pa.Table) -> pa.ChunkedArray:
    unusual = pc.fill_null(pc.less_equal(rows["p_value"], NOTABLE_P_VALUE), False)
    return pc.or_(pc.or_(rows["flagged"], rows["flagged_fdr"]), unusual)


def _has_failed(rows: pa.Table) -> pa.ChunkedArray:
    not_failed = pa.array([ImageStatus.OK.value, ImageStatus.UNROUTED.value])
    return pc.invert(pc.is_in(rows["status"], value_set=not_failed))


def worst_images(rows: pa.Table, limit: int) -> pa.Table:
    """The most anomalous images, by category, flagged first, then by score.

    When they are too many, flagged images go before others, and every category keeps its worst
    before any keeps its second.
    """
    order = [("flagged", "descending"), ("score", "descending"), ("image_uri", "ascending")]
    ordered = rows.sort_by([("category", "ascending"), *order])
    if ordered.num_rows <= limit:
        return ordered
    calm = ~ordered["flagged"].to_numpy()
    first = np.lexsort((rank_within([ordered["category"]]), calm))[:limit]
    return ordered.take(np.sort(first))


def first_failures(rows: pa.Table, limit: int) -> pa.Table:
    """Failed images by category, status and address; each kind keeps some when they are many."""
    ordered = rows.sort_by([(name, "ascending") for name in ("category", "status", "image_uri")])
    if ordered.num_rows <= limit:
        return ordered
    ranks = rank_within([ordered["category"], ordered["status"]])
    return ordered.take(np.sort(np.argsort(ranks, kind="stable")[:limit]))


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
