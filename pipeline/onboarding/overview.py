"""What became of all categories that were onboarded with one place for checkpoints.

RUNS/onboarding.json    the last outcome of each category, whichever command it came of
RUNS/onboarding.html    the same as a page, failures first

Names and errors come from a catalogue and from images: text to the page, autoescaped, and under a
content policy that lets no script run at all.
"""

import datetime as dt
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from model.errors import NightshiftError
from pipeline import storage
from pipeline.onboarding.size_words import sizes_in_words
from pipeline.pages.environment import render_page
from pipeline.pages.words import clock, count

JSON_FILE, PAGE_FILE = "onboarding.json", "onboarding.html"
CLAIM_FILE = "onboarding.changing"  # whoever makes this file changes the two
HELD_S = 30.0  # by one command at most: one that was killed meanwhile leaves the file
ASK_EVERY_S = 0.1
TEMPLATE = "onboarding/static/onboarding.html.j2"
FAILED, UNCHANGED = "failed", "unchanged"
STAGES = ("embedding", "training", "calibration", "evaluation")  # of ``timings_s``

Outcomes = dict[str, dict[str, Any]]  # by category, as ``nightshift onboard --json`` has them


class OverviewError(NightshiftError):
    """There is no overview, or it is damaged."""


def read_overview(runs: str) -> Outcomes:
    """Return the last outcome of every category.

    Raises:
        OverviewError: nothing was onboarded with this place yet, or the file is damaged.
        StorageError: it cannot be read.
    """
    uri = storage.join(runs, JSON_FILE)
    try:
        found = json.loads(storage.read_bytes(uri))
        return {str(name): dict(outcome) for name, outcome in found["categories"].items()}
    except storage.ObjectMissing as error:
        raise OverviewError(
            f"{uri} is not there: nothing was onboarded with --runs {runs} yet."
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise OverviewError(
            f"{uri} is damaged; delete it, and onboard without --only-failed."
        ) from error


def failed_categories(runs: str) -> list[str]:
    """Return the categories that failed when they were last onboarded, by name.

    Raises:
        OverviewError, StorageError: as ``read_overview``.
    """
    overview = read_overview(runs)
    return sorted(name for name, outcome in overview.items() if outcome.get("status") == FAILED)


def outcomes_so_far(runs: str) -> Outcomes:
    """Return the last outcome of every category; none where there is no whole overview.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        return read_overview(runs)
    except OverviewError:  # a damaged one is of no use to anybody
        return {}


def add_to_overview(runs: str, outcomes: Sequence[Mapping[str, Any]], now: dt.datetime) -> str:
    """Take outcomes into the overview of their place; return the page's URI.

    Raises:
        StorageError: it cannot be written.
    """
    with _changing(runs):
        overview = outcomes_so_far(runs)
        for outcome in outcomes:
            name, when = outcome["category"], {"when": now.isoformat(timespec="seconds")}
            before = overview.get(name, {})
            if outcome["status"] == UNCHANGED and before.get("version") == outcome["version"]:
                overview[name] = before | {"is_champion": outcome["is_champion"]}  # and its details
            else:
                overview[name] = {**outcome, **when}
        return _write(runs, overview, now)


def rename_in_overview(runs: str, old: str, new: str, now: dt.datetime) -> bool:
    """Give a category's line another name; return whether there was one.

    Raises:
        OverviewError, StorageError: the overview is damaged, or cannot be read or written.
    """
    if old not in _overview_if_any(runs):  # nothing is made in a place that is nobody's
        return False
    with _changing(runs):
        overview = _overview_if_any(runs)
        outcome = overview.pop(old, None)
        if outcome is None:
            return False
        if model := outcome.get("model"):
            outcome["model"] = model.removesuffix(old) + new
        overview.setdefault(new, {**outcome, "category": new})  # else it was onboarded since
        _write(runs, overview, now)
    return True


def take_out_of_overview(runs: str, category: str, now: dt.datetime) -> bool:
    """Remove a category's line; return whether there was one.

    Raises:
        OverviewError, StorageError: the overview is damaged, or cannot be read or written.
    """
    if category not in _overview_if_any(runs):
        return False
    with _changing(runs):
        overview = _overview_if_any(runs)
        if overview.pop(category, None) is None:
            return False
        _write(runs, overview, now)
    return True


@contextmanager
def _changing(runs: str) -> Iterator[None]:
    """Let one command at a time read and write the overview: none overwrites another's lines.

    A claim is taken away only where the same one has stood for HELD_S. Whoever takes one away
    pauses before it makes its own, so that others who waited for the same see that it is gone.
    """
    claim, own = storage.join(runs, CLAIM_FILE), uuid.uuid4().hex.encode()
    seen: bytes | None = None
    since = time.monotonic()
    while not storage.write_new(claim, own):
        holder = storage.read_if_there(claim)
        if holder != seen:
            seen, since = holder, time.monotonic()
        elif time.monotonic() - since > HELD_S:
            storage.delete(claim)
        time.sleep(ASK_EVERY_S)
    try:
        yield
    finally:
        if storage.read_if_there(claim) == own:
            storage.delete(claim)


def _overview_if_any(runs: str) -> Outcomes:
    return read_overview(runs) if storage.exists(storage.join(runs, JSON_FILE)) else {}


def _write(runs: str, overview: Outcomes, now: dt.datetime) -> str:
    document = {"categories": {name: overview[name] for name in sorted(overview)}}
    storage.write_bytes(storage.join(runs, JSON_FILE), json.dumps(document, indent=1).encode())
    page = storage.join(runs, PAGE_FILE)
    storage.write_bytes(page, overview_page(document["categories"], now).encode())
    return page


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
