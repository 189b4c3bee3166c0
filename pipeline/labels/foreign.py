"""What a manifest from elsewhere says of one image, before it is a label."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import ValidationError

from pipeline.datasets.good_words import is_good_word, meant_word, says_nothing
from pipeline.labels.label import Label, LabelsError, Said
from pipeline.storage import absolute

OWN = "nightshift"  # key of what our own exports say beside
REGIONS = "regions"  # what it says of a file that holds no labels, but what detectors found
PROVENANCE = ("image_etag", "category", "night", "model_name", "model_version", "chosen")
UNSURE_WORDS = frozenset(("unsure", "unknown", "uncertain", "unclear"))
SAID = ("label", "kind", "regions", "labelled_by", "labelled_at")
Box = list[float]


class NotUnderstood(LabelsError):
    """A manifest whose parts contradict each other, or that could be read in several ways."""


@dataclass(frozen=True, kw_only=True)
class Marked:
    """One image of a manifest and all that is said of it."""

    uri: str
    words: Sequence[str]  # names of its labels; none: nothing is said of it
    boxes: Sequence[Box] = ()  # shares of the sides, see Label
    own: Mapping[str, Any] = field(default_factory=dict)  # what an export of ours said beside
    problem: str = ""
    details: Sequence[Mapping[str, Any]] = ()  # what else an export says of each box


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a manifest from elsewhere does not say of its labels."""

    uri: str  # of the file: relative addresses start at its folder
    read_at: dt.datetime
    category: str | None = None
    night: str | None = None
    labelled_by: str | None = None
    chosen: str | None = None


def to_label(image: Marked, source: Source) -> Label:
    """Return what a manifest says of one image as a label.

    An export of ours that comes back keeps who said it and when, unless it says something else
    now.

    Raises:
        LabelsError: its words contradict each other or are not understood, a box is none, or
            nothing says of which category it is.
    """
    said, own = said_by(image), image.own
    if image.problem:
        raise LabelsError(f"{image.uri}: {image.problem}")
    if not isinstance(own, Mapping):
        raise LabelsError(f"{image.uri}: its `{OWN}` is not what an export has written; remove it")
    fields = {name: own[name] for name in PROVENANCE if own.get(name) is not None}
    fields |= {"image_uri": absolute(image.uri, absolute(source.uri).rpartition("/")[0])}
    if _is_as_exported(image, said):
        fields |= {name: own.get(name) for name in SAID}
    else:
        fields |= {"label": said, "kind": _kind(image, said), "regions": list(image.boxes) or None}
        fields |= {"labelled_by": source.labelled_by, "labelled_at": source.read_at}
    given = {"category": source.category, "night": source.night, "chosen": source.chosen}
    fields |= {name: value for name, value in given.items() if value is not None}
    if not fields.get("category"):
        raise LabelsError(f"{image.uri}: nothing says of which category it is; give --category")
    try:
        return Label.model_validate(fields, strict=False)
    except ValidationError as error:
        raise LabelsError(f"{image.uri}: {error.errors()[0]['msg']}") from error


def _is_as_exported(image: Marked, said: Said) -> bool:
    """Whether an export of ours still says the same; an image without a size lost its boxes."""
    own = image.own.get("regions") or []
    same = image.own.get("label") == said and "labelled_at" in image.own
    try:
        close = len(own) == len(image.boxes) and np.allclose(list(image.boxes), own, atol=1e-6)
    except (TypeError, ValueError):  # no boxes, here or there
        close = False
    return same and (not image.boxes or close)


def _kind(image: Marked, said: Said) -> str | None:
    """The words for a defect, but for the one that says no more than that."""
    words = {word for word in image.words if said == "defect" and _said_by(word) == said}
    return ", ".join(sorted(words - {"defect"})) or None


def said_by(image: Marked) -> Said:
    """Return what the words of an image say together: a defect beside unsure words is a defect.

    Raises:
        LabelsError: it is good and something else at once, or a word is not understood.
    """
    said = {_said_by(word) for word in image.words}
    if len(said) > 1 and "good" in said:
        words = " and ".join(sorted({*image.words}))
        raise LabelsError(f"{image.uri} is called {words}, which contradicts itself")
    return "defect" if "defect" in said else said.pop()


def _said_by(word: str) -> Said:
    if word.strip().casefold() in UNSURE_WORDS:
        return "unsure"
    if is_good_word(word):
        return "good"
    if says_nothing(word) or not word.strip():
        raise LabelsError(f"{word!r} stands for a missing value; remove it or name what is meant")
    if good := meant_word(word):
        raise LabelsError(f"{word!r} is near to {good!r}; write it so, or name the kind of defect")
    return "defect"
