"""An inspection of a catalogue: category by category, then across all of them."""

import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from model.errors import CategoryFault
from pipeline import storage
from pipeline.catalogue.catalogue import Category
from pipeline.checks import Verdict, worst
from pipeline.data_report.across_categories import AcrossCategories
from pipeline.data_report.category_reading import Reader
from pipeline.data_report.category_report import CategoryReport, report_of_error, report_on
from pipeline.data_report.inspection_page import inspection_page
from pipeline.inspection.found import Line

ANSWER_FILE, PAGE_FILE = "inspect.json", "index.html"

logger = logging.getLogger(__name__)

Told = Callable[[CategoryReport], None]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What an inspection came to."""

    place: str  # what was inspected
    reports: Mapping[str, CategoryReport]
    whole: Sequence[Line] = ()  # what is said beside the categories
    kind: Literal["catalogue", "dump"] = "catalogue"

    @property
    def verdict(self) -> Verdict:
        """The worst of all lines."""
        of_categories = (line for each in self.reports.values() for line in each.lines)
        return worst(line.check for line in (*self.whole, *of_categories))

    @property
    def errors(self) -> dict[str, str]:
        """Why categories could not be looked at, by name."""
        return {name: each.error for name, each in self.reports.items() if each.error}

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "inspected": self.place,
            "kind": self.kind,
            "verdict": self.verdict.value,
            "checks": [line.to_json() for line in self.whole],
            "images": sum(each.num_images for each in self.reports.values()),
            "categories": {name: each.to_json() for name, each in self.reports.items()},
        }

    def files(self) -> dict[str, bytes]:
        """Return the answer and the page, by name."""
        answer = self.to_json()
        curves = {name: each.sizes for name, each in self.reports.items() if each.sizes}
        return {
            ANSWER_FILE: json.dumps(answer, indent=1).encode(),
            PAGE_FILE: inspection_page(answer, self.reports).encode(),
            **{f"defect-sizes-{name}.png": each.picture for name, each in curves.items()},
        }

    @property
    def metrics(self) -> dict[str, float]:
        """What of it is a number, by name."""
        verdicts = [each.verdict.value for each in self.reports.values()]
        found = {name.lower(): float(verdicts.count(name)) for name in ("WARN", "FAIL")}
        for name, report in self.reports.items():
            found |= {f"{name}/pixels_kept": report.squeeze.kept} if report.squeeze else {}
            found |= report.sizes.metrics if report.sizes else {}
        return found


def inspect_catalogue(
    place: str, categories: Iterable[Category], reader: Reader, told: Told = lambda _: None
) -> Inspection:
    """Look at every category, one after the other; one that cannot be read stops no other.

    Each report is ``told`` as it is there, without what only all categories tell.

    Raises:
        ServiceAway: what every category needs is away.
    """
    reports: dict[str, CategoryReport] = {}
    with tempfile.TemporaryDirectory(prefix="nightshift-inspection-") as folder:
        across = AcrossCategories(Path(folder))
        for category in categories:
            reports[category.name] = _look(category, reader, across)
            told(reports[category.name])
        for name, lines in across.lines():
            report = reports[name]
            reports[name] = replace(report, lines=[*report.lines, *lines])
    return Inspection(place=place, reports=reports)


def _look(category: Category, reader: Reader, across: AcrossCategories) -> CategoryReport:
    started = time.monotonic()
    try:
        reading = reader.read(category)
    except (CategoryFault, storage.StorageError) as error:
        logger.info("%s cannot be inspected: %s", category.name, error)
        return report_of_error(category.name, str(error))
    report = report_on(reading)
    across.add(reading)
    logger.info(
        "inspected %s: %d images, %s, %.1f s",
        *(category.name, report.num_images, report.verdict, time.monotonic() - started),
    )
    return report
