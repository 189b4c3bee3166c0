"""Onboard one category: images -> features -> head -> calibration -> evaluation -> package.

Everything here runs in one process and knows nothing of a cluster. ``prepare``
(``prepare.py``) looks at every good image once; the trainer it returns may be stopped and
restored between passes; ``finish`` takes every decision on good images that the heads have not
been trained on and only then looks at labelled ones.
"""

import copy
import logging
import time
from dataclasses import asdict, replace
from itertools import compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.kind import Heads
from pipeline.calibration import Calibration, Part, fit
from pipeline.catalogue.catalogue import Category
from pipeline.datasets.samples import of_split, some
from pipeline.images.image_statistics import Values, condense
from pipeline.images.regions import RegionRule, fit_rule
from pipeline.measuring.labelled import ScoredSamples, measure, read_marks, score_samples
from pipeline.onboarding import label_head
from pipeline.onboarding.check_images import check_images
from pipeline.onboarding.defect_sizes import PICTURE, SizeFound, findings_of_sizes, measure_sizes
from pipeline.onboarding.examples import examples, worst_unseen
from pipeline.onboarding.health import measure_health, refuse_unhealthy
from pipeline.onboarding.prepare import PreparedCategory, UnseenScores, make_detector, score_unseen
from pipeline.onboarding.squeeze import squeeze_of
from pipeline.onboarding.zones import least_positions
from pipeline.package import DIGEST_CHARACTERS, MapScale, OnboardingRecord, Package, Reference

LARGE_MEGABYTES = 10

logger = logging.getLogger(__name__)


def finish(prepared: PreparedCategory) -> tuple[Package, dict[str, NDArray[np.uint8]]]:
    """Fold, calibrate, then evaluate; return the package and example pictures by name."""
    trained = time.monotonic()
    category = prepared.category
    detector = make_detector(prepared, prepared.trainer)
    unseen = score_unseen(prepared, prepared.trainer, detector)
    calibration = fit(unseen.scores, category.calibration_config)
    scale = MapScale(low=unseen.map_median, threshold=calibration.threshold)
    health = measure_health(prepared, detector, unseen)
    refuse_unhealthy(category.name, health, warn=category.training.health == "warn")
    check, pictures = check_images(prepared, detector, unseen) or (None, None)
    sizes = measure_sizes(prepared, detector, calibration)
    calibrated = time.monotonic()
    test = of_split(prepared.samples, "test")
    scored = score_samples(test, detector, prepared.embedder)
    prepared.embedder.flush()
    timings = {
        "embedding": prepared.embedded - prepared.started,
        "training": trained - prepared.embedded,
        "calibration": calibrated - trained,
        "evaluation": time.monotonic() - calibrated,
    }
    record = _record(prepared, scored, calibration, timings, health)
    findings = [
        *record.findings,
        *findings_of_heads(detector.heads),
        *findings_of_sizes(sizes, category.zones.min_area or 0),
    ]
    package = Package(
        header=detector.header,
        heads=copy.deepcopy(detector.heads).cpu(),
        reference=Reference(
            calibration=calibration,
            map_scale=scale,
            statistics=_statistics(prepared, unseen),
            modes=prepared.good.modes,
            check=check,
            regions=_rule(category, unseen),
            zones=detector.header.zones,
        ),
        record=replace(record, findings=findings, defect_sizes=[asdict(each) for each in sizes]),
        check_images=pictures,
        training_images=prepared.described,
    )
    logger.info(
        "onboarded %s: %d train, %d calibration, threshold %.4g, %.1f s",
        *(category.name, *np.bincount(prepared.parts, minlength=2)[:2], calibration.threshold),
        time.monotonic() - prepared.started,
    )
    shown = scored if scored.samples else worst_unseen(prepared, detector, unseen)
    return package, examples(shown, scale, category.preprocessing) | _curve(category, sizes)


def _curve(category: Category, sizes: list[SizeFound]) -> dict[str, NDArray[np.uint8]]:
    """Return the picture of the sizes of defects that are found, by name."""
    if not sizes:
        return {}
    from pipeline.onboarding.size_curve import size_figure  # noqa: PLC0415  a second to import
    from pipeline.pages.plot_style import drawn  # noqa: PLC0415

    figure = size_figure(category.name, {"as it is": sizes}, category.false_alarm_rate)
    return {PICTURE: drawn(figure)}


def findings_of_heads(heads: Heads) -> list[str]:
    """Say it where a category's heads are so large that few fit into a worker."""
    megabytes = heads.stored_bytes / 1e6
    if megabytes <= LARGE_MEGABYTES:
        return []
    return [f"heads of {megabytes:.0f} MB: a worker holds few of such categories at once"]


def findings_of_copies(prepared: PreparedCategory, scored: ScoredSamples) -> list[str]:
    """Name the training images, used to train or to calibrate, that are test images too."""
    used = compress(zip(prepared.good.uris, prepared.good.hashes, strict=True), prepared.is_used)
    tests = {*scored.hashes}
    copies = [uri for uri, content in used if content in tests]
    return copies and [
        f"train and test: {len(copies)} training images are test images too: {some(copies, 3)}. "
        f"Remove them from one of the two: what is measured on them says nothing"
    ]


def write_package(prepared: PreparedCategory, folder: Path) -> Package:
    """Finish and write everything into ``folder``."""
    package, examples = finish(prepared)
    package.write(folder, examples)
    return package


def _rule(category: Category, unseen: UnseenScores) -> RegionRule:
    rate = category.region_rate or category.false_alarm_rate
    return fit_rule(unseen.highest, rate, least_positions(category, category.preprocessing.view))


def _statistics(prepared: PreparedCategory, unseen: UnseenScores) -> Values:
    """Return the statistics of the calibration images, what a night's are compared with."""
    indices = unseen.images.cpu().numpy()
    return {name: condense(v[indices]) for name, v in prepared.good.statistics.items()}


def _record(
    prepared: PreparedCategory,
    scored: ScoredSamples,
    calibration: Calibration,
    timings: dict[str, float],
    health: dict[str, float],
) -> OnboardingRecord:
    category, good = prepared.category, prepared.good
    settings = category.model_dump(mode="json")
    settings |= {
        "precision": prepared.backbone.config.precision,  # what `auto` came to
        "recipe": asdict(prepared.trainer.recipe),
        "labels": settings["labels"] if prepared.has_learned_from_labels else [],
    }
    squeeze = squeeze_of(good.images.reads, category.preprocessing)
    metrics = {"threshold": calibration.threshold}
    metrics |= {"pixels_kept": squeeze.kept} if squeeze else {}
    metrics |= {f"health_{name}": value for name, value in health.items()}
    findings = [*prepared.findings, *label_head.say(prepared.trainer, prepared.defects)]
    if scored.samples:
        marks = read_marks(scored.samples, category.preprocessing)
        metrics |= measure(scored, calibration, marks)
        findings += [*marks.findings, *findings_of_copies(prepared, scored)]
    listed = {sample.uri for sample in of_split(prepared.samples, "train")}
    per_part = np.bincount(prepared.parts, minlength=len(Part))
    return OnboardingRecord(
        category=category.name,
        settings=settings,
        dataset_digest=good.digest,
        counts={
            **{part.name.lower(): int(per_part[part]) for part in Part if part < Part.SUSPECT},
            **{
                part.name.lower(): int(per_part[part])
                for part in (Part.SUSPECT, Part.LEFT_OUT)
                if per_part[part]
            },
            **({"defects": len(prepared.defects.uris)} if prepared.defects.uris else {}),
            "unreadable": len(good.unreadable),
            "beyond_max_images": len(
                listed - {*good.uris, *(each.uri for each in good.unreadable)}
            ),
            "test": len(scored.samples),
            "test_unreadable": len(scored.unreadable),
        },
        unreadable=[
            {"uri": image.uri, "status": image.status.value, "error": image.error or ""}
            for image in [*good.unreadable, *scored.unreadable]
        ],
        curve=[{"head": name, **vars(report)} for name, report in prepared.trainer.reports],
        metrics=metrics,
        timings_s=timings,
        backbone_images=prepared.backbone.num_images_seen,
        findings=[*findings, *prepared.embedder.findings],
        features=prepared.embedder.counts,
        contents=sorted({each[:DIGEST_CHARACTERS] for each in prepared.contents}),
    )
