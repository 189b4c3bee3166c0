"""Labelled images in an onboarding: good ones train, some of them calibrate, defects never do.

A confirmed good image trains. It may set the threshold as well where it was chosen whatever its
score: flagged images that turned out to be good all have high scores, and with them the threshold
would rise with every morning. An image of such a choice that people are unsure of may set it too,
and does not train. A confirmed defect is good nowhere: what has its content among the training
images is left out and named. The half of the labels that is kept for the gate
(``labels/parts.py``) teaches nothing.

Shapes: N good images.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.feature_bank import FeatureBank
from pipeline import storage
from pipeline.calibration import Part, first_copies, split_by_content
from pipeline.catalogue.catalogue import Category
from pipeline.datasets.samples import Sample, of_split, some
from pipeline.feature_store.embedder import Embedder
from pipeline.images.page_numbers import split_page
from pipeline.images.prefetch import read_ahead
from pipeline.labels.parts import is_for_gate
from pipeline.labels.told import Told, told_in
from pipeline.onboarding.feature_cache import reserve
from pipeline.onboarding.features import GoodImages, level_shapes
from pipeline.onboarding.listed_images import excluded_uris, stay_together


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """The labelled images of a category that are as they were when they were labelled."""

    joining: Sequence[Told] = ()  # good and unsure ones that are not listed; by score come last
    confirmed: frozenset[str] = frozenset()  # addresses of good ones, listed or not
    defects: Sequence[Told] = ()
    copies: frozenset[str] = frozenset()  # addresses of those with the content of a test image
    gone: Sequence[str] = ()  # deleted or replaced since
    tests: Sequence[str] = ()  # test images and copies of them, from which nobody learns
    picked_over: Sequence[str] = ()  # nights of whose samples a part is gone
    listed: frozenset[str] = frozenset()  # good ones by score, which train without a label too

    def rows(self, uris: Sequence[str], *, label: str, by_score: bool) -> NDArray[np.bool_]:
        """Which of some images, (N,), join with such a label and were chosen so."""
        own = {e.uri for e in self.joining if (e.label, e.by_score) == (label, by_score)}
        return np.array([uri in own for uri in uris], bool)


@dataclass(frozen=True, kw_only=True)
class Defects:
    """Confirmed defects: the contents of all, the features of those that may be learned from."""

    bank: FeatureBank | None = None
    uris: Sequence[str] = ()  # of the bank's images, each content once
    hashes: Sequence[str] = ()  # of their contents
    bursts: Sequence[str] = ()  # digests of what each of these stays together with
    contents: frozenset[str] = frozenset()  # of all that can be read
    unreadable: Sequence[str] = ()

    @property
    def num_bursts(self) -> int:
        """How many of the bank's images are of different parts."""
        return len({*self.bursts})


def find_labelled(
    category: Category,
    samples: Sequence[Sample],
    listed: Sequence[str],
    told: Sequence[Told] | None = None,
) -> LabelledImages:
    """Look up which images of a category are labelled, and which of them are still there.

    Labels of the test images and of their copies are left alone. ``listed`` are those that train
    without labels; where ``told`` is None, labels are read.

    Raises:
        LabelsError: a stored file of labels is damaged.
        StorageError: it cannot be asked for.
    """
    told = told_in(category) if told is None else told
    if not told:
        return LabelledImages()
    excluded = excluded_uris(category)
    tests = {sample.uri for sample in of_split(samples, "test")}
    told = [each for each in told if each.uri not in excluded]
    files = storage.look_up({split_page(uri)[0] for uri in (*tests, *(each.uri for each in told))})
    there = [each for each in told if _is_same(each, files.get(split_page(each.uri)[0]))]
    known = frozenset(listed)
    # A good image that is listed trains without its label, and is not read for it.
    learned = {each.uri for each in there if each.label == "defect" or each.uri not in known}
    copies = frozenset(copies_of(tests, learned, files))
    defects = [e for e in there if e.label == "defect" and e.uri not in tests]
    tests |= copies
    kept = [each for each in there if each.uri not in tests]
    joining = [each for each in kept if each.label != "defect" and each.uri not in known]
    picked_over = nights_in_part(
        {each: each in there for each in told if each.label != "defect" and not each.by_score}
    )
    if picked_over:
        joining = [e._replace(by_score=True) for e in joining if e.label == "good"]
    return LabelledImages(
        joining=sorted(joining, key=lambda each: each.by_score),
        confirmed=frozenset(each.uri for each in kept if each.label == "good"),
        defects=defects,
        copies=copies,
        gone=sorted({each.uri for each in told} - {each.uri for each in there}),
        tests=sorted({each.uri for each in there} & tests),
        picked_over=picked_over,
        listed=frozenset(e.uri for e in kept if e.label == "good" and e.by_score) & known,
    )


def nights_in_part(is_there: Mapping[Told, bool]) -> list[str]:
    """Return the nights of whose images some are there and some are not, sorted.

    Whole nights are deleted for their age. Who moves single images away chooses by what they show,
    and no sample is left, of whatever night: those that are still whole are whole for that reason.
    """
    there = {told.night for told, is_own in is_there.items() if is_own}
    gone = {told.night for told, is_own in is_there.items() if not is_own}
    return sorted(night or "no night" for night in there & gone)


def _is_same(told: Told, file: storage.StoredObject | None) -> bool:
    return file is not None and told.etag in (None, "", file.etag)


def copies_of(
    tests: Collection[str], uris: Collection[str], files: Mapping[str, storage.StoredObject]
) -> set[str]:
    """Return those of some images that have the content of a test image.

    Only files are read whose size says that they may be copies.
    """
    both = set.intersection(
        *(
            {files[file].size_bytes for file, _ in map(split_page, own) if file in files}
            for own in (tests, uris)
        )
    )
    alike = [file for file, item in files.items() if item.size_bytes in both]
    digests = dict(zip(alike, read_ahead(_digest_of, alike), strict=True))

    def content(uri: str) -> tuple[str, int | None]:
        file, page = split_page(uri)
        return digests.get(file, ""), page

    known = {content(uri) for uri in tests}
    return {uri for uri in uris if content(uri)[0] and content(uri) in known}


def _digest_of(file: str) -> str:
    """Return a digest of what a file contains; an empty one where it cannot be read."""
    with suppress(storage.StorageError):
        return hashlib.sha256(storage.read_bytes(file)).hexdigest()
    return ""


def read_defects(labelled: LabelledImages, category: Category, embedder: Embedder) -> Defects:
    """Read every confirmed defect, and keep the features of those that may be learned from.

    Those of the gate's half come first: no copy of one is learned from, nor one of a test image.

    Raises:
        CacheTooSmall: neither memory nor disk has room.
    """
    uris = sorted((each.uri for each in labelled.defects), key=is_for_gate, reverse=True)
    if not uris:
        return Defects()
    backbone = embedder.backbone
    shapes = level_shapes(backbone, category.embedding, category.preprocessing.size)
    bank = reserve(category, len(uris), shapes, backbone.mean.device)
    kept: dict[str, str] = {}  # content by address
    contents: set[str] = set()
    unreadable: list[str] = []
    for batch in embedder.read(uris, category.preprocessing):
        for row, image in enumerate(batch.images):
            teaches = image.uri not in labelled.copies and not is_for_gate(image.uri)
            if teaches and image.sha256 not in contents:
                bank.write(len(kept), [plane[row : row + 1] for plane in batch.planes.values()])
                kept[image.uri] = image.sha256
            contents.add(image.sha256)
        unreadable += [image.uri for image in batch.unreadable]
    embedder.flush()
    return Defects(
        bank=bank,
        uris=[*kept],
        hashes=[*kept.values()],
        bursts=stay_together(category, [*kept], [*kept.values()]),
        contents=frozenset(contents),
        unreadable=unreadable,
    )


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """Where each good image goes."""

    parts: NDArray[np.int8]  # ``Part`` of each, (N,)
    by_score: NDArray[np.bool_]  # may train and never set a threshold, (N,)
    is_unsure: NDArray[np.bool_]  # trains nowhere, is not held out, and sets the threshold, (N,)
    called_defects: Sequence[str] = ()  # listed images with the content of a confirmed defect
    listed: Sequence[str] = ()  # that, or a copy of which, somebody called good for its score


def assign(
    category: Category,
    good: GoodImages,
    labelled: LabelledImages,
    defects: Defects,
) -> Assigned:
    """Split good images into those that train and those that calibrate, as their labels allow.

    Without labels it is ``split_by_content``.

    Raises:
        TooFewImages: see ``split_by_content``.
    """
    by_score = labelled.rows(good.uris, label="good", by_score=True)
    is_unsure = labelled.rows(good.uris, label="unsure", by_score=False)
    is_defect = np.array([content in defects.contents for content in good.hashes], bool)
    own = np.flatnonzero(~(by_score | is_defect))
    hashes, bursts = ([of[row] for row in own] for of in (good.hashes, good.bursts))
    parts = np.full(len(good.uris), Part.TRAIN, np.int8)
    parts[own] = split_by_content(hashes, category.calibration_config, bursts)
    held_out = {good.bursts[row] for row in np.flatnonzero(parts == Part.CALIBRATION)}
    beside = np.array([burst in held_out for burst in good.bursts], bool)
    parts[by_score & ~first_copies(good.hashes)] = Part.DUPLICATE
    unfit = is_defect | (is_unsure & (parts == Part.TRAIN)) | (by_score & beside)
    parts[unfit & (parts != Part.DUPLICATE)] = Part.LEFT_OUT
    joined = {each.uri for each in labelled.joining}
    named = [good.uris[row] for row in np.flatnonzero(is_defect) if good.uris[row] not in joined]
    is_unsure &= (parts == Part.LEFT_OUT) & ~is_defect & (category.calibration == "cross")
    flagged = {good.hashes[row] for row in np.flatnonzero(by_score)}
    flagged |= {c for c, uri in zip(good.hashes, good.uris, strict=True) if uri in labelled.listed}
    pairs = zip(good.uris, good.hashes, strict=True)
    return Assigned(
        parts=parts,
        by_score=by_score,
        is_unsure=is_unsure,
        called_defects=named,
        listed=[uri for uri, content in pairs if uri not in joined and content in flagged],
    )


def say(labelled: LabelledImages, assigned: Assigned, defects: Defects) -> list[str]:
    """Return what a person should know of a category's labels, a sentence each."""
    good = [each for each in labelled.joining if each.label == "good"]
    lines = []
    if labelled.joining or labelled.defects:
        free = sum(not each.by_score for each in labelled.joining)
        lines.append(
            f"labels: {len(good)} confirmed good images join training; {free} images that were "
            f"chosen whatever their score may set the threshold; of {len(labelled.defects)} "
            f"confirmed defects {len(defects.uris)} may be learned from"
        )
    kinds = {
        "are listed, and were called good after they had been chosen by their score; they may set "
        "the threshold. List no image for that, its label is enough": assigned.listed,
        "left out: their content is labelled defect": assigned.called_defects,
        "labelled defect cannot be read": defects.unreadable,
        "gone or replaced since they were labelled": labelled.gone,
        "are test images or copies of them, from which nothing is learned": labelled.tests,
    }
    if labelled.picked_over:
        lines.append(
            f"labels: no labelled image sets the threshold: of the samples of "
            f"{len(labelled.picked_over)} nights a part is gone ({some(labelled.picked_over, 3)}), "
            f"and what is left may be what looked good; put the files back"
        )
    return lines + [
        f"labels: {len(uris)} images {what}: {some(list(uris), 3)}"
        for what, uris in kinds.items()
        if uris
    ]
