"""Trains a RealNet on cached features of good images and of synthetic anomalies.

A step takes as many good images as anomalous ones. Every level's reconstruction is to give the good
image's features, the decoder is to mark what was changed. The whole state, random numbers included,
can be saved and restored, so that a resumed run equals an undisturbed one.

Shapes: B images of a step, C channels of a level, h x w its grid; g x g the finest grid.
Source: RealNet, Zhang et al. 2024 (arXiv:2403.05897), section 3.4: mean squared error of the
reconstructions plus cross-entropy of the decoder, both of weight 1.
"""

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.kind import Heads, TrainingSet
from model.realnet.network import RealNet
from model.realnet.realnet_heads import NETWORK, RealNetHeads, folded_state
from model.realnet.realnet_recipe import RealNetRecipe
from model.realnet.selected_features import SelectedFeatures
from model.seeded import seeded


@dataclass(frozen=True, kw_only=True)
class RealNetReport:
    """What one pass of training did."""

    loss: float  # of both parts
    reconstruction: float  # mean squared error, all levels together
    segmentation: float  # cross-entropy of a position
    segmentation_over_prior: float  # over that of one who knows the marked share alone


class RealNetTrainer:
    """A RealNet on its way from random to trained."""

    def __init__(self, training_set: TrainingSet, recipe: RealNetRecipe) -> None:
        """Fit to a set that has pairs; the features are not looked at before they are needed."""
        self.training_set, self.recipe = training_set, recipe
        self.device = training_set.bank.device
        self.generator = torch.Generator().manual_seed(recipe.seed)
        channels = recipe.counts(training_set.bank.level_channels)
        with seeded(recipe.seed):
            network = RealNet(channels, recipe.structure_of(channels))
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=recipe.learning_rate)
        self._reports: list[RealNetReport] = []

    @cached_property
    def features(self) -> SelectedFeatures:
        """The selected channels of all images."""
        return SelectedFeatures.of(self.training_set, self.recipe)

    @property
    def num_passes(self) -> int:
        """Points of the curve."""
        return self.recipe.passes

    @property
    def reports(self) -> list[tuple[str, RealNetReport]]:
        """What every finished pass did."""
        return [("realnet", report) for report in self._reports]

    def run(self) -> Iterator[RealNetReport]:
        """Train the passes that are left; may be stopped between any two of them."""
        while len(self._reports) < self.recipe.passes:
            self.network.train()
            first = len(self._reports) * self.recipe.steps_per_pass
            numbers = [self._step(first + step) for step in range(self.recipe.steps_per_pass)]
            restored, marked, prior = torch.stack(numbers).mean(dim=0).tolist()
            self._reports.append(
                RealNetReport(
                    loss=restored + marked,
                    reconstruction=restored,
                    segmentation=marked,
                    segmentation_over_prior=marked / max(prior, 1e-12),
                )
            )
            yield self._reports[-1]

    def folded(self) -> RealNetHeads:
        """Return the heads as they stand; training can go on unchanged."""
        network = copy.deepcopy(self.network).eval()
        tensors = {f"{NETWORK}{name}": value for name, value in folded_state(network).items()}
        tensors["structure"] = self.network.structure.to_tensor().to(self.device)
        for level, channels in enumerate(self.features.channels):
            tensors[f"index{level}"] = channels.index.float()
            tensors |= {f"mean{level}": channels.mean, f"scale{level}": channels.scale}
        return RealNetHeads(tensors).with_zones(self.training_set.bank.zones)

    def unseen(self, heads: Heads) -> Iterator[tuple[Heads, Tensor]]:
        """Yield nothing: the one network has seen every image."""
        del heads
        return iter(())

    def health(self) -> dict[str, float]:
        """Return how the last pass did."""
        if not self._reports:
            return {}
        last = self._reports[-1]
        return {"loss": last.loss, "segmentation_over_prior": last.segmentation_over_prior}

    def state_dict(self) -> dict[str, Any]:
        """Return everything a restart needs: tensors, numbers and plain containers only."""
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "reports": [vars(report) for report in self._reports],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a ``state_dict`` of a trainer with the same set and recipe."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"].cpu())
        self._reports = [RealNetReport(**report) for report in state["reports"]]

    def _step(self, number: int) -> Tensor:
        """Take one optimiser step; return both losses and the prior's, (3,)."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.learning_rate * self._rate(number)
        seen, good, marked_BGG = self._draw()
        restored, logits_BGG = self.network(seen)
        parts = [F.mse_loss(each, level) for each, level in zip(restored, good, strict=True)]
        restored_loss = torch.stack(parts).sum()
        marked_loss = F.binary_cross_entropy_with_logits(logits_BGG, marked_BGG)
        self.optimiser.zero_grad()
        (restored_loss + marked_loss).backward()
        self.optimiser.step()
        prior = torch.special.entr(torch.stack([marked_BGG.mean(), 1 - marked_BGG.mean()])).sum()
        return torch.stack([restored_loss.detach(), marked_loss.detach(), prior])

    def _draw(self) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Return what the network sees, the good images' features, and what was changed."""
        features, half = self.features, self.recipe.batch_images // 2
        pairs = self._randint(len(features.originals), half)
        plain = self._randint(len(features.good[0]), half)
        originals = features.originals[pairs]
        seen, good = [], []
        for anomalous, known in zip(features.anomalous, features.good, strict=True):
            plain_level = known[plain]
            seen.append(_joined(anomalous[pairs], plain_level))
            good.append(_joined(known[originals], plain_level))
        marked = features.marked[pairs].float()
        return seen, good, torch.cat([marked, torch.zeros_like(marked)])

    def _randint(self, high: int, count: int) -> Tensor:
        drawn = torch.randint(high, (count,), generator=self.generator)
        return drawn.to(self.device)

    def _rate(self, step: int) -> float:
        """Share of the learning rate that applies at a step."""
        recipe = self.recipe
        warm = min(1.0, (step + 1) / max(recipe.warm_up_steps, 1))
        cosine = 0.5 * (1 + math.cos(math.pi * step / recipe.num_steps)) if recipe.decay else 1.0
        return warm * cosine


def _joined(one_BChw: Tensor, other_BChw: Tensor) -> Tensor:
    joined = torch.cat([one_BChw, other_BChw]).float()
    return joined.contiguous(memory_format=torch.channels_last)
