"""Data layouts: where a data set keeps its good images, its defects and their masks.

A layout is one reader of a few lines. Every reader gives the same samples for the same names, in
whatever order the storage lists them.
"""

from collections.abc import Callable
from dataclasses import replace

from pipeline import storage
from pipeline.datasets.folder_tree import FolderTree, read_tree
from pipeline.datasets.image_lists import (
    read_columns,
    read_list,
    refuse_duplicates,
    refuse_missing,
    resolve_uri,
    resolve_uris,
)
from pipeline.datasets.samples import (
    GOOD,
    ImageNames,
    LayoutError,
    Listing,
    Sample,
    Split,
    defect_of,
    kinds_finding,
    some,
    split_by_name,
    stem,
)
from pipeline.images.masks import mask_levels
from pipeline.images.picture import ImageTooLarge, UnreadableImage

__all__ = ["LAYOUTS", "LayoutError", "Listing", "Sample", "read_layout"]

Reader = Callable[[str], Listing]

VISA_SPLIT = "split_csv/1cls.csv"
VISA_COLUMNS = {name: (name,) for name in ("object", "split", "label", "image", "mask")}
MANIFEST_COLUMNS = {
    "image_uri": ("image_uri", "source-ref"),
    "split": ("split",),
    "label": ("defect", "class-name", "label", "anomaly-label"),
    "mask_uri": ("mask_uri", "anomaly-mask-ref"),
}
# What holds no good images, as folders of data sets are called.
NAMES_OF_OTHERS = """
test testing ground_truth groundtruth mask masks label labels bad ng nok ko defect defects defective
anomaly anomalies anomalous abnormal faulty reject rejects
"""
NOT_GOOD = frozenset(NAMES_OF_OTHERS.split())
LABEL_ENDINGS = ("_label", "_mask", "_gt")
SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "train",
    "validation": "train",
    "test": "test",
    "testing": "test",
}


def read_layout(layout: str, images: str) -> Listing:
    """Samples of one category, sorted by URI, all of "train" good; and what was found beside them.

    Args:
        layout: a key of LAYOUTS.
        images: the category's folder, or its manifest.

    Raises:
        LayoutError: unknown layout, nothing there, or nothing to train on.
        ServiceAway, AccessDenied: the images cannot be looked at.
    """
    if layout not in LAYOUTS:
        raise LayoutError(f"unknown layout {layout!r}; choose one of {', '.join(sorted(LAYOUTS))}")
    images = storage.absolute(images).rstrip("/")
    try:
        listing = LAYOUTS[layout](images)
    except storage.ObjectMissing as error:
        raise LayoutError(
            f"layout {layout}: {error}; expected below images: {STRUCTURE[layout]}"
        ) from error
    samples = sorted(listing.samples, key=lambda sample: sample.uri)
    if not any(sample.split == "train" for sample in samples):
        raise LayoutError(
            f"{images} has no good training image among {len(samples)} images; the layout {layout} "
            f"expects {STRUCTURE[layout]}{_found_instead(images)}"
        )
    return replace(listing, samples=samples)


def _mvtec(images: str) -> Listing:
    return read_tree(images, FolderTree())


def _mvtec_loco(images: str) -> Listing:
    """Its validation images are good ones kept from training; Nightshift draws its own."""
    return read_tree(images, FolderTree(train=("train", "validation")))


def _folder(images: str) -> Listing:
    """All images are good ones, so a folder or a name that says otherwise refuses the category."""
    names = ImageNames.below(images)
    strange = [name for name in names.images if _is_no_good_image(name)]
    if strange:
        raise LayoutError(
            f"{images}: the layout folder takes all of {len(names.images)} images for good ones, "
            f"and {len(strange)} lie where defects, tests or masks do: {some(strange)}. Write the "
            f"layout that they have (`nightshift init` finds it), or move them away"
        )
    samples = [Sample(storage.join(images, name), "train", GOOD) for name in names.images]
    return Listing(samples=samples, findings=tuple(names.findings))


def _is_no_good_image(name: str) -> bool:
    *folders, last = (part.casefold() for part in name.split("/"))
    return bool(NOT_GOOD.intersection(folders)) or stem(last).endswith(LABEL_ENDINGS)


def _visa(images: str) -> Listing:
    """The 1-class folders when they are there, else the split file beside the objects."""
    if storage.exists(f"{images}/train"):
        return read_tree(images, FolderTree())
    root, _, category = images.rpartition("/")
    table = read_columns(f"{root}/{VISA_SPLIT}", VISA_COLUMNS)
    refuse_missing(table, "image", f"{root}/{VISA_SPLIT}")
    rows = [row for row in table.to_pylist() if row["object"] == category]
    if not rows:
        known = ", ".join(sorted(set(table["object"].to_pylist())))
        raise LayoutError(f"{root}/{VISA_SPLIT} has no object {category!r}; it has {known}")
    samples = [_labelled(row["image"], row, row["mask"], root) for row in rows]
    return Listing(samples=samples, findings=tuple(kinds_finding(samples)))


def _ksdd(images: str) -> Listing:
    """A part is defective when its label has a pixel that is not black."""
    listed = ImageNames.below(images)
    names = listed.images
    labels = {stem(name).removesuffix("_label"): name for name in names if _is_label(name)}
    samples = []
    for name in (name for name in names if not _is_label(name)):
        if stem(name) not in labels:
            raise LayoutError(f"{images}/{name} has no {stem(name)}_label.bmp; add or remove it")
        label = storage.join(images, labels[stem(name)])
        uri = storage.join(images, name)
        if _holds_anything(label):
            samples.append(Sample(uri, "test", "defect", (label,)))
        else:
            samples.append(Sample(uri, split_by_name(name), GOOD))
    return Listing(samples=samples, findings=(*kinds_finding(samples), *listed.findings))


def _cifar10(images: str) -> Listing:
    """One class is good, every other class of the test images is a defect."""
    root, train, category = images.rsplit("/", 2)
    if train != "train":
        raise LayoutError(f"layout cifar10: images must be <root>/train/<class>, got {images}")
    tests, trained = ImageNames.below(f"{root}/test"), ImageNames.below(images)
    samples = [Sample(storage.join(images, name), "train", GOOD) for name in trained.images]
    for name in tests.images:
        found = name.partition("/")[0]
        defect = GOOD if found == category else found
        samples.append(Sample(f"{root}/test/{name}", "test", defect))
    findings = (*kinds_finding(samples), *trained.findings, *tests.findings)
    return Listing(samples=samples, findings=findings)


def _manifest(uri: str) -> Listing:
    """Without a split, defects are for the test, and with them a share of the good images.

    Without labels all images are good. Where there are labels, every image needs one.
    """
    listed = read_list(uri, MANIFEST_COLUMNS)
    table = listed.table
    refuse_missing(table, "image_uri", uri)
    names = table["image_uri"].to_pylist()
    table = table.set_column(0, "image_uri", resolve_uris(table["image_uri"], uri))
    refuse_duplicates(table, "image_uri", uri)
    rows = table.to_pylist()
    _refuse_no_labels(rows, listed.used.get("label"), uri)
    only_good = all(_defect(row["label"], row["image_uri"]) == GOOD for row in rows)
    for name, row in zip(names, rows, strict=True):
        row["split"] = row["split"] or ("train" if only_good else split_by_name(name))
    folder = uri.rpartition("/")[0]
    samples = [_labelled(row["image_uri"], row, row["mask_uri"], folder) for row in rows]
    unused = [f"columns that are not used: {some(listed.unused)}"] if listed.unused else []
    return Listing(samples=samples, findings=(*kinds_finding(samples), *unused))


def _refuse_no_labels(rows: list[dict[str, str]], column: str | None, uri: str) -> None:
    """Raise LayoutError where there is a column of labels, and rows without a plain word in it."""
    if column is None:
        return
    empty = [number for number, row in enumerate(rows, 1) if not (row["label"] or "").strip()]
    nested = [number for number, row in enumerate(rows, 1) if _is_nested(row["label"])]
    for numbers, what in ((empty, "no"), (nested, "a nested")):
        if numbers:
            row = rows[numbers[0] - 1]
            raise LayoutError(
                f"{uri}: {len(numbers)} of {len(rows)} rows have {what} label in the column "
                f"`{column}`, first row {numbers[0]} ({row['image_uri']}: {row['label']!r}); write "
                f"one word each, such as good or the kind of defect, or leave the column out where "
                f"all images are good"
            )


def _is_nested(label: str | None) -> bool:
    return (label or "").lstrip().startswith(("{", "["))


def _labelled(image: str, row: dict[str, str], mask: str | None, folder: str) -> Sample:
    """A defective image is for the test, wherever its data set put it."""
    split = SPLITS.get((row["split"] or "").strip().casefold())
    if split is None:
        raise LayoutError(f"{image}: split {row['split']!r} is unknown; write train or test")
    defect = _defect(row["label"], image)
    uri = resolve_uri(image, folder)
    if defect == GOOD:
        return Sample(uri, split, GOOD)
    return Sample(uri, "test", defect, (resolve_uri(mask, folder),) if mask else ())


def _defect(label: str | None, where: str) -> str:
    """Return the kind of defect; GOOD where the data set has no labels."""
    return defect_of(label, where) if label and label.strip() else GOOD


def _is_label(name: str) -> bool:
    return stem(name).endswith(LABEL_ENDINGS[0])


def _holds_anything(label: str) -> bool:
    try:
        return mask_levels(storage.read_bytes(label)).getbbox() is not None
    except (UnreadableImage, ImageTooLarge) as error:
        raise LayoutError(f"label {label}: {error}") from error


def _found_instead(images: str) -> str:
    try:
        names = storage.list_names(images)
    except storage.StorageError:
        return ""
    return f"; found there: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"


LAYOUTS: dict[str, Reader] = {
    "mvtec": _mvtec,
    "mvtec_loco": _mvtec_loco,
    "mpdd": _mvtec,
    "btad": _mvtec,
    "visa": _visa,
    "ksdd": _ksdd,
    "cifar10": _cifar10,
    "folder": _folder,
    "manifest": _manifest,
}
MVTEC_TREE = "train/good/*, test/<defect>/*, ground_truth/<defect>/<image>_mask.png"
STRUCTURE = {
    "mvtec": MVTEC_TREE,
    "mvtec_loco": "train/good/*, validation/good/*, test/<defect>/*, "
    "ground_truth/<defect>/<image>/*.png",
    "mpdd": MVTEC_TREE,
    "btad": "train/ok/*, test/ok/*, test/ko/*, ground_truth/ko/*",
    "visa": f"train/good/*, test/good/*, test/bad/*, ground_truth/bad/*, or ../{VISA_SPLIT}",
    "ksdd": "<part>/<image>.jpg each with <part>/<image>_label.bmp",
    "cifar10": "<root>/train/<class>/* as images, and <root>/test/<class>/*",
    "folder": "good images at any depth",
    "manifest": "a .parquet, .csv or .jsonl file with image_uri and, if known, split, label, "
    "mask_uri",
}
