"""What labels tell an onboarding of a category's images.

The half that is kept for the gate (``parts.py``) is left out, except that of defects: no model may
take one for good, wherever it is found.
"""

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from pipeline.catalogue.catalogue import Category
from pipeline.labels.label import LABEL_SCHEMA, WHATEVER_THE_SCORE, standing
from pipeline.labels.label_table import LabelTable, table_beside
from pipeline.labels.parts import is_for_gate

COLUMNS = ("image_uri", "image_etag", "label", "chosen", "night")


class Told(NamedTuple):
    """One labelled image."""

    uri: str
    etag: str | None  # another file of that name is not meant
    label: str  # good, unsure or defect
    by_score: bool  # or nobody knows how it was chosen
    night: str | None = None  # whose sample it is of, where it was chosen whatever its score

    @property
    def is_for_gate(self) -> bool:
        """Whether nothing may be learned from it."""
        return is_for_gate(self.uri)

    @property
    def identity(self) -> tuple[str | bool | None, ...]:
        """What an onboarding is another by; how a defect was chosen is nothing to it."""
        return self.uri, self.etag, self.label, self.by_score or self.label == "defect"


def told_of(category: str, tables: Sequence[LabelTable]) -> list[Told]:
    """Return what some tables tell of a category, sorted by address.

    Nothing where there are no results yet: a catalogue names them before the first night.

    Raises:
        LabelsError: a stored file is damaged.
    """
    if not tables:
        return []
    found = [table.of_category(category) for table in tables]
    rows = standing(pa.concat_tables([LABEL_SCHEMA.empty_table(), *found]))
    columns = (rows[name].to_pylist() for name in COLUMNS)
    told = [
        Told(uri, etag, label, chosen not in WHATEVER_THE_SCORE, night)
        for uri, etag, label, chosen, night in zip(*columns, strict=True)
    ]
    return [each for each in told if each.label == "defect" or _may_join(each)]


def told_in(category: Category) -> list[Told]:
    """Return what the results tell that a category names, by the renames that they know of.

    Raises:
        LabelsError: a stored file is damaged.
    """
    return told_of(category.name, [LabelTable(out) for out in category.labels])


def _may_join(each: Told) -> bool:
    return not (each.is_for_gate or (each.label == "unsure" and each.by_score))


def with_labels_of(categories: Sequence[Category], outs: Sequence[str]) -> list[Category]:
    """Return categories that learn from the labels of some more results.

    Raises:
        LabelsError: such results are not there.
    """
    places = tuple(table_beside(out).out for out in outs)
    return [
        category.model_copy(update={"labels": tuple(dict.fromkeys((*category.labels, *places)))})
        for category in categories
    ]
