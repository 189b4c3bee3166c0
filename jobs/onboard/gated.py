"""New versions that wait for the gate: categories whose catalogue says ``promote: gate``.

The first version of a category has nobody to beat and goes live at once. A later one stays a
challenger until all of its onboarding are there; then the gate is asked about them together.
"""

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from model.errors import NightshiftError
from pipeline.catalogue.catalogue import CatalogueError, Category
from pipeline.promotion.fleet_gate import ask_all
from pipeline.promotion.gate import GateOptions
from pipeline.registry import models
from pipeline.registry.aliases import CHAMPION, AliasError, AliasHistory
from pipeline.registry.models import RegisteredVersion

logger = logging.getLogger(__name__)


def refuse_without_results(categories: Sequence[Category]) -> None:
    """Raise CatalogueError where the gate is to be asked and has nothing to judge by."""
    names = [each.name for each in categories if each.promote == "gate" and each.results is None]
    if names:
        raise CatalogueError(
            f"promote: gate of {len(names):,} categories, first {names[0]}, needs the nights to "
            f"judge by; give `results:` in the catalogue or --out, as `score --out`"
        )


def learned_instead(version: RegisteredVersion, history: AliasHistory) -> str | None:
    """Say why a version of an unchanged catalogue does not take the champion's place.

    The champion is newer and has learned from labels, and this one has not: most likely their
    address is mistyped, moved or left out, and that is no reason to unlearn.
    """
    number = int(history.aliases.get(CHAMPION, 0))  # versions begin at 1
    if version.has_learned_from_labels or int(version.version) > number:
        return None
    champion = models.find_version(version.category, number)
    if champion is None or not champion.has_learned_from_labels:
        return None
    return (
        f"labels: none are found, and the champion, version {number}, has learned from some: it "
        f"stays. Name their results (`labels:` or --with-labels), or take it back with "
        f"`nightshift rollback`"
    )


def promote_first(version: RegisteredVersion) -> tuple[RegisteredVersion, dict[str, Any]]:
    """Promote where there is no champion; return what an outcome says where there is one by now."""
    try:
        return models.promote(version, instead_of=None), {}
    except AliasError as error:  # the gate is asked
        return version, {"gate": str(error)}


def ask_gate(categories: Sequence[Category]) -> dict[str, tuple[str | None, str]]:
    """Ask about the challengers of categories; the version that was promoted, and what was said.

    What cannot be asked stays as it is, and says so: what was onboarded is onboarded.
    """
    by_results: dict[str, list[str]] = defaultdict(list)
    for category in categories:
        by_results[category.results or ""].append(category.name)
    said: dict[str, tuple[str | None, str]] = {}
    for out, names in by_results.items():
        try:
            done = ask_all(GateOptions(out=out), names)
        except NightshiftError as error:
            said |= dict.fromkeys(names, (None, f"the gate could not be asked: {error}"))
            continue
        for answer in done.answers:
            promoted = answer.challenger if answer.promoted else None
            said[answer.category] = promoted, f"{answer.verdict}: {answer.reason}"
        said |= {name: (None, f"could not be asked: {why}") for name, why in done.failed.items()}
        logger.info("gate: %s", done.page)
    return said
