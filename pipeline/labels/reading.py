"""Files of labels: JSON Lines as the report writes them, COCO JSON, FiftyOne's JSON.

The kind of a file is seen from its content. What is no label is a problem with a place, so that one
message can name them all.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pipeline.labels import coco, fiftyone
from pipeline.labels.foreign import Marked, Source, to_label
from pipeline.labels.label import Label, LabelsError

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
    for kind in (coco, fiftyone):
        if kind.is_one(document):
            return _of_manifest(kind.images(document), source)
    return _of_lines(data)


def _document(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except ValueError:  # several lines
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
    return Read(labels=labels, problems=problems, num_unlabelled=num_unlabelled)
