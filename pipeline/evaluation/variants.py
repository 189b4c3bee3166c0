"""One category with several kinds of detectors, to be compared on the same images."""

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from model.errors import NightshiftError
from model.kinds import KINDS
from pipeline.catalogue.catalogue import Category
from pipeline.catalogue.detector_settings import (
    DETECTOR_SECTIONS,
    OF_EVERY_KIND,
    find_preset,
    takes_anomalies,
)


class UnknownDetector(NightshiftError):
    """A name is neither a kind of detector nor a preset of one."""


def find_detector(name: str) -> tuple[str, str | None]:
    """Return kind and preset of KIND, KIND-PRESET, or a preset that one kind alone has.

    Raises:
        UnknownDetector: there is none, or the preset is one of several kinds.
    """
    if name in KINDS:
        return name, None
    named = {
        f"{kind}-{preset}": (kind, preset)
        for kind, each in KINDS.items()
        for preset in each.presets
    }
    if name in named:
        return named[name]
    having = [full for full, (_, preset) in named.items() if preset == name]
    if len(having) == 1:
        return named[having[0]]
    if having:
        raise UnknownDetector(f"--detectors: `{name}` is ambiguous; take {' or '.join(having)}")
    presets = sorted({preset for _, preset in named.values()} - {"default"})
    raise UnknownDetector(
        f"--detectors: no detector `{name}`; known: {', '.join([*KINDS, *presets])}"
    )


def variant(category: Category, name: str) -> Category | str:
    """Return a category with a detector of that name, or why it cannot have it.

    A kind by its name has the category's own settings where the category is of that kind; a preset
    is taken as published. What the catalogue says of images and calibration holds for all.
    """
    detector, preset = find_detector(name)
    if detector == category.detector and preset in (None, category.preset):
        return category
    changes: dict[str, Any] = {"detector": detector, "preset": preset or "default"}
    if not takes_anomalies(detector, find_preset(detector, changes["preset"]).recipe):
        changes["anomalies"] = None
    of_every_kind = category.training.model_dump(include=set(OF_EVERY_KIND))
    sections: dict[str, Any] = {name: {} for name in DETECTOR_SECTIONS}
    sections["training"] = of_every_kind
    try:
        return Category.model_validate(_without_features_of_preset(category) | changes | sections)
    except ValidationError as error:
        return "; ".join(fault["msg"].removeprefix("Value error, ") for fault in error.errors())


def _without_features_of_preset(category: Category) -> dict[str, Any]:
    """Return a category's settings but for features that are its preset's own."""
    own = find_preset(category.detector, category.preset).features
    settings = category.model_dump()
    return {n: value for n, value in settings.items() if n not in own or value != own[n]}


def refuse_unknown(names: Sequence[str]) -> None:
    """Raise UnknownDetector where a name is none, before anything is measured."""
    for name in names:
        find_detector(name)
