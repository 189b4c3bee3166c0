"""The kind ensemble: SimpleNet's two heads, a memory bank and the distance of the pooled features.

Each of the four is expressed in the spread of good images that it has not seen, (score - mean) /
std, and an image scores their mean. None of the four is the best for every category, and nothing
that can be known without labels says which one is; their mean is rarely far from the best and on
the whole better than each (``tests/bench/README.md``). The anomaly map is the mean of the two that
have one.

Shapes: B images, N good images, h x w the finest grid.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from model.folding import FoldedHeads, read_heads
from model.kind import Heads, Kind, Preset, TrainingSet
from model.memory_bank import (
    BLOCK_IMAGES,
    MemoryBank,
    MemoryBankRecipe,
    MemoryBankTrainer,
    read_memory_bank,
)
from model.pooled_distance import PooledDistance, fit_pooled
from model.recipe import SIMPLENET, Recipe, RecipeTrainer


@dataclass(frozen=True, kw_only=True)
class EnsembleRecipe:
    """How each part is fitted."""

    simplenet: Recipe = field(default_factory=lambda: SIMPLENET.presets["default"].recipe)
    memory_bank: MemoryBankRecipe = field(default_factory=MemoryBankRecipe)

    def __post_init__(self) -> None:
        if self.simplenet.image is None:
            raise ValueError("training.image_head: an ensemble needs the head over images")
        if self.simplenet.members != self.memory_bank.members:
            raise ValueError("an ensemble needs as many folds of the memory bank as members")

    @property
    def members(self) -> int:
        """Members of every part that leave images out."""
        return self.simplenet.members

    def with_part(self, name: str, part: Any) -> "EnsembleRecipe":
        """Return the recipe with another one of a part; all parts leave out the same images."""
        changed = {"simplenet": self.simplenet, "memory_bank": self.memory_bank, name: part}
        folds = changed["simplenet"].members
        return EnsembleRecipe(
            simplenet=changed["simplenet"], memory_bank=replace(changed["memory_bank"], folds=folds)
        )

    def with_seed(self, seed: int) -> "EnsembleRecipe":
        """Return the recipe with another seed in every part."""
        return EnsembleRecipe(
            simplenet=self.simplenet.with_seed(seed), memory_bank=self.memory_bank.with_seed(seed)
        )


class EnsembleHeads(Heads):
    """The four heads, and the scales of the last two: SimpleNet's hold their own."""

    offset: Tensor
    spread: Tensor

    def __init__(
        self, simplenet: FoldedHeads, memory_bank: MemoryBank, pooled: PooledDistance
    ) -> None:
        """Join parts, those of the last two on their own scales."""
        super().__init__()
        self.simplenet, self.memory_bank, self.pooled = simplenet, memory_bank, pooled
        self.register_buffer("offset", torch.zeros(2, device=pooled.scale.device))
        self.register_buffer("spread", torch.ones(2, device=pooled.scale.device))

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return image scores (B,) and patch scores (B, h, w); higher is more anomalous."""
        patch, image = self.simplenet.patch(levels), self.simplenet.image
        assert image is not None, "the recipe asks for it"
        distances_B, distances = self.memory_bank(levels)
        means = self.zones.means(levels)
        apart_B2 = torch.stack([distances_B, self.pooled.of_means(means)], dim=1)
        bank_B, pooled_B = ((apart_B2 - self.offset) / self.spread).unbind(dim=1)
        image_B = image(means).flatten()
        scores = (self.zones.highest(patch) + image_B + bank_B + pooled_B) / 4
        patch_scores = (patch + (distances - self.offset[0]) / self.spread[0]) / 2
        return scores, self.zones.filled(patch_scores)

    def in_float32(self) -> "EnsembleHeads":
        """Return the same heads with matrices in float32."""
        pooled = {name: value.float() for name, value in self.pooled.named_buffers()}
        parts = (self.simplenet.in_float32(), self.memory_bank.in_float32(), PooledDistance(pooled))
        heads = EnsembleHeads(*parts).with_scale(self.offset, self.spread)
        return heads.with_zones(self.zones)

    def with_scale(self, offset: Tensor, spread: Tensor) -> "EnsembleHeads":
        """Set mean and spread of the last two, (2,) each; return these heads."""
        self.offset, self.spread = offset, spread
        return self


class EnsembleTrainer:
    """Fits the memory bank, which takes seconds, then trains SimpleNet's heads."""

    def __init__(self, training_set: TrainingSet, recipe: EnsembleRecipe) -> None:
        """Fit to a set, a fold of which each member leaves out."""
        self.recipe = recipe
        self.bank, self.images = training_set.bank, training_set.images
        self.folds = training_set.folds
        self.simplenet = RecipeTrainer(training_set, recipe.simplenet)
        self.memory_bank = MemoryBankTrainer(training_set, recipe.memory_bank)
        self.means_NC = self.bank.image_means(self.images.to(self.bank.device))
        self._scale: tuple[Tensor, Tensor] | None = None

    @property
    def num_passes(self) -> int:
        """Passes of all parts."""
        return self.memory_bank.num_passes + self.simplenet.num_passes

    @property
    def reports(self) -> list[tuple[str, Any]]:
        """Every finished pass, in the order they ran."""
        return [*self.memory_bank.reports, *self.simplenet.reports]

    def run(self) -> Iterator[Any]:
        """Make the passes that are left; may be stopped between any two of them."""
        yield from self.memory_bank.run()
        yield from self.simplenet.run()

    def folded(self) -> EnsembleHeads:
        """Return the heads as they stand, rounded to what is stored, on one scale."""
        heads = EnsembleHeads(
            self.simplenet.folded(), self.memory_bank.folded(), fit_pooled(self.means_NC)
        ).with_zones(self.bank.zones)
        if self._scale is None:  # neither part changes any more
            self._scale = self._measure_scale(heads)
        return heads.with_scale(*self._scale)

    def unseen(self, heads: Heads) -> Iterator[tuple[EnsembleHeads, Tensor]]:
        """Yield members with good images that none of their parts has seen, a few at a time."""
        assert isinstance(heads, EnsembleHeads)
        parts = zip(
            self.simplenet.unseen(heads.simplenet),
            self.memory_bank.unseen(heads.memory_bank),
            self._unseen_pooled(),
            strict=True,  # the same images in the same order: they share the folds
        )
        for (simplenet, index), (bank, _), pooled in parts:
            member = EnsembleHeads(simplenet, bank, pooled).with_zones(heads.zones)
            yield member.with_scale(heads.offset, heads.spread), index

    def health(self) -> dict[str, float]:
        """Return what tells a sound training from a broken one."""
        return self.simplenet.health()

    def state_dict(self) -> dict[str, Any]:
        """Return everything a restart needs."""
        return {
            "memory_bank": self.memory_bank.state_dict(),
            "simplenet": self.simplenet.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a ``state_dict`` of a trainer with the same bank, images and recipe."""
        self.memory_bank.load_state_dict(state["memory_bank"])
        self.simplenet.load_state_dict(state["simplenet"])

    def _unseen_pooled(self) -> Iterator[PooledDistance]:
        """Yield, for each few images of a fold, the distance from the images of the others."""
        for fold in range(self.recipe.members):
            left_out = self.folds == fold
            blocks = self.images[left_out].split(BLOCK_IMAGES) if left_out.any() else ()
            if blocks:
                seen = ~left_out.to(self.means_NC.device)
                fitted = fit_pooled(self.means_NC[seen])
            yield from (fitted for _ in blocks)

    def _measure_scale(self, heads: EnsembleHeads) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, (2,) each, of what unseen good images score."""
        found = []
        for member, index in self.unseen(heads):
            for zones, places in self.bank.by_zones(index):
                levels = self.bank.images(index[places])
                bank_B = member.with_zones(zones).memory_bank(levels)[0]
                pooled_B = member.pooled.of_means(zones.means(levels))
                found.append(torch.stack([bank_B, pooled_B], dim=1))
        std, mean = torch.std_mean(torch.cat(found), dim=0, correction=0)
        return mean, std.clamp_min(1e-6)


def read_ensemble(tensors: Mapping[str, Tensor], channels: Sequence[int]) -> EnsembleHeads:
    """Return the heads of a file's tensors.

    Raises:
        ValueError, KeyError: they are not what these levels need.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        part, _, own = name.partition(".")
        parts.setdefault(part, {})[own] = value
    offset, spread = parts.pop("offset")[""], parts.pop("spread")[""]
    if offset.shape != (2,) or spread.shape != (2,):
        raise ValueError("no scales of the memory bank and the pooled distance")
    if parts.keys() != {"simplenet", "memory_bank", "pooled"}:
        raise ValueError(f"the parts {', '.join(sorted(parts))} are no ensemble")
    simplenet = read_heads(parts["simplenet"], channels)
    pooled = PooledDistance(parts["pooled"])
    if simplenet.image is None or len(pooled.scale) != sum(channels):
        raise ValueError("tensors of other shapes than its levels need")
    bank = read_memory_bank(parts["memory_bank"], channels)
    return EnsembleHeads(simplenet, bank, pooled).with_scale(offset, spread)


_PRESET = SIMPLENET.presets["default"]
PRESETS = {"default": Preset(recipe=EnsembleRecipe(), preprocessing=_PRESET.preprocessing)}
ENSEMBLE = Kind(
    presets=PRESETS,
    make_trainer=EnsembleTrainer,
    read_heads=read_ensemble,
    parts=("simplenet", "memory_bank"),
)
