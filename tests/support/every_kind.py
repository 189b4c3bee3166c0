"""Categories of every kind of detector, small enough to onboard in seconds."""

from pathlib import Path
from typing import Any

import factory

from pipeline.catalogue.catalogue import Category
from pipeline.evaluation.variants import variant

BANK = {"memory_bank": {"size": 50}}
SHORT = {"training": {"passes": 2, "steps_per_pass": 2, "hidden": 8, "health": "warn"}}
SMALL: dict[str, dict[str, Any]] = {
    "simplenet": {},
    "memory_bank": BANK,
    "ensemble": {**BANK, **SHORT},
    "realnet": {"realnet": factory.SMALL_REALNET},
}


def small_category(images: Path, kind: str, **changes: Any) -> Category:
    """A category with a detector of a kind; a new kind must have its settings in ``SMALL``."""
    of_kind = variant(factory.category(images, **changes), kind)
    assert isinstance(of_kind, Category)
    return Category.model_validate(of_kind.model_dump() | SMALL[kind])
