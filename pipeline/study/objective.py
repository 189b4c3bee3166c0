"""What a trial is scored by: how well a head tells marked images from good ones it has not seen.

Image AUROC says whether an anomaly is noticed, and saturates on easy categories; average precision
over pixels says how cleanly it is found, and hardly ever does. The default is the mean of the two.
None of it looks at a test image.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.measuring.metrics import image_metrics, pixel_metrics

METRICS = ("image_auroc", "pixel_ap", "aupro")


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Scores and maps of images, some of them anomalous."""

    scores: NDArray[np.float32]  # (N,)
    anomalous: NDArray[np.bool_]  # (N,)
    maps: NDArray[np.float32]  # (N, h, w), thinned
    masks: NDArray[np.bool_]  # (N, h, w)
    marked: NDArray[np.bool_]  # (N,), whether it is known which pixels are anomalous

    def metrics(self) -> dict[str, float]:
        """Return image and pixel metrics by name; what is undefined is left out."""
        found: dict[str, float | None] = {
            "image_auroc": image_metrics(self.scores, self.anomalous).auroc
        }
        pixels = pixel_metrics(self.maps[self.marked], self.masks[self.marked])
        found |= {"pixel_ap": pixels.average_precision, "aupro": pixels.aupro_30}
        return {name: float(value) for name, value in found.items() if value is not None}


def objective(metrics: Mapping[str, float], kind: str) -> float:
    """Return the number that a study makes large, in [0, 1].

    Labelled images without a mask have no pixel metrics; image AUROC stands for them.
    """
    auroc = metrics["image_auroc"]
    if kind == "balanced":
        return (auroc + metrics.get("pixel_ap", auroc)) / 2
    return metrics.get(kind, auroc)
