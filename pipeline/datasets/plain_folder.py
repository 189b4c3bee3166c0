"""A folder whose images are all good, at any depth; and what says that some are not.

Names alone decide. Images are no good ones where a folder is named for tests, masks or defects, or
stands beside one that is named for good parts, and where a file is the mask of another one.
"""

import posixpath
from collections.abc import Sequence

from pipeline import storage
from pipeline.datasets.good_words import (
    is_bad_word,
    plain_word,
    sounds_good,
    tokens_of,
    without_noun,
)
from pipeline.datasets.samples import (
    GOOD,
    ImageNames,
    LayoutError,
    Listing,
    Sample,
    masks_beside,
    some,
)

# Folders of other layouts that hold no images to learn from, with a noun or a number too.
OTHER_FOLDERS = frozenset(
    """
    test tests testing testset test-public test-private ground-truth groundtruth gt mask masks
    label labels annotation annotations segmentation
    """.split()  # noqa: SIM905  a list of words reads best as one
)

MASKS = frozenset(("mask", "masks", "groundtruth", "gt"))  # wherever they stand in a name
# Folders that split one data set: what is beside good/ in one of them is beside it in all.
SPLITS = frozenset("train training val valid validation eval evaluation dev".split())  # noqa: SIM905


def read_folder(images: str) -> Listing:
    """Return all images below a folder as good ones.

    Raises:
        LayoutError: the name of a file or folder says that some are not.
    """
    names = ImageNames.below(images)
    strange = not_good(names.images)
    if strange:
        raise LayoutError(
            f"{images}: the layout folder takes all of {len(names.images)} images for good ones, "
            f"and {len(strange)} lie where defects, tests or masks do, or beside a folder of good "
            f"parts: {some(strange)}. Let `images:` name the folder of the good ones, or write "
            f"the layout that they have (`nightshift init` finds it)"
        )
    samples = [Sample(storage.join(images, name), "train", GOOD) for name in names.images]
    return Listing(samples=samples, findings=tuple(names.findings))


def not_good(names: Sequence[str]) -> list[str]:
    """Return images that hold no good part by their names below the folder, slashes included."""
    good = (each for each in _folders(names) if is_good_folder(each))
    beside_good = {_without_split(posixpath.dirname(each)) for each in good}
    masks = set(masks_beside(names))
    return [name for name in names if name in masks or _is_strange(name, beside_good)]


def holds_no_good_parts(folder: str) -> bool:
    """Whether a folder is named for tests, masks or defects."""
    plain = plain_word(folder)
    return (
        is_bad_word(folder)
        or without_noun(plain) in OTHER_FOLDERS
        or plain in OTHER_FOLDERS
        or not MASKS.isdisjoint(tokens_of(plain))
    )


def _folders(names: Sequence[str]) -> set[str]:
    """Return every folder that is above an image."""
    return {"/".join(parts[:end]) for parts in _parts(names) for end in range(1, len(parts))}


def _parts(names: Sequence[str]) -> list[list[str]]:
    return [name.split("/") for name in names]


def is_good_folder(folder: str) -> bool:
    """Numbers such as 0 count days and cameras, so that they are no word here."""
    last = posixpath.basename(folder)
    return sounds_good(last) and any(map(str.isalpha, last))


def _without_split(folder: str) -> str:
    """Return a folder with one name for all splits."""
    return "/".join("*" if plain_word(part) in SPLITS else part for part in folder.split("/"))


def _is_strange(name: str, beside_good: set[str]) -> bool:
    """Whether a folder of this image says that it holds no good parts."""
    parts = name.split("/")
    for end, part in enumerate(parts):
        is_folder = end < len(parts) - 1
        if is_folder and holds_no_good_parts(part):
            return True
        above = _without_split("/".join(parts[:end]))
        if above in beside_good and not (is_folder and sounds_good(part)):
            return True
    return False
