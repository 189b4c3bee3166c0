"""FiftyOne's JSON, ``samples.json`` of a data set; needs none of its packages.

A sample is labelled by one field of the class Classification, Classifications or Detections. Boxes
are shares of the sides there as here.

Source: https://docs.voxel51.com/user_guide/export_datasets.html, FiftyOneDataset.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from pipeline.labels.foreign import OWN, Marked, NotUnderstood

FIELD = "ground_truth"  # that we write, and prefer where there are several
LISTS = {"Classifications": "classifications", "Detections": "detections"}
KINDS = ("Classification", *LISTS)


def is_one(document: Mapping[str, Any]) -> bool:
    """Whether a JSON document is a data set of FiftyOne."""
    return isinstance(document.get("samples"), list)


def images(document: Mapping[str, Any]) -> Iterator[Marked]:
    """Yield the samples of a data set with what is said of them.

    Raises:
        NotUnderstood: a sample has no file, or several fields could be the labels.
    """
    try:
        name = _field(document["samples"])
        yield from (_marked(sample, name) for sample in document["samples"])
    except (KeyError, TypeError, AttributeError) as error:
        raise NotUnderstood(
            f"this is no whole data set of FiftyOne ({type(error).__name__}: {error}); `samples` "
            f"need filepath, and labels the key label"
        ) from error


def _field(samples: Sequence[Mapping[str, Any]]) -> str:
    """Name of the field that holds the labels."""
    names = {
        name
        for sample in samples
        for name, value in sample.items()
        if isinstance(value, Mapping) and value.get("_cls") in KINDS
    }
    if FIELD in names or not names:
        return FIELD
    if len(names) > 1:
        raise NotUnderstood(
            f"several fields hold labels: {', '.join(sorted(names))}. Call the one that is meant "
            f"{FIELD}, or export it alone."
        )
    return names.pop()


def _marked(sample: Mapping[str, Any], name: str) -> Marked:
    value = sample.get(name) or {}
    kind = str(value.get("_cls"))
    labels = [value] if kind == "Classification" else value.get(LISTS.get(kind, ""), [])
    own = sample.get(OWN) or {}
    return Marked(
        uri=str(sample["filepath"]),
        words=[str(label["label"]) for label in labels],
        boxes=[label["bounding_box"] for label in labels if label.get("bounding_box")],
        own=own,
    )


def document(marked: Sequence[Marked]) -> dict[str, Any]:
    """Return images with one word each as the ``samples.json`` of a data set."""
    return {"samples": [_sample(image) for image in marked]}


def _sample(image: Marked) -> dict[str, Any]:
    (word,) = image.words
    detections = [
        {"_cls": "Detection", "label": word, "bounding_box": box, **(detail or {})}
        for box, detail in zip_longest(image.boxes, image.details)
    ]
    value: dict[str, Any] = {"_cls": "Classification", "label": word}
    if detections:
        value = {"_cls": "Detections", "detections": detections}
    tags = [image.own[name] for name in ("category", "label") if name in image.own]
    return {"filepath": image.uri, "tags": tags, FIELD: value, OWN: image.own}
