"""Train heads on cached features.

Each step draws rows at random, adds Gaussian noise to their adapted features for the anomalous
half, and pushes the two halves apart. A detector has a head over patches, which also draws the
anomaly map, and usually a second one over whole images (the mean feature of every level): what is
wrong with an image as a whole, no single patch can tell. A trainer's whole state, random numbers
included, can be saved and restored, so that a resumed run equals an undisturbed one.

Shapes: M members, K rows, C channels.
Source: SimpleNet, Liu et al. 2023 (arXiv:2303.15140), sections 3.3 to 3.5; the head over images,
the range of sigmas and its units are ours.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from model.folding import FoldedHead, fold
from model.simplenet import LOSSES, Head, HeadConfig, Loss

STATISTICS_ROWS = 65_536  # rows from which feature mean and spread are estimated

SigmaUnit = Literal["channel_std", "balanced_std", "global_std", "absolute"]
OptimiserName = Literal["adam", "adamw"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How one head is trained."""

    head: HeadConfig = field(default_factory=HeadConfig)
    sigma: tuple[float, float] = (0.5, 4.0)  # of the noise; drawn log-uniformly for each row
    # What sigma is measured in: each channel's standard deviation; its geometric mean with that
    # of all channels; that of all channels; or nothing (the paper's).
    sigma_unit: SigmaUnit = "balanced_std"
    margins: tuple[float, float] = (0.5, 0.5)  # th+ and th- of the truncated L1 loss
    loss: Loss = "truncated_l1"
    passes: int = 30  # points of the loss curve; each is ``steps_per_pass`` steps
    steps_per_pass: int = 10
    batch_rows: int = 2048
    coreset: int = 5000  # patches that cover the normal ones, to train on; 0: all patches
    batch_images: int | None = None  # instead: all patches of so many images, each once a pass
    optimisers: tuple[OptimiserName, OptimiserName] = ("adamw", "adamw")  # discriminator, adaptor
    learning_rate: float = 2e-3  # of the discriminator
    adaptor_learning_rate: float = 2e-4
    weight_decay: tuple[float, float] = (1e-4, 1e-4)  # discriminator, adaptor
    warm_up_steps: int = 20
    decay: bool = True  # cosine to zero; without it the rates stay as they are
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"training.sigma must be positive and rising, got {self.sigma}")
        if min(self.passes, self.steps_per_pass, self.batch_rows - 1) < 1:
            raise ValueError(
                "training.passes and steps_per_pass must be at least 1, batch_rows at least 2"
            )

    def rate_at(self, step: int, num_steps: int) -> float:
        """Share of the learning rate that applies at one of ``num_steps`` steps."""
        warm = min(1.0, (step + 1) / max(self.warm_up_steps, 1))
        cosine = 0.5 * (1 + math.cos(math.pi * step / num_steps)) if self.decay else 1.0
        return warm * cosine


@dataclass(frozen=True, kw_only=True)
class PassReport:
    """What one pass of training did."""

    loss: float
    normal_beyond_margin: float  # share of normal rows with logit >= th+
    noisy_beyond_margin: float  # share of noisy rows with logit < -th-


class Rows(Protocol):
    """What a head is trained on."""

    def sample(self, num_rows: int, generator: torch.Generator) -> Tensor:
        """Return random rows of all, (K, C)."""

    def num_batches(self, config: TrainingConfig) -> int:
        """Return the number of batches in a pass."""

    def batches(self, config: TrainingConfig, generator: torch.Generator) -> Iterator[Tensor]:
        """Yield the batches of one pass, (M, K, C): rows of its own for every member."""


class HeadTrainer:
    """One head on its way from random to trained."""

    def __init__(self, rows: Rows, config: TrainingConfig, device: torch.device) -> None:
        self.rows, self.config = rows, config
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.mean_C, self.std_C = self._statistics()
        self.head = Head(len(self.mean_C), config.head, self.generator)
        num_steps = config.passes * rows.num_batches(config)
        self.optimisers = self._make_optimisers()
        self.schedules = [
            torch.optim.lr_scheduler.LambdaLR(optimiser, lambda n: config.rate_at(n, num_steps))
            for optimiser in self.optimisers
        ]
        self.reports: list[PassReport] = []

    def run(self) -> Iterator[PassReport]:
        """Train the passes that are left; may be stopped between any two of them."""
        while len(self.reports) < self.config.passes:
            self.head.train()
            batches = self.rows.batches(self.config, self.generator)
            with _bfloat16_products():
                steps = [self._step(rows_MKC) for rows_MKC in batches]
            loss, normal, noisy = torch.stack(steps).mean(0).tolist()
            self.reports.append(
                PassReport(loss=loss, normal_beyond_margin=normal, noisy_beyond_margin=noisy)
            )
            yield self.reports[-1]
        self.head.eval()

    @torch.no_grad()
    def spread_over_sigma(self) -> float:
        """Return the adapted features' standard deviation over the noise's (geometric mean)."""
        rows_KC = self.rows.sample(self.config.batch_rows, self.generator)
        members = self.config.head.members
        adapted_MKC = self.head.adapt(
            ((rows_KC - self.mean_C) / self.std_C).expand(members, -1, -1)
        )
        return float(adapted_MKC.std(dim=1).mean()) / math.sqrt(math.prod(self.config.sigma))

    def folded(self, channels: Sequence[int]) -> FoldedHead:
        """Return the head as it stands, folded over levels of so many channels; it can train on."""
        return fold(self.head.eval(), self.mean_C, self.std_C, channels)

    def state_dict(self) -> dict[str, Any]:
        """Return everything a restart needs: tensors, numbers and plain containers only."""
        return {
            "head": self.head.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "num_steps": self.schedules[0].last_epoch,
            "generator": self.generator.get_state(),
            "reports": [vars(report) for report in self.reports],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a ``state_dict`` of a trainer with the same rows and config."""
        self.head.load_state_dict(state["head"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        for schedule in self.schedules:
            schedule.last_epoch = state["num_steps"]
        self.generator.set_state(state["generator"].cpu())
        self.reports = [PassReport(**report) for report in state["reports"]]

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Return the mean of every channel and what its noise is measured in."""
        rows_KC = self.rows.sample(STATISTICS_ROWS, self.generator)
        std_C, mean_C = torch.std_mean(rows_KC, dim=0)
        overall = std_C.square().mean().sqrt().clamp_min(1e-6)
        std_C = std_C.clamp_min(1e-3 * overall)  # a channel that never changes says nothing
        match self.config.sigma_unit:
            case "channel_std":
                return mean_C, std_C
            case "balanced_std":
                return mean_C, (std_C * overall).sqrt()
            case "global_std":
                return mean_C, overall.expand_as(std_C)
            case "absolute":
                return torch.zeros_like(mean_C), torch.ones_like(std_C)

    def _make_optimisers(self) -> list[torch.optim.Optimizer]:
        """Return the discriminator's optimiser and, where there is an adaptor, its own."""
        config, adaptor = self.config, list(self.head.adaptor)
        rest = [p for name, p in self.head.named_parameters() if not name.startswith("adaptor")]
        rates = (config.learning_rate, config.adaptor_learning_rate)
        classes = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        settings = zip((rest, adaptor), config.optimisers, rates, config.weight_decay, strict=True)
        return [
            classes[name](parameters, lr=rate, weight_decay=decay)
            for parameters, name, rate, decay in settings
            if parameters
        ]

    def _step(self, rows_MKC: Tensor) -> Tensor:
        """Take one optimiser step; return (loss, normal share, noisy share)."""
        config = self.config
        adapted_MKC = self.head.adapt((rows_MKC - self.mean_C) / self.std_C)
        noisy_MKC = adapted_MKC + self._noise(rows_MKC.shape[1:])
        both = torch.cat([adapted_MKC, noisy_MKC], dim=1)
        normal_MK, noisy_MK = self.head.discriminate(both).chunk(2, dim=1)
        loss_M = LOSSES[config.loss](normal_MK, noisy_MK, config.margins).mean(dim=1)
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        loss_M.sum().backward()  # members share no weight, so each follows its own loss
        for optimiser, schedule in zip(self.optimisers, self.schedules, strict=True):
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            shares = (normal_MK >= config.margins[0], noisy_MK < -config.margins[1])
            return torch.stack([loss_M.mean(), *(share.float().mean() for share in shares)])

    def _noise(self, shape: torch.Size) -> Tensor:
        """Return Gaussian noise (K, C), one sigma per row; members share it."""
        low, high = (math.log(sigma) for sigma in self.config.sigma)
        options: dict[str, Any] = {"generator": self.generator, "device": self.generator.device}
        sigma_K1 = torch.rand(shape[0], 1, **options).mul_(high - low).add_(low).exp_()
        return torch.randn(shape, **options).mul_(sigma_K1)


@contextmanager
def _bfloat16_products() -> Iterator[None]:
    """Let matrix products round their factors to bfloat16 where the processor is faster so.

    Several times faster on processors that have it; the rounding is far below the noise that
    training adds. Everything outside training keeps full float32.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
