"""The checks of a category's images in a dump: by one another, and by what it was trained on.

Shapes: N images, U unusual ones of them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.checks import Verdict, passed, warned
from pipeline.data_report.dump_reading import DumpReading
from pipeline.images.image_statistics import STATISTICS
from pipeline.inspection import data_checks, file_checks
from pipeline.inspection.category_summary import TINY, CategorySummary
from pipeline.inspection.found import Found, Line, line_of
from pipeline.inspection.image_set import ImageSet
from pipeline.inspection.pixel_checks import VISIBLE_FACTOR, VISIBLE_STEP
from pipeline.inspection.robust_tail import critical_spread_of_new
from pipeline.inspection.strangers import RATE, nearest_others
from pipeline.inspection.training_summary import in_words
from pipeline.night.error_budget import FEW, ErrorBudget
from pipeline.pages.words import plural

FAR = 6.0  # times as far as most of its training images; defects on real data 5 at most
MOSTLY = 0.5  # of the images, that are unusual: then something has changed for all
AMONG = {  # checks of images by the others of their category, with what to do
    "exact duplicates": "Each is scored; see whether the export writes images twice.",
    "dark": "Look at the lamp and the exposure.",
    "bright": "Look at the lamp and the exposure.",
    "blurred": "Look at the lens and the focus.",
    "flat": "Look at the camera: it may have shot without a part.",
}


def examine_dump(reading: DumpReading, others: Sequence[CategorySummary]) -> list[Line]:
    """Return a category's counts and the line of every check; ``others`` are of the same dump."""
    checks = {check.name: check for check in data_checks.CHECKS}
    return [
        counts(reading),
        _unreadable(reading.images),
        *(
            replace(checks[name], advice=advice).look(reading.images)
            for name, advice in AMONG.items()
        ),
        _sizes(reading),
        _modes(reading),
        _light(reading),
        *_looks(reading, others),
    ]


def counts(reading: DumpReading) -> Line:
    """Say how many images there are, how many were looked at, of which sizes and modes."""
    images = reading.images
    looked_at = len(images.reads) + len(images.unreadable)
    sizes = Counter(in_words(read.size) for read in images.reads if read.size)
    modes = Counter(read.mode or "unknown" for read in images.reads)
    of_all = "" if looked_at == reading.num_images else f", {looked_at:,} of them looked at"
    parts = [
        f"{plural(reading.num_images, 'image')}{of_all}",
        data_checks.named(sizes, "pixels "),
        data_checks.named(modes, "modes "),
    ]
    return Line(check=passed("images", "; ".join(part for part in parts if part)))


def _unreadable(images: ImageSet) -> Line:
    found = file_checks.unreadable(images)
    share = len(found) / max(len(images.reads) + len(found), 1)
    too_many = len(found) > FEW and share > ErrorBudget().category
    advice = "Export or copy them again; they get no score."
    if too_many:
        advice += " They are more than a night's error budget allows for a category."
    verdict = Verdict.FAIL if too_many else Verdict.WARN
    return line_of("unreadable", found, "unreadable files", advice, verdict)


def _sizes(reading: DumpReading) -> Line:
    """Images of a size that no training image has; by the others where that is not known."""
    advice = "See whether they are of this camera."
    known, reads = reading.trained_on, reading.images.reads
    if known is None or not known.sizes or known.num_sizes > len(known.sizes):
        found = file_checks.of_another_size(reading.images)
        return line_of("size", found, "images of another size or shape than the rest", advice)
    usual = next(iter(known.sizes))
    found = [
        Found(uri=read.uri, because=f"{in_words(read.size)} pixels, trained on {usual}")
        for read in reads
        if read.size and in_words(read.size) not in known.sizes
    ]
    return line_of("size", found, "images of a size that no training image has", advice)


def _modes(reading: DumpReading) -> Line:
    """Images coded as no training image is; packages of most earlier releases know that too."""
    known = reading.champion.reference.modes
    advice = "Export them as the training images, or onboard the category again with such images."
    if not known:
        found = file_checks.of_another_mode(reading.images)
        return line_of("mode", found, "images coded in another mode than the rest", advice)
    found = [
        Found(uri=read.uri, because=f"mode {read.mode}, trained on {', '.join(known)}")
        for read in reading.images.reads
        if read.mode and read.mode not in known
    ]
    return line_of("mode", found, "images coded in a mode that no training image has", advice)


def _light(reading: DumpReading) -> Line:
    """Whether the images as a whole are lit, contrasty and sharp as calibration images were."""
    told = []
    for name in STATISTICS:
        values, known = reading.images.statistics[name], reading.champion.reference.statistics
        if len(values) and known.get(name):
            now, before = float(np.median(values)), known[name]
            usual = float(np.median(before))
            if not before[0] <= now <= before[-1] and _is_visible(name, now, usual):
                told.append(f"{name} {now:.3g}, when onboarded {usual:.3g}")
    if not told:
        return Line(check=passed("light and focus", "as when it was onboarded"))
    advice = "Look at lamp, exposure and focus, or onboard the category again with such images."
    return Line(check=warned("light and focus", f"most images differ: {'; '.join(told)}", advice))


def _is_visible(name: str, now: float, usual: float) -> bool:
    if name == "brightness":
        return abs(now - usual) >= VISIBLE_STEP
    return not VISIBLE_FACTOR <= now / max(usual, TINY) <= 1 / VISIBLE_FACTOR


def _looks(reading: DumpReading, others: Sequence[CategorySummary]) -> list[Line]:
    own, images = reading.own, reading.images
    if own is None:
        finding = (
            "not compared with its training images: there were too few, or an earlier release "
            "onboarded the category"
        )
        return [Line(check=passed("another category", finding))]
    relative = own.distances(images.pooled) / own.usual if len(images.reads) else np.zeros(0)
    unusual = np.flatnonzero(_are_unusual(relative, reading))
    unusual = unusual[np.argsort(-relative[unusual], kind="stable")]
    names = nearest_others(images.pooled[unusual], own, others) if len(unusual) else []
    alike, unlike = [], []
    for place, name in zip(unusual, names, strict=True):
        if name:
            alike.append(Found(uri=images.uris[place], because=f"looks like {name}"))
        elif relative[place] > FAR:
            times = f"{relative[place]:.1f} times as far as its training images"
            unlike.append(Found(uri=images.uris[place], because=times))
    see = "See which part they show; they may lie in the wrong folder."
    return [
        line_of("another category", alike, "images that look like another category's", see),
        line_of("no category", unlike, "images that look like none of the dump's categories", see),
        _as_a_whole(len(unusual), len(relative)),
    ]


def _are_unusual(relative: NDArray[np.float64], reading: DumpReading) -> NDArray[np.bool_]:
    """Which images lie beyond what the central part of the training images allows for, (N,)."""
    own, known = reading.own, reading.trained_on
    assert own is not None
    assert known is not None
    low, middle, high = own.quartiles
    logarithms = np.log(np.maximum(relative * own.usual, TINY))
    spread = (logarithms - middle) / max(high - low, TINY)
    beyond: NDArray[np.bool_] = spread > critical_spread_of_new(
        len(relative), known.num_images, RATE
    )
    return beyond


def _as_a_whole(num_unusual: int, num_images: int) -> Line:
    name = "as in training"
    if num_unusual <= MOSTLY * num_images:
        return Line(check=passed(name, "most images look like its training images"))
    finding = f"{num_unusual} of {num_images} images look unlike its training images"
    advice = (
        "Look at lamp, lens and position, and whether this is the product that was onboarded: "
        "most images will be flagged."
    )
    return Line(check=warned(name, finding, advice))
