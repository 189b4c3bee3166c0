"""Files of labels: JSON Lines as the report writes them, COCO JSON, FiftyOne's JSON.

The kind of a file is seen from its content. What is no label is a problem with a place, so that one
message can name them all.
"""

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from pipeline.labels import coco, fiftyone
from pipeline.labels.foreign import OWN, REGIONS, Marked, NotUnderstood, Source, to_label
from pipeline.labels.label import Label, LabelsError

CLOCKS_DIFFER = dt.timedelta(days=1)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # some editors put it in front


@dataclass(frozen=True, kw_only=True)
class Read:
    """What a file holds, by the place in it: "line 3", "image 17"."""

    labels: Mapping[str, Label]
    problems: Mapping[str, str]
    num_unlabelled: int = 0  # images of a manifest of which it says nothing


def read_labels(data: bytes, source: Source) -> Read:
    """Return the labels of a file and what is wrong with the others.

    Raises:
        NotUnderstood: it is COCO or FiftyOne, and its parts contradict each other.
    """
    data = data.removeprefix(BYTE_ORDER_MARK)
    document = _document(data)
    if document.get(OWN) == REGIONS:
        raise NotUnderstood(
            f"{source.uri} holds regions that detectors found, and no labels. Correct them in an "
            f"annotation tool and import what it writes."
        )
    for kind in (coco, fiftyone):
        if kind.is_one(document):
            return _refuse_future(_of_manifest(kind.images(document), source), source)
    return _refuse_future(_of_lines(data), source)


def _refuse_future(read: Read, source: Source) -> Read:
    """What is said to be given after the file was read: it would count before all later labels."""
    limit = source.read_at + CLOCKS_DIFFER
    late = {
        place: f"labelled_at {label.labelled_at.isoformat()} is in the future"
        for place, label in read.labels.items()
        if label.labelled_at > limit
    }
    labels = {place: label for place, label in read.labels.items() if place not in late}
    return replace(read, labels=labels, problems={**read.problems, **late})


def _document(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):  # several lines, or nested beyond all sense
        return {}
    return document if isinstance(document, dict) else {}


def _of_lines(data: bytes) -> Read:
    labels, problems = {}, {}
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            labels[f"line {number}"] = Label.model_validate_json(line)
        except ValidationError as error:
            problems[f"line {number}"] = ", ".join(map(_explain, error.errors()))
    return Read(labels=labels, problems=problems)


def _explain(problem: Mapping[str, Any]) -> str:
    field = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"unknown key {field!r}"
    if problem["type"] == "missing":
        return f"{field} is missing"
    if field == "label" and problem["type"] == "literal_error":
        return f"label {problem['input']!r} is neither 'defect' nor 'good', 'unsure' or 'undo'"
    return f"{field}: {problem['msg']}" if field else str(problem["msg"])


def _of_manifest(images: Iterator[Marked], source: Source) -> Read:
    labels: dict[str, Label] = {}
    problems: dict[str, str] = {}
    num_unlabelled = 0
    for number, image in enumerate(images, start=1):
        place = f"image {number}"
        if not image.words:
            num_unlabelled += 1
            continue
        try:
            labels[place] = to_label(image, source)
        except LabelsError as error:
            problems[place] = str(error)
    problems |= _contradictions(labels)
    labels = {place: label for place, label in labels.items() if place not in problems}
    return Read(labels=labels, problems=problems, num_unlabelled=num_unlabelled)


def _contradictions(labels: Mapping[str, Label]) -> dict[str, str]:
    """Images of a manifest that it lists before, with another label."""
    first: dict[tuple[str, str | None, str], str] = {}
    problems = {}
    for place, label in labels.items():
        key = label.image_uri, label.image_etag, label.category
        before = labels[first.setdefault(key, place)]
        if _said(label) != _said(before):
            problems[place] = (
                f"{label.image_uri} is {first[key]} too, as {before.kind or before.label}; here "
                f"it is {label.kind or label.label}"
            )
    return problems


def _said(label: Label) -> tuple[Any, ...]:
    return label.label, label.kind, label.regions
