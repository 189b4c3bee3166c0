"""Training a denoiser on good images: any number of workers, may be stopped and go on.

Every worker draws the whole batch, with the same seed, and computes its share of it: which images,
times and noise a step sees does not depend on how many workers there are.

Shapes: N images, B of a batch, C channels, H x W pixels.
Source: DDPM, Ho et al. 2020 (arXiv:2006.11239), algorithm 1 and appendix B (moving average).
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.diffusion.denoiser import SHAPES, Denoiser, Shape, nearest_sizes
from model.diffusion.noise_schedule import NUM_STEPS, add_noise, signal, velocity

REPORT_STEPS = 10  # training steps of one report
LAST_RATE = 0.02  # share of the learning rate that is left at the end


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """How a denoiser is trained; what is None follows from the size."""

    size: int = 64  # side of the images in pixels, a key of ``SHAPES``
    steps: int | None = None
    batch_images: int = 16
    warm_up_steps: int = 100
    decay: float = 0.995  # of the moving average of the weights, per step; less at the beginning
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size not in SHAPES:
            raise ValueError(
                f"size must be one of {', '.join(map(str, SHAPES))} pixels, got {self.size}; the "
                f"nearest is {nearest_sizes(self.size)[0]}"
            )
        if self.num_steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")

    @property
    def shape(self) -> Shape:
        """The network's."""
        return SHAPES[self.size]

    @property
    def num_steps(self) -> int:
        """Steps of the whole training."""
        return self.shape.steps if self.steps is None else self.steps

    def rate_at(self, step: int) -> float:
        """Learning rate of a step: a short rise, then half a cosine."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.num_steps))
        warm = min(1.0, (step + 1) / self.warm_up_steps)
        return self.shape.learning_rate * warm * max(cosine, LAST_RATE)


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Which worker this is, of how many; ``add_up`` adds a tensor of all workers up in place."""

    rank: int = 0
    size: int = 1
    add_up: Callable[[Tensor], Any] = lambda _: None


class DenoiserTrainer:
    """A denoiser on its way from random to trained, and the moving average of its weights."""

    def __init__(
        self, pixels_NHWC: Tensor, config: DenoiserConfig, device: str, workers: Workers | None
    ) -> None:
        """Train on uint8 images (N, size, size, 3)."""
        self.config, self.workers = config, workers or Workers()
        self.images = pixels_NHWC.to(device)
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.network = Denoiser(config.shape, config.seed).to(device)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=config.shape.learning_rate, weight_decay=1e-4
        )
        self.signal = signal().to(device, torch.float32)
        self.step = 0
        self.loss = math.nan  # mean of the last steps

    def run(self) -> Iterator[float]:
        """Train the steps that are left, and yield the mean loss of every few.

        May be stopped between any two reports.
        """
        while self.step < self.config.num_steps:
            num = min(REPORT_STEPS, self.config.num_steps - self.step)
            self.loss = float(torch.stack([self._step() for _ in range(num)]).mean())
            yield self.loss

    def state_dict(self) -> dict[str, Any]:
        """Return everything a restart needs: tensors, numbers and plain containers only."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
            "loss": self.loss,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a ``state_dict`` of a trainer with the same images and config."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"].cpu())
        self.step, self.loss = state["step"], state["loss"]

    def _step(self) -> Tensor:
        """Take one step; return the loss of the whole batch."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.rate_at(self.step)
        self.optimiser.zero_grad()
        loss = self._loss()
        loss.backward()
        total = self._add_up(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        self._follow()
        return total

    def _loss(self) -> Tensor:
        """Return this worker's share of the loss of a fresh batch."""
        batch, device = self.config.batch_images, self.images.device
        options: dict[str, Any] = {"generator": self.generator, "device": device}
        chosen_B = torch.randint(len(self.images), (batch,), **options)
        times_B = torch.randint(NUM_STEPS, (batch,), **options)
        noise_BCHW = torch.randn(batch, 3, self.config.size, self.config.size, **options)
        own = slice(self.workers.rank, None, self.workers.size)
        image_BCHW = as_signed(self.images[chosen_B[own]])
        times_B, noise_BCHW = times_B[own], noise_BCHW[own]
        signal_B = self.signal[times_B]
        found_BCHW = self.network(add_noise(image_BCHW, noise_BCHW, signal_B), times_B)
        wrong_BCHW = found_BCHW - velocity(image_BCHW, noise_BCHW, signal_B)
        loss: Tensor = wrong_BCHW.square().mean((1, 2, 3)).sum() / batch
        return loss

    def _add_up(self, loss: Tensor) -> Tensor:
        """Add gradients and loss of all workers up; return the loss."""
        if self.workers.size == 1:
            return loss
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        flat = torch.cat([loss[None], *(gradient.flatten() for gradient in gradients)])
        self.workers.add_up(flat)
        parts: tuple[Tensor, ...] = flat.split([1, *(gradient.numel() for gradient in gradients)])
        for gradient, part in zip(gradients, parts[1:], strict=True):
            gradient.copy_(part.view_as(gradient))
        return parts[0][0]

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the weights; the beginning is soon forgotten."""
        decay = min(self.config.decay, self.step / (self.step + 19))
        for average, weight in zip(
            self.average.parameters(), self.network.parameters(), strict=True
        ):
            average.lerp_(weight, 1 - decay)


def as_signed(pixels_NHWC: Tensor) -> Tensor:
    """Return uint8 pixels as images in [-1, 1], (N, 3, H, W)."""
    return pixels_NHWC.permute(0, 3, 1, 2).float() / 127.5 - 1


def as_pixels(image_BCHW: Tensor) -> Tensor:
    """Return images in [-1, 1] as uint8 pixels, (B, H, W, 3)."""
    levels = ((image_BCHW + 1) * 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
