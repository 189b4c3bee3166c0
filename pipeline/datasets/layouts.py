"""Data layouts: where a data set keeps its good images, its defects and their masks.

A layout is one reader of a few lines. Every reader gives the same samples for the same names, in
whatever order the storage lists them.
"""

from collections.abc import Callable
from dataclasses import replace

from pipeline import storage
from pipeline.datasets.folder_tree import FolderTree, read_tree
from pipeline.datasets.image_lists import read_columns, refuse_missing
from pipeline.datasets.labelled_lists import labelled, read_labelled_list, refuse_labels
from pipeline.datasets.plain_folder import read_folder
from pipeline.datasets.samples import (
    GOOD,
    ImageNames,
    LayoutError,
    Listing,
    Sample,
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


def read_layout(layout: str, images: str, group: str | None = None) -> Listing:
    """Samples of one category, sorted by URI, all of "train" good; and what was found beside them.

    A manifest must have the column ``group``, if one is named.

    Raises:
        LayoutError: unknown layout, nothing there, or nothing to train on.
        ServiceAway, AccessDenied: the images cannot be looked at.
    """
    if layout not in LAYOUTS:
        raise LayoutError(f"unknown layout {layout!r}; choose one of {', '.join(sorted(LAYOUTS))}")
    images = storage.absolute(images).rstrip("/")
    try:
        listing = LAYOUTS[layout](images) if group is None else read_labelled_list(images, group)
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
    refuse_labels([(row["image"], row["label"]) for row in rows], "label", f"{root}/{VISA_SPLIT}")
    samples = [labelled(row["image"], row, row["mask"], root) for row in rows]
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
    lost = sorted(name for part, name in labels.items() if part not in set(map(stem, names)))
    missing = [f"labels without an image: {len(lost)}, first {lost[0]}"] if lost else []
    findings = (*kinds_finding(samples), *missing, *listed.findings)
    return Listing(samples=samples, findings=findings)


def _cifar10(images: str) -> Listing:
    """One class is good, every other class of the test images is a defect."""
    root, train, category = images.rsplit("/", 2)
    if train != "train":
        raise LayoutError(f"layout cifar10: images must be <root>/train/<class>, got {images}")
    tests, trained = ImageNames.below(f"{root}/test"), ImageNames.below(images)
    samples = [Sample(storage.join(images, name), "train", GOOD) for name in trained.images]
    of_classes = [name for name in tests.images if "/" in name]
    loose = [name for name in tests.images if "/" not in name]
    for name in of_classes:
        found = name.partition("/")[0]
        defect = GOOD if found == category else found
        samples.append(Sample(f"{root}/test/{name}", "test", defect))
    outside = [f"test images of no class, not used: {some(loose)}"] if loose else []
    findings = (*kinds_finding(samples), *outside, *trained.findings, *tests.findings)
    return Listing(samples=samples, findings=findings)


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
    return f"; found there: {some(names, 8)}"


LAYOUTS: dict[str, Reader] = {
    "mvtec": _mvtec,
    "mvtec_loco": _mvtec_loco,
    "mpdd": _mvtec,
    "btad": _mvtec,
    "visa": _visa,
    "ksdd": _ksdd,
    "cifar10": _cifar10,
    "folder": read_folder,
    "manifest": read_labelled_list,
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
