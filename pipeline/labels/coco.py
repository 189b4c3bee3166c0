"""COCO JSON, as annotation tools write and read it; needs none of their packages.

An image of the list is labelled by the categories of its annotations: a word for good, a word for
unsure, any other is a kind of defect. An image without an annotation has no label: whether it was
looked at and found good, or not looked at, the format does not say.

Source: the data format of COCO, Lin et al. 2014 (arXiv:1405.0312): ``bbox`` is left, top, width and
height in pixels.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from pipeline.labels.foreign import OWN, Box, Marked, NotUnderstood

Size = tuple[int, int]  # width and height in pixels


def is_one(document: Mapping[str, Any]) -> bool:
    """Whether a JSON document is a COCO data set."""
    return isinstance(document.get("images"), list) and "annotations" in document


def images(document: Mapping[str, Any]) -> Iterator[Marked]:
    """Yield the images of a data set with what is said of them.

    Raises:
        NotUnderstood: an annotation names an image or a category that is not there, or an entry
            lacks what every one has.
    """
    try:
        words = {entry["id"]: str(entry["name"]) for entry in document.get("categories", ())}
        said: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
        for annotation in document["annotations"]:
            said[annotation["image_id"]].append(annotation)
        _refuse_shared_ids(document)
        listed = {entry["id"] for entry in document["images"]}
        if strangers := [image for image in said if image not in listed]:
            raise NotUnderstood(
                f"{len(strangers):,} images have annotations and are not in `images`, first id "
                f"{strangers[0]!r}"
            )
        yield from (_marked(entry, said[entry["id"]], words) for entry in document["images"])
    except (KeyError, TypeError, AttributeError) as error:
        raise NotUnderstood(
            f"this is no whole COCO data set ({type(error).__name__}: {error}); `images` need id "
            f"and file_name, `annotations` image_id and category_id of `categories`"
        ) from error


def _refuse_shared_ids(document: Mapping[str, Any]) -> None:
    for part in ("images", "categories"):
        counts = Counter(entry["id"] for entry in document.get(part, ()))
        if shared := [number for number, count in counts.items() if count > 1]:
            raise NotUnderstood(
                f"{len(shared):,} ids of `{part}` stand for several of them, first {shared[0]!r}; "
                f"give each its own"
            )


def _marked(
    entry: Mapping[str, Any], said: Sequence[Mapping[str, Any]], words: Mapping[Any, str]
) -> Marked:
    boxes = [annotation["bbox"] for annotation in said if annotation.get("bbox")]
    width, height = entry.get("width") or 0, entry.get("height") or 0
    is_sized = width > 0 and height > 0
    problem = "" if is_sized or not boxes else "it has boxes, and no width and height"
    if odd := [box for box in boxes if len(box) != 4]:
        is_sized, problem = False, f"its bbox {odd[0]} is not left, top, width and height"
    return Marked(
        uri=str(entry["file_name"]),
        words=[words[annotation["category_id"]] for annotation in said],
        boxes=[_shares(box, width, height) for box in boxes] if is_sized else (),
        own=entry.get(OWN) or {},
        problem=problem,
    )


def _shares(box: Sequence[float], width: float, height: float) -> Box:
    left, top, wide, high = box
    return [left / width, top / height, wide / width, high / height]


def document(marked: Sequence[Marked], sizes: Mapping[str, Size]) -> dict[str, Any]:
    """Return images with one word each as a COCO data set.

    Args:
        marked: the images.
        sizes: of images with boxes, by address; a box without it is left to the own part.
    """
    words = sorted({image.words[0] for image in marked})
    numbers = {word: number for number, word in enumerate(words, start=1)}
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(marked, start=1):
        entry: dict[str, Any] = {"id": number, "file_name": image.uri}
        if size := sizes.get(image.uri):
            entry |= {"width": size[0], "height": size[1]}
        listed.append(entry | {OWN: image.own})
        for box, detail in zip_longest(_pixels(image.boxes, size) or [[]], image.details):
            annotation = {"id": len(annotations) + 1, "image_id": number}
            annotation["category_id"] = numbers[image.words[0]]
            annotations.append({**annotation, **_of_box(box), **(detail or {})})
    categories = [{"id": number, "name": word} for word, number in numbers.items()]
    return {"images": listed, "annotations": annotations, "categories": categories}


def of_label(row: Mapping[str, Any]) -> Marked:
    """Return a row of LABEL_SCHEMA as plain values, which is no undo, for ``document``."""
    words, boxes = [word_of(row)], row["regions"] or ()
    return Marked(uri=row["image_uri"], words=words, boxes=boxes, own=own_part(row))


def word_of(row: Mapping[str, Any]) -> str:
    """What a label is called in a manifest."""
    return str(row["kind"] or row["label"])


def own_part(row: Mapping[str, Any]) -> dict[str, Any]:
    """What no format has a field for."""
    return {**row, "labelled_at": row["labelled_at"].isoformat()}


def _pixels(boxes: Sequence[Box], size: Size | None) -> list[Box]:
    if size is None:
        return []
    width, height = size
    return [[x * width, y * height, w * width, h * height] for x, y, w, h in boxes]


def _of_box(box: Box) -> dict[str, Any]:
    return {"bbox": box, "area": box[2] * box[3], "iscrowd": 0} if box else {}
