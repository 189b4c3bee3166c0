"""What the audit says on the page: tonight's sample, and the missed share over the weeks."""

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.labels.missed import Missed, missed_by_night, together
from pipeline.labels.week_copies import monday
from pipeline.night.results import by_category

WEEKS = 8  # that are looked back on, tonight's included


@dataclass(frozen=True, kw_only=True)
class Audited:
    """One category's audit."""

    category: str
    drawn: int  # images of tonight's sample
    labelled: int  # of these
    weeks: Missed


@dataclass(frozen=True, kw_only=True)
class AuditFindings:
    """The audit of a night and of the weeks before it."""

    categories: Sequence[Audited]  # those with labels, the most missed first
    drawn: int  # images of tonight's samples
    labelled: int  # of these
    all: Missed  # of all categories and weeks
    by_week: Sequence[tuple[str, Missed]]  # first day of the week, the oldest first


def dates_of_weeks(night: str) -> list[str]:
    """Dates of the weeks that are looked back on, from Monday of the first to the night."""
    last = dt.date.fromisoformat(night)
    first = last - dt.timedelta(days=last.weekday(), weeks=WEEKS - 1)
    return [(first + dt.timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]


def audit_findings(
    labels: pa.Table, samples: Mapping[str, Sequence[str]], labelled: Collection[str]
) -> AuditFindings:
    """Count what the audits have found.

    Args:
        labels: every label of the weeks, LABEL_SCHEMA.
        samples: tonight's, by category.
        labelled: addresses of tonight's images with a label.
    """
    nights = {name: missed_by_night(rows) for name, rows in by_category(labels).items()}
    by_week: dict[str, list[Missed]] = defaultdict(list)
    for own in nights.values():
        for night, missed in own.items():
            by_week[monday(night)].append(missed)
    num_labelled = {name: sum(u in labelled for u in own) for name, own in samples.items()}
    categories = [
        Audited(
            category=name,
            drawn=len(samples.get(name, ())),
            labelled=num_labelled.get(name, 0),
            weeks=together(nights.get(name, {}).values()),
        )
        for name in sorted(samples.keys() | nights.keys())
        if nights.get(name) or num_labelled.get(name)
    ]
    return AuditFindings(
        categories=sorted(categories, key=lambda each: -each.weeks.missed),
        drawn=sum(map(len, samples.values())),
        labelled=sum(num_labelled.values()),
        all=together(missed for own in nights.values() for missed in own.values()),
        by_week=[(week, together(own)) for week, own in sorted(by_week.items())],
    )
