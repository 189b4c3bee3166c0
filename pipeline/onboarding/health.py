"""Is a trained head worth registering? Judged without a single label.

A head can fail quietly: it never trained (too small a sigma, a learning rate of nothing), or it
collapsed (every image scores the same, the adaptor shrank its features below the noise). Its
threshold would still be "calibrated". So every onboarding measures what a sound head must have,
and a category whose head lacks it fails.

How well it tells synthetic anomalies from good images that it has not seen is the one number about
defects that a category without labels has. It is reported and refuses nobody: it is no promise
about real defects, and too coarse to choose between two sound settings.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from model.detector import Detector
from model.errors import CategoryFault
from model.kind import Heads
from pipeline.feature_store.embedder import Embedder
from pipeline.images.batches import BATCH_IMAGES, batches, read_all
from pipeline.measuring.metrics import image_metrics
from pipeline.onboarding.pairs import PairMaker
from pipeline.onboarding.prepare import PreparedCategory, UnseenScores
from pipeline.onboarding.synthetic import (
    Mask,
    NothingChanges,
    Pixels,
    SyntheticAnomaly,
    make_anomalies,
)
from pipeline.onboarding.zones import ignored_pixels

logger = logging.getLogger(__name__)

NUM_ANOMALIES, NUM_GROUPS = 48, 8  # synthetic anomalies, from so many groups of unseen images
MOSTLY = 0.5
FEW_WHOLE = 2  # images of a group, where they are cut into tiles: whole ones need memory
# What a sound head must reach. An untrained one has 7 % of its normal rows beyond the margin, a
# collapsed one none on one side; sound ones have 80 to 95 %.
MIN_BEYOND_MARGIN = 0.3
SPREAD_OVER_SIGMA = (0.01, 200.0)  # beyond: noise that drowns all features, or none at all
MIN_SCORE_SPREAD = 1e-4
MAX_OVER_PRIOR = 0.9  # loss over that of one who knows only how much is anomalous; 1: untrained

Make = Callable[[Sequence[Pixels], int], list[Pixels]]  # so many anomalies on good images


class UnhealthyHead(CategoryFault):
    """A head that did not train or collapsed; registering it would promise what it cannot do."""


def measure_health(
    prepared: PreparedCategory, detector: Detector, unseen: UnseenScores
) -> dict[str, float]:
    """Return by name what tells a sound head from a broken one; all finite where sound."""
    health = prepared.trainer.health() | {"score_spread": float(unseen.scores.std())}
    name, make = judge(prepared)
    if make is None:
        return health
    pairs = list(prepared.unseen(prepared.trainer, detector))
    pairs = pairs[:: -(-len(pairs) // NUM_GROUPS)]
    anomalous = [np.zeros(0, np.float32)]
    most = BATCH_IMAGES if prepared.category.tiles is None else FEW_WHOLE
    for heads, index in pairs:
        uris = [prepared.good.uris[row] for row in index.tolist()[:most]]
        images = list(read_all(uris, prepared.category.preprocessing))
        pixels = [image.pixels for image in images if image.pixels is not None]
        alike = [each for each in pixels if each.shape == pixels[0].shape]
        made = _made(make, alike, NUM_ANOMALIES // len(pairs))
        anomalous.append(synthetic_scores(heads, prepared.embedder, made))
    auroc = synthetic_auroc(unseen.scores, np.concatenate(anomalous))
    return health if auroc is None else health | {name: auroc}


def judge(prepared: PreparedCategory) -> tuple[str, Make | None]:
    """Return which anomalies judge a head, and what makes them on unseen images.

    A head that learned from made ones would be flattered by them, and there are none for it. One
    that learned from a bank is shown the bank's on images that it has not seen: that flatters it
    too, but a head that finds not even those has learned nothing from the bank.
    """
    category = prepared.category
    if prepared.pairs is None:

        def that_count(images: Sequence[Pixels], num: int) -> list[Pixels]:
            height, width, _ = images[0].shape
            ignored = ignored_pixels(category, (height, width))
            made = make_anomalies(images, num, seed=0)
            return [each.pixels for each in made if not _is_ignored(each, ignored)]

        return "synthetic_auroc", that_count
    if category.anomalies is None:
        return "", None
    bank = [*prepared.anomalies.pixels]
    seed = category.training.seed + 1  # other regions than those it learned from

    def of_bank(images: Sequence[Pixels], num: int) -> list[Pixels]:
        maker = PairMaker(images=list(images), bank=bank, seed=seed)
        return [maker.make(number)[1] for number in range(num)]

    return "bank_auroc", of_bank


def _is_ignored(anomaly: SyntheticAnomaly, ignored: Mask | None) -> bool:
    """Whether most of an anomaly lies where nothing counts."""
    return ignored is not None and bool(ignored[anomaly.mask].mean() > MOSTLY)


def _made(make: Make, images: Sequence[Pixels], num: int) -> list[Pixels]:
    """Make ``num`` anomalies; none where there are no images or nothing can be seen on them."""
    try:
        return make(images, num) if images else []
    except NothingChanges as error:
        logger.warning("no synthetic anomalies: %s", error)
        return []


@torch.inference_mode()
def synthetic_scores(
    heads: Heads, embedder: Embedder, anomalous: Sequence[Pixels]
) -> NDArray[np.float32]:
    """Score synthetic anomalies (N,) on images that these heads have not seen."""
    scores = [np.zeros(0, np.float32)]
    for batch in batches(anomalous):
        scores.append(heads(embedder.levels_of_pixels(heads, batch))[0].cpu().numpy())
    return np.concatenate(scores)


def synthetic_auroc(good: NDArray[np.float32], anomalous: NDArray[np.float32]) -> float | None:
    """Return the AUROC of synthetic anomalies against good images; None without either."""
    labels = np.arange(len(good) + len(anomalous)) >= len(good)
    return image_metrics(np.concatenate([good, anomalous]), labels).auroc


def refuse_unhealthy(category: str, health: Mapping[str, float], *, warn: bool) -> None:
    """Fail a category whose head did not train or collapsed, or only say so in the log.

    ``health`` is the trainer's, with ``score_spread`` (standard deviation of the scores of unseen
    good images) and, where known, ``synthetic_auroc`` or ``bank_auroc``.

    Raises:
        UnhealthyHead: with every finding and what to do.
    """
    findings = [finding for name, value in health.items() if (finding := _finding(name, value))]
    if not findings:
        return
    message = f"{category}: the trained head is not fit for use: {'; '.join(findings)}."
    if warn:
        logger.warning("%s", message)
        return
    raise UnhealthyHead(
        f"{message} Look at the images, train longer, or change training.sigma (and where tiles "
        f"of a position are all alike, share: all or ignore: them); "
        f"training.health: warn registers it all the same."
    )


def _finding(name: str, value: float) -> str | None:
    """Return what is wrong with one number, in words."""
    if not math.isfinite(value):
        return f"{name} is {value}, not a number"
    low, high = _bounds(name)
    if low <= value <= high:
        return None
    if value == 0 and name.endswith("spread_over_sigma"):
        return f"{name} is 0: its good images are all alike, as far as the backbone sees"
    sign = f"at least {low:g}" if value < low else f"at most {high:g}"
    return f"{name} is {value:.3g}, a sound head has {sign}"


def _bounds(name: str) -> tuple[float, float]:
    if name.endswith("beyond_margin"):
        return MIN_BEYOND_MARGIN, 1.0
    if name.endswith("spread_over_sigma"):
        return SPREAD_OVER_SIGMA
    if name.endswith("over_prior"):
        return 0.0, MAX_OVER_PRIOR
    return (0.0 if name in ("synthetic_auroc", "bank_auroc") else MIN_SCORE_SPREAD), math.inf
