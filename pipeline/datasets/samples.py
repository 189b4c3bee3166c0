"""What every data layout comes down to: samples, made from the names below one folder."""

import hashlib
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from model.errors import CategoryFault
from pipeline import storage

Split = Literal["train", "test"]

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"),
    *(".webp", ".gif", ".ppm", ".pgm"),
)
GOOD = "good"
GOOD_LABELS = ("", "good", "normal", "ok", "0", "0.0", "false")
TRAIN_SHARE = 0.7  # of the good images, where a data set has no split of its own


class LayoutError(CategoryFault):
    """The images do not lie as their layout says."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a data set. A defect may have no mask or several, which add up."""

    uri: str
    split: Split
    defect: str  # GOOD, or the data set's own name of the folder or label
    mask_uris: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether the part has no defect."""
        return self.defect == GOOD


def of_split(samples: Sequence[Sample], split: Split) -> list[Sample]:
    """Return the samples to train on, which are all good, or those to test on."""
    return [sample for sample in samples if sample.split == split]


def has_both_kinds(samples: Sequence[Sample]) -> bool:
    """Whether there are good and defective ones, without which nothing can be measured."""
    return len({sample.is_good for sample in samples}) == 2


def refuse_one_kind(name: str, samples: Sequence[Sample], what: str, advice: str) -> None:
    """Refuse labelled images that are all good or all defective.

    Raises:
        LayoutError: they are.
    """
    if not has_both_kinds(samples):
        raise LayoutError(
            f"{name}: {len(samples)} labelled {what}, not of both kinds; needed are good and "
            f"defective ones. {advice}"
        )


@dataclass(frozen=True, kw_only=True)
class FolderTree:
    """The folders that tell split and defect: <split>/<defect>/<image>."""

    good: str = GOOD  # what the data set calls a good part
    train: tuple[str, ...] = ("train",)
    test: str = "test"
    masks: str = "ground_truth"


def image_names(folder: str) -> list[str]:
    """Names below ``folder``, slashes included, of what has the suffix of an image."""
    start = len(folder) + 1
    names = (item.uri[start:] for item in storage.list_objects(folder))
    return sorted(name for name in names if name.lower().endswith(IMAGE_SUFFIXES))


def stem(name: str) -> str:
    """The name without its suffix."""
    return posixpath.splitext(name)[0]


def split_by_name(name: str) -> Split:
    """Train or test by the hash of a name: the same wherever the data set is copied to."""
    draw = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64
    return "train" if draw < TRAIN_SHARE else "test"


def read_tree(images: str, tree: FolderTree) -> list[Sample]:
    """Samples of a folder tree; what lies elsewhere in it (a licence, a readme) is no sample."""
    names = image_names(images)
    masks = _masks(images, names, tree.masks)
    samples = []
    for name in names:
        split, _, rest = name.partition("/")
        folder, _, inside = rest.partition("/")
        if not inside or split not in (*tree.train, tree.test):
            continue
        if split != tree.test and folder != tree.good:
            raise LayoutError(
                f"{images}/{split} may hold only {tree.good}/, found {folder}/; a detector learns "
                f"from good images alone, so move the others below {tree.test}/"
            )
        defect = GOOD if folder == tree.good else folder
        found = () if defect == GOOD else masks.get(f"{folder}/{stem(inside)}", ())
        uri = storage.join(images, name)
        samples.append(Sample(uri, "test" if split == tree.test else "train", defect, found))
    return samples


def _masks(images: str, names: list[str], folder: str) -> dict[str, tuple[str, ...]]:
    """Masks by <defect>/<image stem>: <stem>_mask.png, <stem>.png or a folder <stem>/ of them."""
    masks: dict[str, tuple[str, ...]] = {}
    for name in names:
        top, _, inside = name.partition("/")
        if top != folder or "/" not in inside:
            continue
        owners = {stem(inside).removesuffix("_mask")}
        if inside.count("/") > 1:
            owners.add(posixpath.dirname(inside))
        for owner in owners:
            masks[owner] = (*masks.get(owner, ()), storage.join(images, name))
    return masks
