"""What a category looks like in a few numbers: centre and spread of its training images.

Distances from it are in units of the category's own spread, channel by channel, taken of the
central part, where a few strangers have no say.

Shapes: N images, F values of each.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.backbone import Backbone
from model.embedding import Embedding

Floats = NDArray[np.float32]

USUAL_SHARE = 0.95  # of a category's own images that are as near to it
QUARTILES = (0.25, 0.5, 0.75)
IQR_OF_NORMAL = 1.349
FEW_IMAGES = 100  # of more, one image's part in centre and spread is too small to matter
TINY = 1e-9  # a distance has a logarithm


@dataclass(frozen=True, kw_only=True)
class CategorySummary:
    """One category's centre and spread."""

    name: str
    space: str  # categories with the same backbone and layers compare
    centre: Floats  # (F,)
    spread: Floats  # (F,)
    usual: float  # distance that most of its own images stay below
    quartiles: tuple[float, ...]  # of the logarithms of its own images' distances

    def distances(self, pooled_NF: Floats) -> NDArray[np.float64]:
        """Return how far images lie from the category, (N,)."""
        return _distances(pooled_NF, self.centre, self.spread)

    def to_json(self) -> dict[str, Any]:
        """Return plain values; numbers in half precision."""
        packed = {"centre": _packed(self.centre), "spread": _packed(self.spread)}
        return vars(self) | packed | {"quartiles": list(self.quartiles)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "CategorySummary":
        """Read what ``to_json`` wrote."""
        return cls(
            name=data["name"],
            space=data["space"],
            centre=_unpacked(data["centre"]),
            spread=_unpacked(data["spread"]),
            usual=float(data["usual"]),
            quartiles=tuple(map(float, data["quartiles"])),
        )


def summarise(name: str, space: str, pooled_NF: Floats) -> CategorySummary:
    """Return the summary of a category's training images."""
    centre_F, spread_F = _centre_and_spread(pooled_NF)
    own = _distances(pooled_NF, centre_F, spread_F)
    if len(pooled_NF) <= FEW_IMAGES:
        own = _distances_to_the_others(pooled_NF)
    return CategorySummary(
        name=name,
        space=space,
        centre=centre_F,
        spread=spread_F,
        usual=float(np.quantile(own, USUAL_SHARE)),
        quartiles=tuple(map(float, np.quantile(np.log(np.maximum(own, TINY)), QUARTILES))),
    )


def _distances_to_the_others(pooled_NF: Floats) -> NDArray[np.float64]:
    """Return how far each of few images lies from the others, as a new one does, (N,).

    Its own part in centre and spread would draw it nearer than any new image can be.
    """
    found = np.empty(len(pooled_NF))
    for place in range(len(pooled_NF)):
        others = np.delete(pooled_NF, place, axis=0)
        found[place] = _distances(pooled_NF[place : place + 1], *_centre_and_spread(others))[0]
    return found


def _centre_and_spread(pooled_NF: Floats) -> tuple[Floats, Floats]:
    low, centre_F, high = np.quantile(pooled_NF, QUARTILES, axis=0)
    spread_F = (high - low) / IQR_OF_NORMAL
    floor = max(1e-3 * float(spread_F.mean()), 1e-4)
    return _half(centre_F), _half(np.maximum(spread_F, floor))


def space_of_backbone(backbone: Backbone, embedding: Embedding) -> str:
    """Return what two categories must share for their summaries to compare."""
    layers = "+".join(map(str, backbone.config.layers))
    window = f"{embedding.kind}{embedding.patch_size}"
    return f"{backbone.config.name}-{backbone.digest[:16]}-layers{layers}-{window}"


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
