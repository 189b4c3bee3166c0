"""Categories of every kind of detector, small enough to onboard in seconds."""

import dataclasses
from pathlib import Path
from typing import Any

import factory

from model.simplenet import HeadConfig
from model.training import TrainingConfig
from pipeline.catalogue.catalogue import Category
from pipeline.evaluation.variants import variant
from pipeline.onboarding.prepare import PreparedCategory, make_trainer, prepare

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


def prepare_small(category: Category) -> PreparedCategory:
    """Prepare a category; an ensemble's head over images, which a catalogue cannot shorten, too."""
    prepared = prepare(category)
    if category.detector != "ensemble":
        return prepared
    recipe = category.recipe
    image = TrainingConfig(
        head=HeadConfig(hidden=8, members=recipe.simplenet.image.head.members),
        passes=4,
        steps_per_pass=10,
        batch_rows=64,
        coreset=0,
    )
    short = dataclasses.replace(
        recipe, simplenet=dataclasses.replace(recipe.simplenet, image=image)
    )
    trainer = make_trainer(prepared.good, prepared.parts, category.detector, short, prepared.pairs)
    return dataclasses.replace(prepared, trainer=trainer)
