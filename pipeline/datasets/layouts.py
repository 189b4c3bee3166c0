"""Data layouts: where a data set keeps its good images, its defects and their masks.

A layout is one reader of a few lines. Every reader gives the same samples for the same names, in
whatever order the storage lists them.
"""

from collections.abc import Callable

from pipeline import storage
from pipeline.datasets.image_lists import (
    read_columns,
    refuse_duplicates,
    refuse_missing,
    resolve_uri,
    resolve_uris,
)
from pipeline.datasets.samples import (
    GOOD,
    GOOD_LABELS,
    FolderTree,
    LayoutError,
    Sample,
    Split,
    image_names,
    read_tree,
    split_by_name,
    stem,
)
from pipeline.images.masks import mask_levels
from pipeline.images.picture import ImageTooLarge, UnreadableImage

__all__ = ["LAYOUTS", "LayoutError", "Sample", "read_layout"]

Reader = Callable[[str], list[Sample]]

VISA_SPLIT = "split_csv/1cls.csv"
VISA_COLUMNS = {name: (name,) for name in ("object", "split", "label", "image", "mask")}
MANIFEST_COLUMNS = {
    "image_uri": ("image_uri", "source-ref"),
    "split": ("split",),
    "label": ("defect", "class-name", "label", "anomaly-label"),
    "mask_uri": ("mask_uri", "anomaly-mask-ref"),
}
SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "train",
    "validation": "train",
    "test": "test",
    "testing": "test",
}


def read_layout(layout: str, images: str) -> list[Sample]:
    """Samples of one category, sorted by URI; all of "train" are good.

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
        samples = LAYOUTS[layout](images)
    except storage.ObjectMissing as error:
        raise LayoutError(
            f"layout {layout}: {error}; expected below images: {STRUCTURE[layout]}"
        ) from error
    if not any(sample.split == "train" for sample in samples):
        raise LayoutError(
            f"{images} has no good training image among {len(samples)} images; the layout {layout} "
            f"expects {STRUCTURE[layout]}{_found_instead(images)}"
        )
    return sorted(samples, key=lambda sample: sample.uri)


def _mvtec(images: str) -> list[Sample]:
    return read_tree(images, FolderTree())


def _mvtec_loco(images: str) -> list[Sample]:
    """Its validation images are good ones kept from training; Nightshift draws its own."""
    return read_tree(images, FolderTree(train=("train", "validation")))


def _btad(images: str) -> list[Sample]:
    return read_tree(images, FolderTree(good="ok"))


def _folder(images: str) -> list[Sample]:
    return [Sample(storage.join(images, name), "train", GOOD) for name in image_names(images)]


def _visa(images: str) -> list[Sample]:
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
    return [_labelled(row["image"], row, row["mask"], root) for row in rows]


def _ksdd(images: str) -> list[Sample]:
    """A part is defective when its label has a pixel that is not black."""
    names = image_names(images)
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
    return samples


def _cifar10(images: str) -> list[Sample]:
    """One class is good, every other class of the test images is a defect."""
    root, train, category = images.rsplit("/", 2)
    if train != "train":
        raise LayoutError(f"layout cifar10: images must be <root>/train/<class>, got {images}")
    tests = image_names(f"{root}/test")
    classes = [name.partition("/")[0] for name in tests]
    return _folder(images) + [
        Sample(f"{root}/test/{name}", "test", GOOD if found == category else found)
        for name, found in zip(tests, classes, strict=True)
    ]


def _manifest(uri: str) -> list[Sample]:
    """Without a split, defects are for the test, and with them a share of the good images."""
    table = read_columns(uri, MANIFEST_COLUMNS)
    refuse_missing(table, "image_uri", uri)
    names = table["image_uri"].to_pylist()
    table = table.set_column(0, "image_uri", resolve_uris(table["image_uri"], uri))
    refuse_duplicates(table, "image_uri", uri)
    rows = table.to_pylist()
    only_good = all(_defect(row["label"]) == GOOD for row in rows)
    for name, row in zip(names, rows, strict=True):
        row["split"] = row["split"] or ("train" if only_good else split_by_name(name))
    folder = uri.rpartition("/")[0]
    return [_labelled(row["image_uri"], row, row["mask_uri"], folder) for row in rows]


def _labelled(image: str, row: dict[str, str], mask: str | None, folder: str) -> Sample:
    """A defective image is for the test, wherever its data set put it."""
    split = SPLITS.get((row["split"] or "").lower())
    if split is None:
        raise LayoutError(f"{image}: split {row['split']!r} is unknown; write train or test")
    defect = _defect(row["label"])
    uri = resolve_uri(image, folder)
    if defect == GOOD:
        return Sample(uri, split, GOOD)
    return Sample(uri, "test", defect, (resolve_uri(mask, folder),) if mask else ())


def _defect(label: str | None) -> str:
    label = label or ""
    return GOOD if label.lower() in GOOD_LABELS else label


def _is_label(name: str) -> bool:
    return stem(name).endswith("_label")


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
    "btad": _btad,
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
