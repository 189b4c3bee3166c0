"""One label: what somebody said of one image, when, and how the image had been chosen.

Labels are never changed, only followed by others: of several of one image the latest counts, and
``undo`` takes back what was said before. An image is known by its address and its etag, so that a
label of a file that was replaced says nothing of the new one. A label without an etag is one of
every file that had this address.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from model.errors import NightshiftError

Image = tuple[str, str | None]  # address and etag, None where no label says one
Said = Literal["defect", "good", "unsure", "undo"]
# How an image came to be labelled; the last of these that is known of an image holds.
# unknown: nobody knows; earlier releases called so what was not_flagged or not_scored. not_scored:
# nobody knows, since its night has no score of it. not_flagged: nobody knows, and its score is no
# reason. flagged: for its score. audit: drawn at random among all scored images of its category and
# night, and all that were drawn have a label. whole_dump: all images of its category and night have
# one.
Chosen = Literal["unknown", "not_scored", "not_flagged", "flagged", "audit", "whole_dump"]
CHOSEN: tuple[Chosen, ...] = get_args(Chosen)
WHATEVER_THE_SCORE: tuple[Chosen, ...] = ("audit", "whole_dump")

LABEL_SCHEMA = pa.schema(
    [
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("image_etag", pa.string()),
        pa.field("category", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),  # defect | good | unsure | undo
        pa.field("kind", pa.string()),  # of defect, where somebody named it
        pa.field("regions", pa.list_(pa.list_(pa.float64()))),  # see Label
        pa.field("night", pa.string()),  # whose results were judged; null for labels from elsewhere
        pa.field("model_name", pa.string()),
        pa.field("model_version", pa.string()),
        pa.field("labelled_by", pa.string()),
        pa.field("labelled_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("chosen", pa.string(), nullable=False),
    ]
)
ORDER = [(name, "ascending") for name in ("image_uri", "labelled_at", "label")]
SAMPLE = ("category", "night", "chosen")  # columns that say of which sample an image is
LATER = {"kind", "regions", "labelled_by", "chosen"}  # columns that earlier releases had not


class LabelsError(NightshiftError):
    """A file of labels has bad lines, or stored labels cannot be read."""


class Label(BaseModel):
    """What somebody said about one image; one line of a file of labels."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    image_uri: Annotated[str, Field(min_length=1)]
    image_etag: str | None = None
    category: str
    label: Said
    kind: str | None = None
    # Boxes around what is meant: left, top, width, height as shares of the image's sides.
    regions: list[list[float]] | None = None
    night: str | None = None
    model_name: str | None = None  # of the model whose decision was judged
    model_version: str | None = None
    labelled_by: str | None = None
    labelled_at: AwareDatetime
    chosen: Chosen = "unknown"

    @field_validator("regions")
    @classmethod
    def _within_the_image(cls, boxes: list[list[float]] | None) -> list[list[float]] | None:
        for box in boxes or ():
            if not is_box(box):
                raise ValueError(
                    f"{box} is no box of left, top, width and height as shares of the sides, 0 to 1"
                )
        return boxes

    @field_validator("labelled_at")
    @classmethod
    def _in_the_calendar(cls, moment: dt.datetime) -> dt.datetime:
        try:
            moment.astimezone(dt.UTC)
        except OverflowError as error:
            raise ValueError(f"{moment.isoformat()} is no time in UTC") from error
        return moment


def is_box(box: list[float]) -> bool:
    """Whether these are left, top, width and height of a part of an image, as shares of it."""
    if len(box) != 4:
        return False
    left, top, width, height = box
    slack = 1 + 1e-6  # of shares that were computed from pixels
    is_inside = left >= 0 and top >= 0 and left + width <= slack and top + height <= slack
    return is_inside and width > 0 and height > 0


def to_rows(labels: Iterable[Label]) -> pa.Table:
    """Labels as rows of LABEL_SCHEMA."""
    return pa.Table.from_pylist([label.model_dump() for label in labels], schema=LABEL_SCHEMA)


def latest(rows: pa.Table) -> pa.Table:
    """The last label of each image, also where it takes one back; sorted by address.

    How the image was chosen is taken from all that was ever said of it: that it was drawn for the
    audit stays true when somebody changes its label. An audit sample or a whole dump that has lost
    a label by an undo is none any more: what is left of it may have been chosen by what it shows.

    Args:
        rows: LABEL_SCHEMA, in any order.
    """
    last = _latest(rows)
    broken = _broken_samples(last, rows)
    if not broken:
        return last
    samples = zip(*(rows[name].to_pylist() for name in SAMPLE), strict=True)
    chosen = ["unknown" if s in broken else s[-1] for s in samples]
    return _latest(_with(rows, "chosen", chosen))


def _broken_samples(last: pa.Table, rows: pa.Table) -> set[tuple[str, ...]]:
    """Samples of nights of which an image has no label any more."""
    drawn = pc.is_in(last["chosen"], value_set=pa.array(WHATEVER_THE_SCORE))
    undone = last.filter(pc.and_(drawn, pc.equal(last["label"], "undo")))["image_uri"]
    own = rows.filter(pc.is_in(rows["image_uri"], value_set=undone.combine_chunks()))
    samples = zip(*(own[name].to_pylist() for name in SAMPLE), strict=True)
    return {s for s in samples if s[1] is not None and s[2] in WHATEVER_THE_SCORE}


def _latest(rows: pa.Table) -> pa.Table:
    """The last label of each image; those that are labelled once need no looking through."""
    counts = rows["image_uri"].value_counts()
    several = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    is_several = pc.is_in(rows["image_uri"], value_set=several)
    once = rows.filter(pc.invert(is_several))
    return pa.concat_tables([once, _last_of_several(rows.filter(is_several))]).sort_by(ORDER)


def _last_of_several(rows: pa.Table) -> pa.Table:
    rows = rows.sort_by(ORDER)
    last: dict[Image, int] = {}
    rank: dict[Image, int] = defaultdict(int)
    said = zip(_images(rows), rows["chosen"].to_pylist(), strict=True)
    for row, (images, chosen) in enumerate(said):
        for image in images:
            last[image] = row
            rank[image] = max(rank[image], CHOSEN.index(chosen))
    found = _once(last, rows["image_etag"].to_pylist())
    kept = rows.take(pa.array([last[image] for image in found], pa.int64()))
    chosen = [CHOSEN[rank[image]] for image in found]
    return _with(_with(kept, "image_etag", list(found.values())), "chosen", chosen)


def _with(rows: pa.Table, name: str, values: Sequence[str | None]) -> pa.Table:
    place = rows.schema.get_field_index(name)
    return rows.set_column(place, LABEL_SCHEMA.field(name), pa.array(values, pa.string()))


def _once(last: Mapping[Image, int], etags: Sequence[str | None]) -> dict[Image, str | None]:
    """The images with their etags; a label without one counts once where it is the last of all.

    Where only some files of an address were labelled again later, it goes to the others.
    """
    of_uri: dict[str, set[int]] = defaultdict(set)
    for (uri, _), row in last.items():
        of_uri[uri].add(row)
    found: dict[tuple[int, str | None], Image] = {}
    for image, row in sorted(last.items(), key=lambda item: item[1]):
        found.setdefault((row, etags[row] if len(of_uri[image[0]]) == 1 else image[1]), image)
    return {image: etag for (_, etag), image in found.items()}


def _images(rows: pa.Table) -> list[list[Image]]:
    """The images that each label speaks of; without an etag: every known one of its address."""
    pairs = zip(rows["image_uri"].to_pylist(), rows["image_etag"].to_pylist(), strict=True)
    own = [(uri, etag or None) for uri, etag in pairs]
    known: dict[str, dict[Image, None]] = defaultdict(dict)
    for uri, etag in own:
        if etag:
            known[uri][uri, etag] = None
    return [[(uri, etag)] if etag else list(known[uri]) or [(uri, etag)] for uri, etag in own]


def standing(rows: pa.Table) -> pa.Table:
    """The labels that count: the last of each image, without those that were taken back."""
    last = latest(rows)
    return last.filter(pc.not_equal(last["label"], "undo"))


def labels_of(rows: pa.Table, etags: Mapping[str, str | None]) -> dict[str, str]:
    """What counts of each image as it is now: its label by address, none where it was taken back.

    Args:
        rows: every label of the images, LABEL_SCHEMA.
        etags: of the images as they are now. Labels of another file of that name are left out;
            where one of the two etags is not known, nobody can tell.
    """
    said: dict[str, str] = {}
    columns = ("image_uri", "image_etag", "label")
    ordered = rows.sort_by([("labelled_at", "ascending"), ("label", "ascending")])
    for uri, etag, label in zip(*(ordered[name].to_pylist() for name in columns), strict=True):
        if not (etag and etags.get(uri)) or etag == etags[uri]:
            said[uri] = label
    return {uri: label for uri, label in said.items() if label != "undo"}


def contradicted(rows: pa.Table) -> list[str]:
    """Addresses of images that different people call good and defect, sorted.

    Somebody who changes his own mind contradicts nobody; of labels without a name nobody knows
    whose they are, so that each is a voice of its own.
    """
    good, defect = (
        rows.filter(pc.equal(rows["label"], v))["image_uri"] for v in ("good", "defect")
    )
    both = defect.filter(pc.is_in(defect, value_set=good.combine_chunks()))
    rows = rows.filter(pc.is_in(rows["image_uri"], value_set=both.combine_chunks()))
    voices: dict[Image, dict[str, str]] = defaultdict(dict)
    ordered = rows.sort_by("labelled_at")
    said = (ordered[name].to_pylist() for name in ("labelled_by", "label"))
    for images, who, label in zip(_images(ordered), *said, strict=True):
        for own in (voices[image] for image in images):
            if label == "undo":
                own.clear()
            own[who or f"{label} without a name"] = label
    disputed = [uri for (uri, _), own in voices.items() if {"good", "defect"} <= {*own.values()}]
    return sorted({*disputed})
