"""Train a head on cached patch features.

Each step draws patches at random from all training images, adds Gaussian noise to the adapted
features for the anomalous half, and pushes the two apart. The trainer's whole state, random
numbers included, can be saved and restored, so that a resumed run equals an undisturbed one.

Shapes: M members, K patches, C channels.
Source: SimpleNet, Liu et al. 2023 (arXiv:2303.15140), sections 3.3 to 3.5.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from model.feature_bank import FeatureBank
from model.folding import FoldedHead, fold
from model.simplenet import Head, HeadConfig, truncated_l1

STATISTICS_PATCHES = 65_536  # patches from which feature mean and spread are estimated


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a head is trained."""

    head: HeadConfig = field(default_factory=HeadConfig)
    sigma: float = 0.5  # of the Gaussian feature noise, in ``sigma_unit``
    sigma_unit: Literal["std", "absolute"] = "std"  # feature standard deviations, or raw (paper)
    margins: tuple[float, float] = (0.5, 0.5)  # th+ and th- of the truncated L1 loss
    passes: int = 40  # reports of the loss curve; each is ``steps_per_pass`` steps
    steps_per_pass: int = 10
    batch_patches: int = 2048
    learning_rate: float = 1e-3  # of the discriminator; cosine decay to zero
    adaptor_learning_rate: float = 2e-4
    weight_decay: float = 1e-5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sigma <= 0:
            raise ValueError(f"training.sigma must be positive, got {self.sigma}")
        if min(self.passes, self.steps_per_pass, self.batch_patches) < 1:
            raise ValueError("training.passes, steps_per_pass and batch_patches must be at least 1")

    @property
    def num_steps(self) -> int:
        """Optimiser steps of a whole training."""
        return self.passes * self.steps_per_pass


@dataclass(frozen=True, kw_only=True)
class PassReport:
    """What one pass of training did."""

    loss: float
    normal_beyond_margin: float  # share of normal patches with logit >= th+
    noisy_beyond_margin: float  # share of noisy patches with logit < -th-


class HeadTrainer:
    """One category's head on its way from random to trained."""

    def __init__(self, bank: FeatureBank, images: Tensor, config: TrainingConfig) -> None:
        """Train on the images of ``bank`` that ``images`` names, an index of shape (N,)."""
        self.bank, self.images, self.config = bank, images.to(bank.device), config
        self.generator = torch.Generator(bank.device).manual_seed(config.seed)
        self.mean_C, self.std_C = self._statistics()
        self.head = Head(bank.channels, config.head, self.generator)
        self.optimiser = torch.optim.AdamW(self._parameter_groups(), betas=(0.9, 0.99))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda step: 0.5 * (1 + math.cos(math.pi * step / config.num_steps))
        )
        self.reports: list[PassReport] = []

    def run(self) -> Iterator[PassReport]:
        """Train the passes that are left; may be stopped between any two of them."""
        while len(self.reports) < self.config.passes:
            self.head.train()
            steps = [self._step() for _ in range(self.config.steps_per_pass)]
            loss, normal, noisy = torch.stack(steps).mean(0).tolist()
            self.reports.append(
                PassReport(loss=loss, normal_beyond_margin=normal, noisy_beyond_margin=noisy)
            )
            yield self.reports[-1]

    def folded(self) -> FoldedHead:
        """Return the head as it stands, folded for scoring."""
        channels = [level.shape[2] for level in self.bank.levels]
        return fold(self.head.eval(), self.mean_C, self.std_C, channels).cpu()

    def state_dict(self) -> dict[str, Any]:
        """Return everything a restart needs: tensors, numbers and plain containers only."""
        return {
            "head": self.head.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": {"last_epoch": self.schedule.last_epoch},
            "generator": self.generator.get_state(),
            "reports": [vars(report) for report in self.reports],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a ``state_dict`` of a trainer with the same bank, images and config."""
        self.head.load_state_dict(state["head"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.last_epoch = state["schedule"]["last_epoch"]
        self.generator.set_state(state["generator"])
        self.reports = [PassReport(**report) for report in state["reports"]]

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Return per-channel mean and standard deviation of the training patches."""
        if self.config.sigma_unit == "absolute":
            zeros = torch.zeros(self.bank.channels, device=self.bank.device)
            return zeros, torch.ones_like(zeros)
        patches_KC = self.bank.draw(STATISTICS_PATCHES, self.images, self.generator)
        std_C, mean_C = torch.std_mean(patches_KC, dim=0)
        floor = 1e-3 * std_C.mean() + 1e-6  # a channel that is always zero says nothing
        return mean_C, std_C.clamp_min(floor)

    def _parameter_groups(self) -> list[dict[str, Any]]:
        config = self.config
        rest = [p for name, p in self.head.named_parameters() if name != "adaptor"]
        common = {"weight_decay": config.weight_decay}
        groups = [{"params": rest, "lr": config.learning_rate, **common}]
        if self.head.adaptor is not None:
            adaptor = [self.head.adaptor]
            groups.append({"params": adaptor, "lr": config.adaptor_learning_rate, **common})
        return groups

    def _step(self) -> Tensor:
        """Take one optimiser step; return (loss, normal share, noisy share)."""
        config = self.config
        patches_KC = self.bank.draw(config.batch_patches, self.images, self.generator)
        adapted_MKC = self.head.adapt((patches_KC - self.mean_C) / self.std_C)
        noise_MKC = torch.empty_like(adapted_MKC).normal_(0, config.sigma, generator=self.generator)
        both = torch.cat([adapted_MKC, adapted_MKC + noise_MKC], dim=1)
        normal_MK, noisy_MK = self.head.discriminate(both).chunk(2, dim=1)
        loss_M = truncated_l1(normal_MK, noisy_MK, config.margins)
        self.optimiser.zero_grad()
        loss_M.sum().backward()  # members share no weight, so each follows its own loss
        self.optimiser.step()
        self.schedule.step()
        with torch.no_grad():
            shares = (normal_MK >= config.margins[0], noisy_MK < -config.margins[1])
            return torch.stack([loss_M.mean(), *(share.float().mean() for share in shares)])
