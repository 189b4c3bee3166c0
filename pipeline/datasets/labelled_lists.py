"""A list of images with labels: one row says image, split, kind of defect and mask.

What a label means is never guessed. Without a column of labels all images are good. With one every
row needs a plain word, and a column that looks like one under another name is refused.
"""

from collections.abc import Callable, Mapping, Sequence

from pipeline.datasets.good_words import meant_word, plain_word, says_nothing
from pipeline.datasets.image_lists import (
    ImageList,
    read_list,
    refuse_duplicates,
    refuse_missing,
    resolve_uri,
    resolve_uris,
)
from pipeline.datasets.samples import (
    GOOD,
    LayoutError,
    Listing,
    Sample,
    Split,
    defect_of,
    kinds_finding,
    masks_of_good,
    some,
    split_by_name,
)
from pipeline.datasets.unused_columns import refuse_unused

COLUMNS = {
    "image_uri": ("image_uri", "source-ref"),
    "split": ("split",),
    "label": ("defect", "class-name", "label", "anomaly-label"),
    "mask_uri": ("mask_uri", "anomaly-mask-ref"),
    "image_etag": ("image_etag", "etag", "e_tag"),  # for the key of an onboarding
}
# Columns that other tools keep labels in. Passed over, they would make every image a good one.
LABEL_NAMES = frozenset(
    """
    target verdict result quality judgement judgment choice ground-truth gt
    tag tags ok is-ok good is-good
    """.split()  # noqa: SIM905  a list of words reads best as one
)
LABEL_PARTS = ("label", "defect", "anomal", "class", "annot", "bbox", "bounding")
SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "train",
    "validation": "train",
    "test": "test",
    "testing": "test",
}
WRITE = "write one word each, such as good or the kind of defect"

Row = Mapping[str, str]


def read_labelled_list(uri: str, group: str | None = None) -> Listing:
    """Return the images of a Parquet, CSV or JSON Lines file.

    Without a split, defects are for the test, and with them a share of the good images. A column
    named ``group`` must be there; somebody else reads it.

    Raises:
        StorageError: the file cannot be read.
        ManifestError, LayoutError: what a column or a row means is not plain.
    """
    listed = read_list(uri, COLUMNS if group is None else {**COLUMNS, "group": (group,)})
    _refuse_columns(listed, uri)
    if group is not None and "group" not in listed.used:
        raise LayoutError(
            f"{uri} has no column {group!r}, which `group` names; besides those that are used it "
            f"has {some(listed.unused) or 'none'}. Name one of these, or leave `group` out"
        )
    refuse_unused(listed, uri, SPLITS.keys())
    table = listed.table
    refuse_missing(table, "image_uri", uri)
    names = table["image_uri"].to_pylist()
    table = table.set_column(0, "image_uri", resolve_uris(table["image_uri"], uri))
    refuse_duplicates(table, "image_uri", uri)
    rows = table.to_pylist()
    if "label" in listed.used:
        pairs = [(row["image_uri"], row["label"]) for row in rows]
        refuse_labels(pairs, listed.used["label"], uri)
    only_good = all(_defect(row["label"], row["image_uri"]) == GOOD for row in rows)
    for name, row in zip(names, rows, strict=True):
        has_split = (row["split"] or "").strip()
        row["split"] = has_split or ("train" if only_good else split_by_name(name))
    folder = uri.rpartition("/")[0]
    samples = [labelled(row["image_uri"], row, row["mask_uri"], folder) for row in rows]
    unused = [f"columns that are not used: {some(listed.unused)}"] if listed.unused else []
    findings = (*kinds_finding(samples), *_masks_of_good(samples, rows), *unused)
    return Listing(samples=samples, findings=findings)


def refuse_labels(rows: Sequence[tuple[str, str | None]], column: str, uri: str) -> None:
    """Refuse labels of images, in pairs, that are no plain word for good or a defect.

    Raises:
        LayoutError: a label is empty, nested, a word for a missing value, or nearly one for good.
    """
    for what, is_so in LABEL_FAULTS.items():
        found = [(n, row) for n, row in enumerate(rows, 1) if is_so((row[1] or "").strip())]
        if found:
            number, (image, label) = found[0]
            meant = meant_word(label or "")
            remedy = f"is it to mean `{meant}`? If not, write another word" if meant else WRITE
            raise LayoutError(
                f"{uri}: {len(found)} of {len(rows)} rows have {what} in the column `{column}`, "
                f"first row {number} ({image}: {label!r}); {remedy}, or leave the column out where "
                f"all images are good"
            )


def labelled(image: str, row: Row, mask: str | None, folder: str) -> Sample:
    """Return the sample of a row; a defective image is for the test, wherever its row puts it.

    Relative paths start at ``folder``.

    Raises:
        LayoutError: the split is none.
    """
    split = SPLITS.get((row["split"] or "").strip().casefold())
    if split is None:
        raise LayoutError(f"{image}: split {row['split']!r} is unknown; write train or test")
    defect = _defect(row["label"], image)
    uri = resolve_uri(image, folder)
    if defect == GOOD:
        return Sample(uri, split, GOOD)
    return Sample(uri, "test", defect, (resolve_uri(mask, folder),) if mask else ())


def _refuse_columns(listed: ImageList, uri: str) -> None:
    """Raise LayoutError where no column names images, or labels are in a column of another name."""
    if "image_uri" not in listed.used:
        raise LayoutError(
            f"{uri} has no column `image_uri`; it has {some(listed.unused) or 'none'}. Commas "
            f"separate the columns of a CSV file"
        )
    likely = [name for name in listed.unused if _names_labels(plain_word(name))]
    if likely and "label" not in listed.used:
        raise LayoutError(
            f"{uri}: is the column {likely[0]!r} to mean `label`? As it is, all "
            f"{listed.table.num_rows} images would be good ones; rename it, or leave it out"
        )


def _names_labels(plain: str) -> bool:
    return plain in LABEL_NAMES or any(part in plain for part in LABEL_PARTS)


def _is_nested(label: str) -> bool:
    return label.startswith(("{", "["))


def _masks_of_good(samples: Sequence[Sample], rows: Sequence[Row]) -> list[str]:
    pairs = zip(samples, rows, strict=True)
    return masks_of_good([s.uri for s, row in pairs if s.is_good and row["mask_uri"]])


def _defect(label: str | None, where: str) -> str:
    """Return the kind of defect; GOOD where the data set has no labels."""
    return defect_of(label, where) if label else GOOD


LABEL_FAULTS: dict[str, Callable[[str], bool]] = {
    "no label": lambda label: not label,
    "a nested label": _is_nested,
    "a word for a missing value": says_nothing,
    "a label that is nearly good": lambda label: meant_word(label) is not None,
}
