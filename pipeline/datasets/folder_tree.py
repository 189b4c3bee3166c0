"""Data sets whose folders tell split and defect, <split>/<defect>/<image>, with masks beside."""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline import storage
from pipeline.datasets.samples import (
    GOOD,
    ImageNames,
    LayoutError,
    Listing,
    Sample,
    defect_of,
    kinds_finding,
    masks_beside,
    masks_of_good,
    some,
)
from pipeline.datasets.tree_masks import TreeMasks


@dataclass(frozen=True, kw_only=True)
class FolderTree:
    """The folders that tell split and defect. A good part's folder has any word for good."""

    train: tuple[str, ...] = ("train",)
    test: str = "test"
    masks: str = "ground_truth"


def read_tree(images: str, tree: FolderTree) -> Listing:
    """Return the samples of a folder tree, and what lies elsewhere in it.

    Raises:
        LayoutError: a training folder holds defects, a folder is nearly called good, or masks lie
            among the images.
    """
    names = ImageNames.below(images)
    _refuse_masks_beside(images, names.images, tree)
    masks = TreeMasks.below(images, names.images, tree.masks, tree.test)
    samples, outside, masked_good = [], list[str](), list[str]()
    for name in names.images:
        split, _, rest = name.partition("/")
        folder, _, inside = rest.partition("/")
        if not inside or split not in (*tree.train, tree.test):
            outside += [name] if split != tree.masks or not inside else []
            continue
        defect = defect_of(folder, f"{images}/{split}/{folder}")
        if split != tree.test and defect != GOOD:
            raise LayoutError(
                f"{images}/{split} may hold only good/, found {folder}/; a detector learns "
                f"from good images alone, so move the others below {tree.test}/"
            )
        uri = storage.join(images, name)
        found = masks.of(rest) if split == tree.test else ()
        if found and defect == GOOD:
            masked_good.append(uri)
            found = ()
        samples.append(Sample(uri, "test" if split == tree.test else "train", defect, found))
    findings = [
        *kinds_finding(samples),
        *_without_masks(samples),
        *_without_images(masks, tree),
        *masks_of_good(masked_good),
        *([f"images outside of the layout, not used: {some(outside)}"] if outside else []),
        *names.findings,
    ]
    return Listing(samples=samples, findings=tuple(findings))


def _refuse_masks_beside(images: str, names: Sequence[str], tree: FolderTree) -> None:
    """Raise LayoutError where a split holds a file that is named as the mask of another one."""
    of_folder: dict[str, list[str]] = {}
    for name in names:
        if name.partition("/")[0] != tree.masks:
            of_folder.setdefault(posixpath.dirname(name), []).append(name)
    found = [name for inside in of_folder.values() for name in masks_beside(inside)]
    if found:
        raise LayoutError(
            f"{images}: {len(found)} files among the images are named as masks of others: "
            f"{some(found)}; move them below {tree.masks}/<defect>/"
        )


def _without_masks(samples: Sequence[Sample]) -> list[str]:
    """Say how many defective images have no mask, where others have."""
    defective = [sample for sample in samples if not sample.is_good]
    bare = [sample.uri for sample in defective if not sample.mask_uris]
    if not bare or len(bare) == len(defective):
        return []
    return [f"{len(bare)} of {len(defective)} defective images have no mask, first {bare[0]}"]


def _without_images(masks: TreeMasks, tree: FolderTree) -> list[str]:
    """Say which masks belong to no image, and what was looked for."""
    lost = masks.lost()
    if not lost:
        return []
    uri, owner = lost[0]
    return [f"masks without an image: {len(lost)}, first {uri}; looked for {tree.test}/{owner}.*"]
