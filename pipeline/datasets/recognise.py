"""Which data sets lie below a folder, and how each is laid out, by names alone: no image is read.

A folder is a category where it, one of its folders or one of theirs has one of the layouts of
``layouts.py``. ``mpdd`` and the one-class folders of ``visa`` are laid out as ``mvtec`` is, and
called so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from model.errors import NightshiftError
from pipeline import storage
from pipeline.datasets.good_words import is_good_word
from pipeline.datasets.image_lists import is_manifest, read_columns
from pipeline.datasets.layouts import VISA_COLUMNS, VISA_SPLIT, read_layout
from pipeline.datasets.plain_folder import holds_no_good_parts, is_good_folder
from pipeline.datasets.samples import some, stem
from pipeline.images.file_names import is_image_name

LEVELS = 2  # below the folder asked about


@dataclass(frozen=True)
class DataSet:
    """A category's images, and their layout."""

    images: str
    layout: str


@dataclass(frozen=True)
class Unplaced:
    """What is in none of the layouts, and why."""

    uri: str
    reason: str


def recognise(folder: str) -> list[DataSet | Unplaced]:
    """Return everything that lies below a folder or prefix, in the order of its names.

    Raises:
        StorageAway, StorageError: the folder cannot be listed.
    """
    folder = storage.absolute(folder).rstrip("/")
    return list(_walk(folder, storage.list_names(folder), LEVELS))


def _walk(folder: str, names: Sequence[str], levels: int) -> Iterator[DataSet | Unplaced]:
    found = _whole(folder, names)
    if found:
        yield from found
        return
    images = [name for name in names if is_image_name(name)]
    if images:
        yield Unplaced(folder, f"holds images beside folders: {some(images)}")
    if any(map(is_good_folder, names)):
        yield Unplaced(folder, _why(folder, names))
        return
    for name in names:
        if name not in images:
            yield from _one(storage.join(folder, name), levels)


def _whole(folder: str, names: Sequence[str]) -> list[DataSet]:
    """Return the categories of a folder that is one data set; none where it is not."""
    if "train" in names:
        return _of_splits(folder, names)
    if "split_csv" in names and storage.exists(f"{folder}/{VISA_SPLIT}"):
        objects = read_columns(f"{folder}/{VISA_SPLIT}", VISA_COLUMNS)["object"].unique()
        return [DataSet(f"{folder}/{name}", "visa") for name in sorted(objects.to_pylist())]
    if names and all(map(is_good_folder, names)):
        return [DataSet(folder, "folder")]
    if names and all(is_image_name(name) or "." in name for name in names):
        inside = [name for name in names if is_image_name(name)]
        return [DataSet(folder, "ksdd" if _labelled(inside) else "folder")] if inside else []
    first = next((name for name in names if "." not in name), None)
    if first and _labelled(_names(f"{folder}/{first}")):
        return [DataSet(folder, "ksdd")]
    return []


def _of_splits(folder: str, names: Sequence[str]) -> list[DataSet]:
    train = _names(f"{folder}/train")
    if "ok" in train:
        return [DataSet(folder, "btad")]
    if any(map(is_good_word, train)):
        return [DataSet(folder, "mvtec_loco" if "validation" in names else "mvtec")]
    if len(train) > 1 and "test" in names and train == _names(f"{folder}/test"):
        return [DataSet(f"{folder}/train/{name}", "cifar10") for name in train]
    return []


def _one(uri: str, levels: int) -> Iterator[DataSet | Unplaced]:
    """Say what one file or folder is."""
    if is_manifest(uri):
        yield _manifest(uri)
        return
    names = _names(uri)
    if not names:
        yield Unplaced(uri, "is neither an image, a manifest nor a folder with anything in it")
        return
    found = list(_walk(uri, names, levels - 1)) if levels > 1 else _whole(uri, names)
    if any(isinstance(each, DataSet) for each in found):
        yield from (_but_no_defects(each) for each in found)
    else:
        yield Unplaced(uri, _why(uri, names))


def _but_no_defects(found: DataSet | Unplaced) -> DataSet | Unplaced:
    """Return what was found, but for folders that hold tests, masks or defects by their names."""
    name = found.images.rpartition("/")[2] if isinstance(found, DataSet) else ""
    if isinstance(found, DataSet) and found.layout == "folder" and holds_no_good_parts(name):
        return Unplaced(
            found.images, "is named for tests, masks or defects; nothing learns from it"
        )
    return found


def _manifest(uri: str) -> DataSet | Unplaced:
    try:
        read_layout("manifest", uri)
    except NightshiftError as error:
        return Unplaced(uri, str(error))
    return DataSet(uri, "manifest")


def _why(folder: str, names: Sequence[str]) -> str:
    if "train" in names:
        train = _names(f"{folder}/train")
        return f"its train/ holds no folder of good images, but {some(train) or 'nothing'}"
    if any(map(is_good_folder, names)):
        return (
            f"holds a folder of good parts beside others, {some(names)}; move them to train/good "
            f"and test/<defect>, or list the images with their labels in a manifest"
        )
    return f"has no layout that is known; it holds {some(names)}"


def _names(folder: str) -> list[str]:
    """Return the names below a folder; none where it is a file, or nothing."""
    try:
        return storage.list_names(folder)
    except storage.StorageError:
        return []


def _labelled(names: Sequence[str]) -> bool:
    return any(is_image_name(name) and stem(name).endswith("_label") for name in names)
