"""What a row says of an image: from its score and its patch scores, by its category's champion."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.images.decode import ImageRead, ImageStatus
from pipeline.images.placement import placement
from pipeline.images.regions import NO_REGIONS, find_regions
from pipeline.night.fleet.fleet import Champion

MAP_P_VALUE = 0.05  # maps are kept of flagged images and of those nearly as unusual

Levels = NDArray[np.uint8]  # (H, W), grey, of an anomaly map


def look(  # noqa: PLR0913  all that is known of an image
    champion: Champion,
    image: ImageRead,
    fields: Mapping[str, Any],
    patch_scores_1hw: Tensor,
    make_map: Callable[[Tensor], Tensor],
    *,
    is_drawn: bool,
) -> tuple[dict[str, Any], Levels | None]:
    """Return what a row says of an image beside its score, and its map where that is kept.

    A map is made only where it is kept or could show a region, which most good images cannot.
    ``fields`` are what ``decide`` said, the patch scores are of the image alone, and a drawn map is
    kept whatever the score.
    """
    more: dict[str, Any] = {"image_mode": image.mode, "outside_range": image.outside}
    if image.size is not None:
        more |= {"image_height": image.size[0], "image_width": image.size[1]}
    is_kept = is_drawn or fields["flagged"] or fields["p_value"] <= MAP_P_VALUE
    rule = champion.reference.regions
    may_have_any = rule is not None and rule.may_have_any(patch_scores_1hw.cpu().numpy())
    map_HW = None
    if is_kept or may_have_any:
        (map_HW,) = make_map(patch_scores_1hw).cpu().numpy()
    more |= regions_of(champion, image, map_HW if may_have_any else None)
    if map_HW is None or not is_kept:
        return more, None
    return more, champion.reference.map_scale.to_grey(map_HW)


def regions_of(
    champion: Champion, image: ImageRead, map_HW: NDArray[np.float32] | None
) -> dict[str, Any]:
    """Return the columns of an image's regions; none where the champion has no level for them.

    Without a map it has no region for certain.
    """
    rule, found = champion.reference.regions, NO_REGIONS
    if rule is None or image.size is None:
        return {}
    if map_HW is not None:
        found = find_regions(map_HW, rule, placement(image.size, champion.preprocessing))
    return found.to_row()


def decide(champion: Champion, scores_N: NDArray[np.float32]) -> Iterator[dict[str, Any]]:
    """Yield what a row says of each of a category's images, from its score."""
    calibration = champion.reference.calibration
    same = {
        "status": ImageStatus.OK.value,
        "flagged_fdr": False,  # settled when the whole night is there
        "threshold": calibration.threshold,
        "false_alarm_rate": calibration.false_alarm_rate,
        "model_name": champion.model_name,
        "model_version": champion.model_version,
        "model_digest": champion.model_digest,
    }
    own = scores_N, calibration.p_value(scores_N), calibration.flagged(scores_N)
    for score, p_value, flagged in zip(*(values.tolist() for values in own), strict=True):
        yield same | {"score": score, "p_value": p_value, "flagged": flagged}
