"""A new version from a version's own heads with another threshold: seconds, and no training.

The scores of the held-out good images lie in the package. Another false-alarm rate is another of
these scores; labelled good images of nights are scored by the same heads and join them. The
guarantee is that of an onboarding (``pipeline/calibration.py``), or the rate is refused.

Only images that were chosen whatever their score may set a threshold. Flagged images that turned
out to be good all have high scores: with them the threshold would rise with every morning, and
defects would pass. Unflagged ones that somebody looked at all have low scores: with them more good
images would be flagged than promised. Of an audit sample or a dump that is labelled whole, images
that people are unsure of count as good; leaving them out would leave out high scores.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model.errors import CategoryFault
from pipeline.calibration import Calibration, CalibrationConfig, TooFewImages, fit
from pipeline.labels.label import CHOSEN, LABEL_SCHEMA, WHATEVER_THE_SCORE, standing
from pipeline.labels.label_table import table_beside
from pipeline.onboarding.defect_sizes import PICTURE, SizeFound, findings_of_sizes
from pipeline.package import DIGEST_CHARACTERS, Package
from pipeline.promotion.image_scores import ImageFile, score_by_each

NOT_MEASURED_AGAIN = ("test_", "threshold")  # what an onboarding measured at its own threshold
GOOD = ("good", "unsure")
ADDED = "labelled"  # setting of a version: images that joined, each its content and its score


class RecalibrationError(CategoryFault):
    """The version's threshold cannot be set again in this way."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """The labelled good images that may set a threshold, and why others may not."""

    images: Sequence[ImageFile]
    left_out: Mapping[str, int]  # good images by how they were chosen
    nights: Sequence[str | None] = ()  # of the images, whose samples they are of


@dataclass(frozen=True, kw_only=True)
class Recalibrated:
    """A version's package with another threshold."""

    package: Package
    key: str  # equal for equal scores, rate and heads
    before: Calibration
    num_labelled: int  # labelled images that joined
    left_out: Mapping[str, int]  # labelled good images that did not, by the reason


def labelled_good(category: str, outs: Sequence[str]) -> Labelled:
    """Find the labelled good images of a category in the tables beside some results.

    Raises:
        LabelsError: there are no such results, or a stored file of labels is damaged.
    """
    tables = [table_beside(out).of_category(category) for out in outs]
    rows = standing(pa.concat_tables([LABEL_SCHEMA.empty_table(), *tables]))
    good = rows.filter(pc.is_in(rows["label"], value_set=pa.array(GOOD)))
    may = pc.is_in(good["chosen"], value_set=pa.array(WHATEVER_THE_SCORE))
    chosen = good.filter(may)
    columns = (chosen[name].to_pylist() for name in ("image_uri", "image_etag", "night"))
    others = Counter(good.filter(pc.invert(may))["chosen"].to_pylist())
    nights = {ImageFile(uri, etag): night for uri, etag, night in zip(*columns, strict=True)}
    return Labelled(images=[*nights], left_out=others, nights=[*nights.values()])


def recalibrate(
    package: Package, digest: str, rate: float | None = None, labelled: Labelled | None = None
) -> Recalibrated:
    """Set a package's threshold again.

    Args:
        package: the version that it starts from.
        digest: of its files.
        rate: share of good images flagged, in (0, 1); the version's own when None.
        labelled: good images that join the calibration.

    Raises:
        TooFewImages: the rate cannot be certified; the message says what would be needed.
        RecalibrationError: labels cannot join this version's calibration.
        CategoryFault: the package cannot be used on this machine.
    """
    before, left_out = package.reference.calibration, Counter[str]()
    own, joined = _without_added(package)
    if labelled is not None:
        _refuse_labels(package)
        left_out.update(labelled.left_out)
        joined, others = _scores(own, labelled)
        left_out.update(others)
    scores = np.array([*own.reference.calibration.scores, *joined.values()], np.float32)
    config = CalibrationConfig(
        false_alarm_rate=before.false_alarm_rate if rate is None else rate, fdr=before.fdr
    )
    calibration = _fit(scores, config, left_out)
    return Recalibrated(
        package=_with_calibration(own, calibration, digest, joined),
        key=_key(digest, calibration),
        before=before,
        num_labelled=len(joined),
        left_out=dict(left_out),
    )


def _without_added(package: Package) -> tuple[Package, Mapping[str, float]]:
    """The package as its onboarding left it, and the scores that a recalibration added.

    Labels that join anew replace these: none counts twice, and one that was taken back is gone.
    """
    calibration, record = package.reference.calibration, package.record
    added: dict[str, float] = dict(record.settings.get(ADDED, ()))
    scores = sorted((Counter(calibration.scores) - Counter(added.values())).elements())
    contents = [each for each in record.contents if each not in added]
    reference = replace(package.reference, calibration=replace(calibration, scores=tuple(scores)))
    return replace(package, reference=reference, record=replace(record, contents=contents)), added


def _refuse_labels(package: Package) -> None:
    settings = package.record.settings
    if settings.get("calibration") == "cross":
        raise RecalibrationError(
            f"{package.record.category} was calibrated with `calibration: cross`, whose scores are "
            f"of heads that left an image out; labelled images have no such score. Recalibrate "
            f"without labels, or onboard with `calibration: split`."
        )
    if settings.get("labels") and not package.record.contents:
        raise RecalibrationError(
            f"{package.record.category} was trained with labelled images by a release that does "
            f"not note which, and none of these may set a threshold. Recalibrate without labels, "
            f"or onboard again with them."
        )


def _scores(package: Package, labelled: Labelled) -> tuple[dict[str, float], Mapping[str, int]]:
    done = score_by_each([package], labelled.images)
    found = np.isfinite(done.scores[0]).tolist()
    nights = [*zip(labelled.nights, found, strict=False)]
    picked_over = {night for night, is_there in nights if not is_there}
    picked_over &= {night for night, is_there in nights if is_there}
    if picked_over:
        raise RecalibrationError(
            f"{package.record.category}: of the samples of {len(picked_over)} nights a part is "
            f"gone or replaced ({', '.join(sorted(night or 'no night' for night in picked_over))}),"
            f" and what is left may be what looked good. Put the files back, or recalibrate "
            f"without labels."
        )
    contents = [each[:DIGEST_CHARACTERS] for each in compress(done.contents, done.is_unseen)]
    return dict(zip(contents, done.scores[0, done.is_unseen].tolist(), strict=True)), done.left_out


def _fit(
    scores: NDArray[np.float32], config: CalibrationConfig, left_out: Mapping[str, int]
) -> Calibration:
    try:
        return fit(scores, config)
    except TooFewImages as error:
        selected = sum(left_out.get(name, 0) for name in {*CHOSEN}.difference(WHATEVER_THE_SCORE))
        more = (
            f" {selected} labelled good images cannot join them: they were not chosen whatever "
            f"their score. Label the night's audit sample, or a whole dump."
            if selected
            else ""
        )
        raise TooFewImages(f"{error}{more}", error.needed) from error


def _with_calibration(
    package: Package, calibration: Calibration, digest: str, joined: Mapping[str, float]
) -> Package:
    """The package with another threshold; what was measured at the old one is left out."""
    reference, record = package.reference, package.record
    scale = replace(reference.map_scale, threshold=calibration.threshold)
    metrics = {
        name: value
        for name, value in record.metrics.items()
        if not name.startswith(NOT_MEASURED_AGAIN)
    }
    of_sizes = findings_of_sizes([SizeFound(**each) for each in record.defect_sizes])
    settings = {**record.settings, "false_alarm_rate": calibration.false_alarm_rate}
    record = replace(
        record,
        settings=settings | {"recalibrated_from": digest, ADDED: sorted(joined.items())},
        contents=sorted({*record.contents, *joined}),  # the gate judges by others
        metrics=metrics | {"threshold": calibration.threshold},
        counts={**record.counts, "calibration": len(calibration.scores)},
        findings=[each for each in record.findings if each not in of_sizes],
        defect_sizes=(),
    )
    reference = replace(reference, calibration=calibration, map_scale=scale)
    return replace(package, reference=reference, record=record)


def _key(digest: str, calibration: Calibration) -> str:
    content = json.dumps([digest, calibration.to_json()], sort_keys=True)
    return f"recalibration-{hashlib.sha256(content.encode()).hexdigest()}"


def write(done: Recalibrated, folder: Path, source: Path) -> None:
    """Write the package into ``folder``, with the images of the one it starts from.

    Args:
        done: what ``recalibrate`` returned.
        folder: where it goes.
        source: the folder of the package that it starts from.
    """
    done.package.write(folder, _pictures(source))


def _pictures(source: Path) -> dict[str, Any]:
    from PIL import Image  # noqa: PLC0415

    paths = sorted((source / "examples").glob("*.png"))
    return {path.stem: np.asarray(Image.open(path)) for path in paths if path.stem != PICTURE}
