"""The checks of a category's images, one entry each: a new check is a new entry.

None looks at labels of test images but to say that one content has two.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.checks import Verdict, passed
from pipeline.inspection import file_checks, pixel_checks
from pipeline.inspection.found import Found, Line, line_of
from pipeline.inspection.image_set import ImageSet
from pipeline.inspection.suspects import are_suspects

SUSPECTS = "suspected defects"  # the name of this check
MOST_NAMED = 6  # sizes, modes or kinds of defects in one line


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """One check."""

    name: str
    what: str  # the images that it finds are, in the plural
    find: Callable[[ImageSet], list[Found]]  # worst first
    advice: str = "Look at them; leave them out with `exclude`."  # how to mend it
    verdict: Verdict = Verdict.WARN  # where it finds any

    def look(self, image_set: ImageSet) -> Line:
        """Return the check's line."""
        found = self.find(image_set)
        return line_of(self.name, found, self.what, self.advice, self.verdict)


def suspects(image_set: ImageSet) -> list[Found]:
    """Return good training images that look defective, each beside its nearest good one."""
    index, scores = image_set.least_usual
    is_suspect = are_suspects(scores)
    usual = index[~is_suspect]
    low, high = np.quantile(scores, (0.05, 0.95)) if len(scores) else (0.0, 0.0)
    return [
        Found(
            uri=image_set.uris[place],
            because=f"score {score:.3g}, most have {low:.3g} to {high:.3g}",
            beside=_nearest(image_set, place, usual),
        )
        for place, score, suspect in zip(index, scores, is_suspect, strict=True)
        if suspect
    ]


CHECKS = (
    DataCheck(
        name="unreadable",
        what="unreadable files",
        advice="Export or copy them again, or remove them.",
        find=file_checks.unreadable,
    ),
    DataCheck(
        name="exact duplicates",
        what="files that are there twice",
        advice="Onboarding takes each content once; remove the copies.",
        find=file_checks.exact_copies,
    ),
    DataCheck(
        name="train and test",
        what="training images that are test images too",
        advice="Remove them from one of the two: what is measured on them says nothing.",
        find=file_checks.in_both_splits,
        verdict=Verdict.FAIL,
    ),
    DataCheck(
        name="labels",
        what="images with two labels",
        advice="Decide which label is right and remove the other copy.",
        find=file_checks.with_two_labels,
        verdict=Verdict.FAIL,
    ),
    DataCheck(
        name="size",
        what="images of another size or shape than the rest",
        advice="See whether they are of this camera; leave them out with `exclude`.",
        find=file_checks.of_another_size,
    ),
    DataCheck(
        name="mode",
        what="images coded in another mode than the rest",
        advice="Export them as the others, or leave them out with `exclude`.",
        find=file_checks.of_another_mode,
    ),
    DataCheck(name="dark", what="images darker than the rest", find=pixel_checks.dark),
    DataCheck(name="bright", what="images brighter than the rest", find=pixel_checks.bright),
    DataCheck(name="blurred", what="images less sharp than the rest", find=pixel_checks.blurred),
    DataCheck(name="flat", what="images that show next to nothing", find=pixel_checks.flat),
    DataCheck(
        name="near-duplicates",
        what="images that show the same as another",
        advice="Keep one of each: copies on both sides of training and calibration make the "
        "threshold too low.",
        find=pixel_checks.near_copies,
    ),
    DataCheck(
        name="bursts",
        what="images that are much like their neighbours by name",
        advice="Name what belongs together with `group`: a burst on both sides of training and "
        "calibration makes the threshold too low.",
        find=pixel_checks.in_bursts,
    ),
    DataCheck(
        name=SUSPECTS,
        what="good images that look defective",
        advice="Look at each; leave defects out with `exclude`, or let `contamination: drop` do "
        "so for all.",
        find=suspects,
    ),
)


def examine(image_set: ImageSet, checks: Sequence[DataCheck] = CHECKS) -> list[Line]:
    """Return the counts of a category and the line of every check."""
    return [counts(image_set), *(check.look(image_set) for check in checks)]


def counts(image_set: ImageSet) -> Line:
    """Say how many images there are, of which labels, sizes and modes."""
    labels = Counter(f"{sample.split} {sample.defect}" for sample in image_set.samples)
    sizes = Counter(f"{r.size[0]} x {r.size[1]}" for r in image_set.reads if r.size)
    modes = Counter(read.mode or "unknown" for read in image_set.reads)
    parts = [named(labels, ""), named(sizes, "pixels "), named(modes, "modes ")]
    finding = "; ".join(part for part in parts if part) or "no image"
    return Line(check=passed("images", finding))


def named(values: Counter[str], before: str) -> str:
    """Return the most frequent of some values with their counts."""
    shown = [f"{count:,} {name}" for name, count in values.most_common(MOST_NAMED)]
    more = [f"{len(values) - MOST_NAMED} more kinds"] if len(values) > MOST_NAMED else []
    return before + ", ".join([*shown, *more]) if values else ""


def _nearest(image_set: ImageSet, place: int, among: NDArray[np.int64]) -> str | None:
    if not len(among):
        return None
    spread = image_set.pooled[among].std(axis=0) + 1e-6
    away = (((image_set.pooled[among] - image_set.pooled[place]) / spread) ** 2).sum(axis=1)
    return image_set.uris[int(among[away.argmin()])]
