"""What became of all categories that were onboarded with one place for checkpoints.

RUNS/onboardings/CATEGORY.json    the last outcome of a category, whichever command it came of
RUNS/onboarding.html              all of them as a page, failures first

A file holds one category and is written whole, so commands that end at once keep each other's
outcomes.

Names and errors come from a catalogue and from images: text to the page, autoescaped, and under a
content policy that lets no script run at all.
"""

import datetime as dt
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter

from model.errors import NightshiftError
from pipeline import storage
from pipeline.catalogue.category_name import file_name
from pipeline.images.prefetch import read_ahead
from pipeline.onboarding.size_words import sizes_in_words
from pipeline.pages.environment import render_page
from pipeline.pages.words import clock, count

FOLDER, PAGE_FILE = "onboardings", "onboarding.html"
TEMPLATE = "onboarding/static/onboarding.html.j2"
FAILED, UNCHANGED = "failed", "unchanged"
STAGES = ("embedding", "training", "calibration", "evaluation")  # of ``timings_s``
PARALLEL = 16  # requests; small files cost their way and little else

Outcomes = dict[str, dict[str, Any]]  # by category, as ``nightshift onboard --json`` has them

logger = logging.getLogger(__name__)


class OverviewError(NightshiftError):
    """There is no overview, or a file of it is damaged."""


class _Outcome(BaseModel):
    """What the page needs of an outcome."""

    status: str
    when: dt.datetime
    counts: dict[str, int] | None = None
    metrics: dict[str, float | None] | None = None
    timings_s: dict[str, float] | None = None
    findings: list[str] | None = None
    defect_sizes: list[dict[str, float | None]] | None = None


_FILE = TypeAdapter(dict[str, dict[str, _Outcome]])


def read_overview(runs: str) -> Outcomes:
    """Return the last outcome of every category.

    Raises:
        OverviewError: nothing was onboarded with this place yet, or a file is damaged.
        StorageError: one cannot be read.
    """
    found, damaged = _stored(runs)
    if damaged:
        raise OverviewError(
            f"{damaged[0]} is damaged; delete it, and onboard without --only-failed."
        )
    if not found:
        raise OverviewError(f"nothing was onboarded with --runs {runs} yet.")
    return found


def failed_categories(runs: str) -> list[str]:
    """Return the categories that failed when they were last onboarded, by name.

    Raises:
        OverviewError, StorageError: as ``read_overview``.
    """
    overview = read_overview(runs)
    return sorted(name for name, outcome in overview.items() if outcome["status"] == FAILED)


def outcomes_so_far(runs: str) -> Outcomes:
    """Return the last outcome of every category; of those that are damaged it only warns.

    Raises:
        StorageError: one cannot be read.
    """
    found, damaged = _stored(runs)
    for uri in damaged:
        logger.warning("%s is damaged and left out of the overview; delete it", uri)
    return found


def add_to_overview(runs: str, outcomes: Sequence[Mapping[str, Any]], now: dt.datetime) -> str:
    """Take outcomes into the overview of their place; return the page's URI.

    Raises:
        StorageError: it cannot be written.
    """
    overview, changed = outcomes_so_far(runs), Outcomes()
    for outcome in outcomes:
        name, when = outcome["category"], {"when": now.isoformat(timespec="seconds")}
        before = overview.get(name, {})
        if outcome["status"] == UNCHANGED and before.get("version") == outcome["version"]:
            is_champion = outcome["is_champion"]
            changed[name] = before | {"is_champion": is_champion}  # and its details
            if is_champion and not before.get("is_champion"):
                changed[name]["gate"] = None  # whatever it said, somebody has promoted it since
        else:
            changed[name] = {**outcome, **when}
    new = [name for name in changed if changed[name] != overview.get(name)]
    for _ in read_ahead(lambda name: _write(runs, name, changed[name]), new, PARALLEL):
        pass
    return _write_page(runs, now)


def rename_in_overview(runs: str, old: str, new: str, now: dt.datetime) -> bool:
    """Give a category's outcome another name; return whether there was one.

    Raises:
        StorageError: the overview cannot be read or written.
    """
    overview = outcomes_so_far(runs)
    outcome = overview.get(old)
    if outcome is None:  # nothing is made in a place that is nobody's
        return False
    if model := outcome.get("model"):
        outcome["model"] = model.removesuffix(old) + new
    if new not in overview:  # else it was onboarded since
        _write(runs, new, {**outcome, "category": new})
    take_out_of_overview(runs, old, now)
    return True


def is_in_overview(runs: str, category: str) -> bool:
    """Whether an outcome of a category is noted, damaged or not.

    Raises:
        StorageError: the overview cannot be read.
    """
    return storage.exists(_uri(runs, category))


def take_out_of_overview(runs: str, category: str, now: dt.datetime) -> None:
    """Remove a category's outcome; one that is not there is fine.

    Raises:
        StorageError: the overview cannot be read or written.
    """
    if is_in_overview(runs, category):
        storage.delete(_uri(runs, category))
        _write_page(runs, now)


def _uri(runs: str, category: str) -> str:
    return storage.join(runs, FOLDER, f"{file_name(category)}.json")


def _write(runs: str, category: str, outcome: dict[str, Any]) -> None:
    document = {"categories": {category: outcome}}
    storage.write_bytes(_uri(runs, category), json.dumps(document, indent=1).encode())


def _write_page(runs: str, now: dt.datetime) -> str:
    """Write the page, again where another command stored an outcome meanwhile."""
    page = storage.join(runs, PAGE_FILE)
    shown: list[storage.StoredObject] | None = None
    while (listed := _listed(runs)) != shown:
        shown = listed
        storage.write_bytes(page, overview_page(_stored(runs)[0], now).encode())
    return page


def _listed(runs: str) -> list[storage.StoredObject]:
    return storage.objects_below(storage.join(runs, FOLDER))


def _stored(runs: str) -> tuple[Outcomes, list[str]]:
    """Return the last outcome of every category, sorted, and the files that are damaged."""
    uris, found, damaged = [item.uri for item in _listed(runs)], Outcomes(), []
    for uri, content in zip(uris, read_ahead(storage.read_if_there, uris, PARALLEL), strict=True):
        if content is None:
            continue
        try:
            document = json.loads(content)
            _FILE.validate_python(document)
            found |= document["categories"]
        except (ValueError, KeyError):
            damaged.append(uri)
    return dict(sorted(found.items())), damaged


def overview_page(overview: Outcomes, now: dt.datetime) -> str:
    """Return the page of an overview: failures first, then by name."""
    good = {name: each for name, each in overview.items() if each["status"] != FAILED}
    failed = {name: each for name, each in overview.items() if each["status"] == FAILED}
    values = {
        "good": good,
        "failed": failed,
        "now": clock(now),
        "headline": headline(len(good), len(failed)),
        "totals": totals(good, failed),
    }
    return render_page(TEMPLATE, values, filters=FILTERS)


def headline(num_good: int, num_failed: int) -> str:
    """Say in one sentence how it stands."""
    if not num_failed:
        noun = "category" if num_good == 1 else "categories"
        return f"{count(num_good)} {noun} onboarded, none failed."
    told = f"{count(num_failed)} of {count(num_good + num_failed)} categories failed."
    return f"{told} Mend what is listed first, then: nightshift onboard CATALOGUE --only-failed"


def totals(good: Outcomes, failed: Outcomes) -> dict[str, str]:
    """Return the large numbers in words."""
    images = sum(sum((each.get("counts") or {}).values()) for each in good.values())
    spent = [seconds for each in good.values() if (seconds := seconds_of(each)) is not None]
    return {
        "onboarded": count(len(good)),
        "failed": count(len(failed)),
        "images": count(images),
        "seconds a category": f"{sum(spent) / len(spent):.1f}" if spent else "–",
    }


def seconds_of(outcome: Mapping[str, Any]) -> float | None:
    """Return how long an onboarding read, embedded, trained, calibrated and evaluated."""
    timings = outcome.get("timings_s")
    return sum(timings.get(stage, 0.0) for stage in STAGES) if timings else None


def _moment(when: str) -> str:
    return clock(dt.datetime.fromisoformat(when))


FILTERS = {"seconds": seconds_of, "moment": _moment, "sizes": sizes_in_words}
