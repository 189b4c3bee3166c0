"""The images a study trains on and is scored by: read, split into folds, marked, embedded once."""

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import storage
from pipeline.backbones import Fetch, fetch_backbone
from pipeline.calibration import Part, TooFewImages, fold_by_content, split_by_content
from pipeline.catalogue.catalogue import Category
from pipeline.datasets.layouts import Sample, read_layout
from pipeline.datasets.samples import LayoutError, of_split, refuse_one_kind
from pipeline.feature_store.embedder import Embedder, embedder_of
from pipeline.images.batches import read_all
from pipeline.images.decode import ImageRead
from pipeline.labels.parts import is_for_gate
from pipeline.labels.told import Told
from pipeline.measuring.labelled import read_marks
from pipeline.onboarding.features import refuse_many_unreadable, training_uris
from pipeline.onboarding.found_settings import with_found_settings
from pipeline.onboarding.labelled_images import find_labelled
from pipeline.onboarding.listed_images import list_images, stay_together
from pipeline.onboarding.page_samples import page_samples
from pipeline.onboarding.synthetic import make_anomalies
from pipeline.study.feature_view import MASKS, FeatureView, SetWriter, is_there, publish, write_all
from pipeline.study.settings import LabelledSet, StudySettings

logger = logging.getLogger(__name__)

LEAST_HELD_OUT = 5  # good images of a fold; fewer say nothing of a false alarm
BACKGROUNDS = 64  # images of a fold on which its anomalies are made
LEAST_CONFIRMED = 10  # defects by which trials are judged
THIN = 4  # every so many-th row and column of a map counts


class Passes(NamedTuple):
    """Images that were embedded, and how often a backbone ran over one of them."""

    images: int = 0
    passes: int = 0


@dataclass(frozen=True, kw_only=True)
class FoldPlan:
    """How good images are held out: which fold a training leaves out depends on its seed."""

    num_folds: int
    used: Sequence[int]  # folds that some training leaves out
    num_anomalies: int  # on the images of each of them


def fold_plan(settings: StudySettings) -> FoldPlan:
    """Return the folds of a study: the first for the search, the next for the finalists."""
    used = sorted({repeat % settings.num_folds for repeat in range(settings.seeds + 1)})
    return FoldPlan(num_folds=settings.num_folds, used=used, num_anomalies=settings.anomalies)


def build_view(
    view: FeatureView,
    plan: FoldPlan,
    uri: str,
    labelled: LabelledSet | None,
    fetch: Fetch = fetch_backbone,
) -> Passes:
    """Write the sets of a view below ``uri`` unless they are there; return what it took.

    ``fetch`` gives the backbone, where it is to compute.

    Raises:
        LayoutError, TooManyUnreadable, TooFewImages, WeightsError, NothingChanges, LabelsError:
            nothing can be learned about this category.
    """
    if is_there(storage.join(uri, "good")):  # it is published last
        return Passes()
    started = time.monotonic()
    listing = list_images(view.category)
    samples = listing.samples
    view = ranged(view, samples)
    category = view.category
    uris = training_uris(category, samples)
    told = find_labelled(category, samples, uris)
    confirmed = read_confirmed(told.defects, category, told.copies)
    refuse_few(category, len(uris), plan)
    embedder = embedder_of_view(view, fetch)
    with TemporaryDirectory(prefix="nightshift-study-") as scratch:
        good = SetWriter(Path(scratch, "good"), view, len(uris))
        folds_by_uri = _write_good(good, uris, plan, embedder, confirmed.contents)
        num_judged = 0
        if labelled is not None:
            tests = {sample.uri for sample in of_split(samples, "test")}
            scored = read_labelled(category, labelled, tests)
            num_judged = write_labelled(view, scored, embedder, storage.join(uri, "labelled"))
        elif len(confirmed.judging) >= LEAST_CONFIRMED:
            place = storage.join(uri, "confirmed")
            num_judged = write_labelled(view, confirmed.judging, embedder, place)
        num_anomalies = len(plan.used) * plan.num_anomalies
        marked = SetWriter(Path(scratch, "anomalies"), view, num_anomalies)
        _write_anomalies(marked, folds_by_uri, plan, embedder)
        publish(marked.folder, storage.join(uri, "anomalies"))
        publish(good.folder, storage.join(uri, "good"))
    num_passes = embedder.backbone.num_images_seen
    logger.info(
        "embedded %s for the study: %d backbone passes, %.1f s",
        *(category.name, num_passes, time.monotonic() - started),
    )
    return Passes(good.written + marked.written + num_judged, num_passes)


def embedder_of_view(view: FeatureView, fetch: Fetch) -> Embedder:
    """Return what embeds the images of a view, whose category knows the range of its pixels."""
    backbone = fetch(view.category.backbone_config)
    return embedder_of(view.category, backbone, view.store, view.settings)


def ranged(view: FeatureView, samples: Sequence[Sample]) -> FeatureView:
    """Return a view whose category knows the range of its pixels."""
    category = view.category
    return replace(view, category=with_found_settings(category, training_uris(category, samples)))


def refuse_few(category: Category, num_images: int, plan: FoldPlan, what: str = "found") -> None:
    """Refuse a category that is too small to hold a fold out of.

    Raises:
        TooFewImages: with how many would do.
    """
    needed = plan.num_folds * LEAST_HELD_OUT
    if num_images < needed:
        raise TooFewImages(
            f"{category.name}: {num_images} good images to train on {what}; a study holds a fold "
            f"of {plan.num_folds} out and needs at least {LEAST_HELD_OUT} images in it, {needed} "
            f"in all. Collect more images, raise study.validation_share or false_alarm_rate, or "
            f"leave the category out with --only.",
            needed,
        )


class Confirmed(NamedTuple):
    """Confirmed defects that can be read."""

    contents: frozenset[str]  # of all: nothing trains that has one of them
    judging: Sequence[Sample]  # those that trials are judged by, none of the gate's or of a test


def read_confirmed(
    told: Sequence[Told], category: Category, copies: Collection[str] = ()
) -> Confirmed:
    """Read the confirmed defects for what they contain; ``copies`` of test images judge nothing."""
    read = read_all([each.uri for each in told], category.preprocessing)
    content_of = {image.uri: image.sha256 for image in read if image.pixels is not None}
    kept = {content for uri, content in content_of.items() if is_for_gate(uri) or uri in copies}
    judging = {content: uri for uri, content in content_of.items() if content not in kept}
    samples = [Sample(uri, "test", "defect") for uri in judging.values()]
    return Confirmed(contents=frozenset(content_of.values()), judging=samples)


def _write_good(
    writer: SetWriter,
    uris: Sequence[str],
    plan: FoldPlan,
    embedder: Embedder,
    defects: Collection[str],
) -> dict[str, int]:
    """Embed all good images; return the fold of those that train, by URI.

    Nothing trains that has the content of a confirmed defect.
    """
    category = writer.view.category
    read, unreadable = _write_files(writer, uris, embedder)
    refuse_many_unreadable(category.name, unreadable, len(uris))
    hashes = [image.sha256 for image in read]
    together = stay_together(category, [image.uri for image in read], hashes)
    parts = split_by_content(hashes, category.calibration_config, together)
    kept = np.flatnonzero(parts == Part.TRAIN).tolist()
    train = [row for row in kept if hashes[row] not in defects]
    refuse_few(category, len(train), plan, "besides those that are held out for the calibration")
    own, bursts_of_own = ([of[row] for row in train] for of in (hashes, together))
    folds = fold_by_content(own, plan.num_folds, bursts_of_own).tolist()
    writer.finish({"rows": train, "folds": folds, "num_unreadable": len(unreadable)})
    return {read[row].uri: fold for row, fold in zip(train, folds, strict=True)}


def _write_files(
    writer: SetWriter, uris: Sequence[str], embedder: Embedder
) -> tuple[list[ImageRead], list[ImageRead]]:
    """Embed the images that can be read; return them, and the others."""
    read: list[ImageRead] = []
    unreadable: list[ImageRead] = []
    for batch in embedder.read(uris, writer.view.category.preprocessing):
        writer.write(batch.planes)
        read += batch.images
        unreadable += batch.unreadable
    embedder.flush()
    return read, unreadable


def _write_anomalies(
    writer: SetWriter, folds_by_uri: dict[str, int], plan: FoldPlan, embedder: Embedder
) -> None:
    """Make and embed the anomalies of every fold that is ever left out."""
    preprocessing = writer.view.category.preprocessing
    masks, folds = [], []
    for fold in plan.used:
        uris = [uri for uri, own in folds_by_uri.items() if own == fold][:BACKGROUNDS]
        images = [image.pixels for image in read_all(uris, preprocessing)]
        pixels = [image for image in images if image is not None]
        anomalies = make_anomalies(pixels, plan.num_anomalies, seed=fold)
        write_all(writer, (anomaly.pixels for anomaly in anomalies), embedder)
        masks += [thin(anomaly.mask) for anomaly in anomalies]
        folds += [fold] * len(anomalies)
    embedder.flush()
    np.save(writer.folder / MASKS, np.stack(masks))
    writer.finish({"folds": folds})


def thin(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return every THIN-th row and column of a mask."""
    return mask[THIN // 2 :: THIN, THIN // 2 :: THIN]


def read_labelled(category: Category, labelled: LabelledSet, tests: set[str]) -> list[Sample]:
    """Return the labelled images that the catalogue names to judge by.

    Raises:
        LayoutError: there are none of both kinds, or they are the category's test images.
    """
    samples = page_samples(category, read_layout(labelled.layout, labelled.images).samples)
    scored = of_split(samples, "test")
    common = sum(sample.uri in tests for sample in scored)
    if common:
        raise LayoutError(
            f"{category.name}: {common} of the {len(scored)} labelled images in study.validation "
            f"are test images of the category; a choice that has seen them could not be tested. "
            f"Name other images, or leave the validation set out to use synthetic anomalies."
        )
    advice = "Add some, or leave the validation set out."
    refuse_one_kind(category.name, scored, "images in study.validation", advice)
    return scored


def write_labelled(
    view: FeatureView, samples: Sequence[Sample], embedder: Embedder, uri: str
) -> int:
    """Embed labelled images and their masks; return how many could be read."""
    preprocessing = view.category.preprocessing
    with TemporaryDirectory(prefix="nightshift-study-") as scratch:
        writer = SetWriter(Path(scratch, "labelled"), view, len(samples))
        read, _ = _write_files(writer, [sample.uri for sample in samples], embedder)
        by_uri = {sample.uri: sample for sample in samples}
        kept = [by_uri[image.uri] for image in read]
        marks = read_marks(kept, preprocessing)
        np.save(writer.folder / MASKS, np.stack([thin(mask) for mask in marks.masks]))
        labels: dict[str, Any] = {
            "defective": [not sample.is_good for sample in kept],
            "marked": marks.known.tolist(),
        }
        writer.finish(labels)
        publish(writer.folder, uri)
    return len(kept)
