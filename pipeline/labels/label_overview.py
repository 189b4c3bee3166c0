"""What a table of labels holds, category by category, in numbers."""

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.images.page_numbers import split_page
from pipeline.images.prefetch import read_ahead
from pipeline.labels.label import WHATEVER_THE_SCORE, contradicted, latest
from pipeline.labels.label_table import LabelTable
from pipeline.labels.missed import Missed, missed_by_night, together

AT_A_TIME = 8  # categories


@dataclass(frozen=True, kw_only=True)
class CategoryLabels:
    """One category's labels; each image counts once, with the label that holds."""

    category: str
    images: int
    good: int
    defect: int
    unsure: int
    undone: int  # images whose label was taken back
    whatever_the_score: int  # of the images: in an audit sample or a dump that is labelled whole
    missed: Missed  # by the audits of all nights
    versions: int  # labels that were ever given
    contradicted: Sequence[str]  # addresses that people label differently; the latest counts
    gone: Sequence[str] | None  # addresses of labelled images that are there no more; None: unasked
    last_at: dt.datetime | None


def overview(
    table: LabelTable, categories: Sequence[str] = (), *, look_for_gone: bool = False
) -> list[CategoryLabels]:
    """Count the labels of categories, by default of all.

    Args:
        table: of one folder of results.
        categories: their names; all that have labels if none is named.
        look_for_gone: also ask the storage which labelled images are still there.

    Raises:
        LabelsError: a stored file is damaged.
    """
    names = list(categories) or table.categories()
    read = read_ahead(table.of_category, names, AT_A_TIME)
    return [_count(name, rows, look_for_gone) for name, rows in zip(names, read, strict=True)]


def _count(category: str, rows: pa.Table, look_for_gone: bool) -> CategoryLabels:
    last = latest(rows)
    counts = Counter(last["label"].to_pylist())
    told = last.filter(pc.not_equal(last["label"], "undo"))
    at_random = pc.is_in(told["chosen"], value_set=pa.array(WHATEVER_THE_SCORE))
    return CategoryLabels(
        category=category,
        images=told.num_rows,
        good=counts["good"],
        defect=counts["defect"],
        unsure=counts["unsure"],
        undone=counts["undo"],
        whatever_the_score=pc.sum(at_random).as_py() or 0,
        missed=together(missed_by_night(rows).values()),
        versions=rows.num_rows,
        contradicted=contradicted(rows),
        gone=gone(told) if look_for_gone else None,
        last_at=pc.max(rows["labelled_at"]).as_py(),
    )


def gone(rows: pa.Table) -> list[str]:
    """Addresses of labelled images whose files are there no more, sorted.

    Raises:
        StorageError: the storage cannot be asked.
    """
    files = {uri: split_page(uri)[0] for uri in rows["image_uri"].to_pylist()}
    there = storage.look_up(files.values())
    return sorted(uri for uri, file in files.items() if file not in there)
