"""Masks of a folder tree: <masks>/<defect>/<stem>_mask.png, <stem>.png, or a folder <stem>/."""

import posixpath
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from pipeline import storage
from pipeline.datasets.good_words import is_good_word
from pipeline.datasets.samples import GOOD, stem

Uris = tuple[str, ...]


@dataclass(kw_only=True)
class TreeMasks:
    """Masks by the image that they are of, <defect>/<stem>, and which were asked for.

    The folder of a mask may differ in case from that of its image, ``ground_truth/scratch`` and
    ``test/Scratch``, unless there is an image in a folder of its very name.
    """

    images: Collection[str]  # of the test, as <defect>/<stem>
    by_image: dict[str, Uris]
    alike: dict[str, list[str]] = field(default_factory=dict)  # in lower case -> as written
    used: set[str] = field(default_factory=set)

    @classmethod
    def below(cls, root: str, names: Sequence[str], folder: str, test: str) -> "TreeMasks":
        """Find the masks among the names of all files below the root of a data set."""
        inside = [name.removeprefix(f"{test}/") for name in names if name.startswith(f"{test}/")]
        by_image: dict[str, Uris] = {}
        for name in names:
            below = name.removeprefix(f"{folder}/")
            if below != name and "/" in below:
                for owner in _owners(below):
                    by_image[owner] = (*by_image.get(owner, ()), storage.join(root, name))
        masks = cls(images=set(map(stem, inside)), by_image=by_image)
        for owner in by_image:
            masks.alike.setdefault(_folded(owner), []).append(owner)
        return masks

    def of(self, image: str) -> Uris:
        """Return the masks of a test image, by its name below the folder of the tests."""
        owner = stem(image)
        owners = [owner]
        if owner not in self.by_image:
            owners = [o for o in self.alike.get(_folded(owner), ()) if o not in self.images]
        found = tuple(uri for o in owners for uri in self.by_image[o])
        self.used.update(found)
        return found

    def lost(self) -> list[tuple[str, str]]:
        """Return the masks that no image asked for, each with the image that was looked for."""
        image_of: dict[str, str] = {}
        for owner in sorted(self.by_image, key=len, reverse=True):  # last: the folder of masks
            image_of |= dict.fromkeys(self.by_image[owner], owner)
        return sorted((uri, owner) for uri, owner in image_of.items() if uri not in self.used)


def _owners(below: str) -> set[str]:
    owners = {stem(below).removesuffix("_mask")}
    return owners | {posixpath.dirname(below)} if below.count("/") > 1 else owners


def _folded(owner: str) -> str:
    kind, _, image = owner.partition("/")
    return f"{GOOD if is_good_word(kind) else kind.strip().casefold()}/{image}"
