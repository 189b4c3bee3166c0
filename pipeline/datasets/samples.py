"""What every data layout comes down to: samples, and what was found on the way."""

import hashlib
import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from model.errors import CategoryFault
from pipeline import storage
from pipeline.datasets.good_words import is_good_word, meant_word, plain_word, says_nothing
from pipeline.images.file_names import kinds_in_words, other_kind

Split = Literal["train", "test"]

GOOD = "good"
MASK_ENDINGS = ("-label", "-labels", "-mask", "-masks", "-gt")  # of plain words
TRAIN_SHARE = 0.7  # of the good images, where a data set has no split of its own


class LayoutError(CategoryFault):
    """The images do not lie as their layout says."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a data set. A defect may have no mask or several, which add up."""

    uri: str
    split: Split
    defect: str  # GOOD, or the name of the folder or label in lower case
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
class Listing:
    """The samples of a data set, and what a person should know of how they were found."""

    samples: list[Sample]
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageNames:
    """Names below a folder, slashes included: images, and what is something else by its name."""

    images: list[str]  # in alphabetical order
    others: Counter[str]  # by kind, as ``other_kind`` calls it

    @classmethod
    def below(cls, folder: str) -> "ImageNames":
        """List a folder."""
        start = len(folder) + 1
        images, others = [], Counter[str]()
        for item in storage.list_objects(folder, hidden=True):
            name = item.uri[start:]
            kind = other_kind(name)
            if kind is None:
                images.append(name)
            else:
                others[kind] += 1
        return cls(images=sorted(images), others=others)

    @property
    def findings(self) -> list[str]:
        """How many files are something else."""
        found = kinds_in_words(self.others)
        return [f"files that are no images: {found}"] if found else []


def masks_beside(names: Sequence[str]) -> list[str]:
    """Return the files that are named like another one of the same names, as its mask is."""
    stems = {_plain_stem(name) for name in names}
    return [name for name in names if _is_mask(_plain_stem(name), stems)]


def _is_mask(plain: str, stems: set[str]) -> bool:
    return any(plain.endswith(end) and plain.removesuffix(end) in stems for end in MASK_ENDINGS)


def _plain_stem(name: str) -> str:
    return plain_word(stem(posixpath.basename(name)))


def stem(name: str) -> str:
    """The name without its suffix."""
    return posixpath.splitext(name)[0]


def split_by_name(name: str) -> Split:
    """Train or test by the hash of a name: the same wherever the data set is copied to."""
    draw = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64
    return "train" if draw < TRAIN_SHARE else "test"


def defect_of(word: str, where: str) -> str:
    """Return GOOD for a word that says so, else the word in lower case: a kind of defect.

    ``where`` the word stands is for the message.

    Raises:
        LayoutError: the word stands for a missing value, or is nearly one for good.
    """
    if is_good_word(word):
        return GOOD
    if says_nothing(word):
        raise LayoutError(
            f"{where}: `{word}` says neither good nor which defect; write `good` or another word"
        )
    meant = meant_word(word)
    if meant:
        raise LayoutError(
            f"{where}: is `{word}` to mean `{meant}`? As it is, it would be a kind of defect; "
            f"write `{meant}`, or another word for the defect"
        )
    return word.strip().casefold()


def kinds_finding(samples: Sequence[Sample]) -> list[str]:
    """Say which kinds of defects there are, how many of each."""
    kinds = Counter(sample.defect for sample in samples if not sample.is_good)
    return [f"defects: {some([f'{c} {k}' for k, c in sorted(kinds.items())], 12)}"] if kinds else []


def masks_of_good(uris: Sequence[str]) -> list[str]:
    """Say how many good images have a mask."""
    return [f"masks of good images, not used: {len(uris)}, first of {uris[0]}"] if uris else []


def some(names: Sequence[str], shown: int = 5) -> str:
    """Return the first few of many names."""
    return ", ".join(names[:shown]) + (f", ... ({len(names)} in all)" if len(names) > shown else "")
