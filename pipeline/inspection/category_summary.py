"""What a category looks like in a few numbers, and images that look like another category's.

An image is reported where it is unusual among its own and usual among another's: either alone is
no news. Both are distances in units of a category's own spread, channel by channel, taken of the
central part, where a few strangers have no say.

Shapes: N images, F values of each, K categories.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.backbone import Backbone
from model.embedding import Embedding
from pipeline.inspection.image_set import Floats
from pipeline.inspection.robust_tail import beyond

RATE = 0.01  # of categories without a stranger in which any image is unusual enough
USUAL_SHARE = 0.95  # of a category's own images that are as near to it
IQR_OF_NORMAL = 1.349


@dataclass(frozen=True, kw_only=True)
class CategorySummary:
    """One category's centre and spread."""

    name: str
    space: str  # categories with the same backbone and layers compare
    centre: Floats  # (F,)
    spread: Floats  # (F,)
    usual: float  # distance that most of its own images stay below

    def distances(self, pooled_NF: Floats) -> NDArray[np.float64]:
        """Return how far images lie from the category, (N,)."""
        return _distances(pooled_NF, self.centre, self.spread)

    def to_json(self) -> dict[str, Any]:
        """Return plain values; numbers in half precision."""
        return {
            "name": self.name,
            "space": self.space,
            "centre": _packed(self.centre),
            "spread": _packed(self.spread),
            "usual": self.usual,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "CategorySummary":
        """Read what ``to_json`` wrote."""
        return cls(
            name=data["name"],
            space=data["space"],
            centre=_unpacked(data["centre"]),
            spread=_unpacked(data["spread"]),
            usual=float(data["usual"]),
        )


def summarise(name: str, space: str, pooled_NF: Floats) -> CategorySummary:
    """Return the summary of a category's training images."""
    low, centre_F, high = np.quantile(pooled_NF, (0.25, 0.5, 0.75), axis=0)
    spread_F = (high - low) / IQR_OF_NORMAL
    floor = max(1e-3 * float(spread_F.mean()), 1e-4)
    centre_F, spread_F = _half(centre_F), _half(np.maximum(spread_F, floor))
    own = _distances(pooled_NF, centre_F, spread_F)
    usual = float(np.quantile(own, USUAL_SHARE))
    return CategorySummary(name=name, space=space, centre=centre_F, spread=spread_F, usual=usual)


def space_of_backbone(backbone: Backbone, embedding: Embedding) -> str:
    """Return what two categories must share for their summaries to compare."""
    layers = "+".join(map(str, backbone.config.layers))
    window = f"{embedding.kind}{embedding.patch_size}"
    return f"{backbone.config.name}-{backbone.digest[:16]}-layers{layers}-{window}"


def strangers(
    pooled_NF: Floats, own: CategorySummary, others: Sequence[CategorySummary]
) -> list[tuple[int, str]]:
    """Return images that look like another category, with its name; the most unusual first.

    Args:
        pooled_NF: a category's training images.
        own: its summary.
        others: of other categories; those of another space are left out.
    """
    compared = [each for each in others if each.space == own.space and each.name != own.name]
    distances_N = own.distances(pooled_NF)
    unusual = np.flatnonzero(beyond(np.log(np.maximum(distances_N, 1e-9)), RATE))
    if not compared or not len(unusual):
        return []
    relative_KU = np.stack([each.distances(pooled_NF[unusual]) / each.usual for each in compared])
    nearest_U = relative_KU.argmin(axis=0)
    return [
        (int(unusual[place]), compared[nearest_U[place]].name)
        for place in np.argsort(-distances_N[unusual], kind="stable")
        if relative_KU[nearest_U[place], place] <= 1
    ]


def _distances(pooled_NF: Floats, centre_F: Floats, spread_F: Floats) -> NDArray[np.float64]:
    scaled_NF = (pooled_NF - centre_F) / spread_F
    distances: NDArray[np.float64] = np.sqrt((scaled_NF.astype(np.float64) ** 2).mean(axis=1))
    return distances


def _half(values: NDArray[np.floating]) -> Floats:
    rounded: Floats = values.astype(np.float16).astype(np.float32)
    return rounded


def _packed(values: Floats) -> str:
    return base64.b64encode(values.astype("<f2").tobytes()).decode()


def _unpacked(text: str) -> Floats:
    values: Floats = np.frombuffer(base64.b64decode(text), "<f2").astype(np.float32)
    return values
