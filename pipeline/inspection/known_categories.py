"""The summaries of all champions in one file, so that none is fetched twice.

An onboarding fetches those of new champions and adds them; its workers read the file, once for all
their categories of one space. Two commands may write it at once: what the last one did not know of
is fetched again the next time.
"""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from model.errors import NightshiftError
from pipeline import storage
from pipeline.images.prefetch import read_ahead
from pipeline.inspection.category_summary import CategorySummary
from pipeline.inspection.training_summary import TrainingImages

SUMMARIES_FILE = "category-summaries.json"
FORMAT = 1

logger = logging.getLogger(__name__)

Entries = dict[str, dict[str, Any]]  # by category: the champion's digest, its summary or None
Fetch = Callable[[str], TrainingImages | None]  # of the category's champion


def collect(uri: str, champions: Mapping[str, str], fetch: Fetch) -> None:
    """Bring the file up to date with the champions; those that are no more leave it.

    Args:
        uri: of the file.
        champions: digest of each category's champion.
        fetch: what a champion's package says of its images; one that fails is asked again the
            next time.

    Raises:
        StorageError: the file cannot be written.
    """
    before = _read(uri)
    known = {name: each for name, each in before.items() if each["digest"] == champions.get(name)}
    missing = [name for name in champions if name not in known]
    entries = read_ahead(lambda name: _fetched(name, fetch), missing)
    for name, entry in zip(missing, entries, strict=True):
        if entry is not None:
            known[name] = {"digest": champions[name], **entry}
    if known != before:
        document = {"format": FORMAT, "categories": known}
        storage.write_bytes(uri, json.dumps(document).encode())
    logger.info("summaries of %d champions, %d fetched now", len(known), len(missing))


class KnownCategories:
    """The file's summaries, read when they are first needed; without one there are none."""

    def __init__(self, uri: str | None) -> None:
        """Read nothing yet."""
        self.uri = uri
        self._by_space: dict[str, list[CategorySummary]] = {}

    def of_space(self, space: str) -> list[CategorySummary]:
        """Return the summaries that compare with features of this space."""
        if space not in self._by_space:
            self._by_space[space] = self._read(space)
        return self._by_space[space]

    def _read(self, space: str) -> list[CategorySummary]:
        if self.uri is None:
            return []
        try:
            found = {name: each["summary"] for name, each in _read(self.uri).items()}
            return [  # by the names of today
                CategorySummary.from_json({**each, "name": name})
                for name, each in found.items()
                if each and each["space"] == space
            ]
        except (storage.StorageError, ValueError, KeyError, TypeError) as error:
            logger.warning("no other category is compared with; %s: %r", self.uri, error)
            return []


def _fetched(name: str, fetch: Fetch) -> dict[str, Any] | None:
    """Return an entry but for its digest; None where it cannot be had now."""
    try:
        images = fetch(name)
    except NightshiftError as error:
        logger.warning("%s is not compared with: %s", name, error)
        return None
    summary = images.summary if images else None
    return {"summary": summary.to_json() if summary else None}


def _read(uri: str) -> Entries:
    """Return what the file holds; nothing where it is not there, damaged or another release's."""
    content = storage.read_if_there(uri)
    if content is None:
        return {}
    try:
        document = json.loads(content)
        entries = document["categories"].items() if document["format"] == FORMAT else ()
        return {name: {"digest": e["digest"], "summary": e["summary"]} for name, e in entries}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s is damaged and made anew: %r", uri, error)
        return {}
