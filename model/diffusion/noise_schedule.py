"""How noise is added to an image in T steps, and what each step back needs to know.

An image x_0 in [-1, 1] becomes x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e with standard normal noise e;
a_t, the signal, falls from nearly 1 to nearly 0. A step back draws x_s, s < t, from a normal
distribution whose mean is a sum of an estimate of x_0 and of x_t. If the estimate were x_0 itself,
the variance would be the lower bound below. It is only x_0's expectation, whose error adds to the
variance: with that error known, one number per step is exact however few steps are kept. The lower
bound alone makes samples too alike, the upper bound makes them noisy.

Shapes: K steps that sampling keeps of all T, from the least noise to the most.
Source: DDPM, Ho et al. 2020 (arXiv:2006.11239), equations 4 and 7; fewer steps: Nichol and Dhariwal
2021 (arXiv:2102.09672), section 4; exact variance: Bao et al. 2022 (arXiv:2201.06503), theorem 1.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

NUM_STEPS = 1000  # T
NOISE = (1e-4, 0.02)  # variance that the first and the last step add; linear between


def signal() -> Tensor:
    """Return a_t of every step, (T,) float64, falling."""
    return torch.cumprod(1 - torch.linspace(*NOISE, NUM_STEPS, dtype=torch.float64), 0)


@dataclass(frozen=True)
class ReverseSteps:
    """The steps back that sampling takes; all (K,), float64 but for the times."""

    times: Tensor  # t of each, int64
    signal: Tensor  # a_t
    from_estimate: Tensor  # weight of the estimate of x_0 in the mean
    from_noisy: Tensor  # weight of x_t in the mean
    variance: Tensor

    @classmethod
    def evenly(cls, num_steps: int) -> "ReverseSteps":
        """Keep ``num_steps`` of all, the first and the last included, with the lower bound.

        Raises:
            ValueError: fewer than 2 steps, or more than there are.
        """
        if not 2 <= num_steps <= NUM_STEPS:
            raise ValueError(f"sampling takes 2 to {NUM_STEPS} steps, got {num_steps}")
        times = torch.linspace(0, NUM_STEPS - 1, num_steps, dtype=torch.float64).round().long()
        kept = signal()[times]
        before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
        added = 1 - kept / before
        return cls(
            times=times,
            signal=kept,
            from_estimate=before.sqrt() * added / (1 - kept),
            from_noisy=(1 - added).sqrt() * (1 - before) / (1 - kept),
            variance=added * (1 - before) / (1 - kept),
        )

    def with_error(self, error: Tensor) -> "ReverseSteps":
        """Return the steps with the exact variance; ``error``, (K,), is of ``denoising_error``."""
        exact = self.variance + self.from_estimate.square() * error.double().cpu()
        return replace(self, variance=exact)


def add_noise(image_BCHW: Tensor, noise_BCHW: Tensor, signal_B: Tensor) -> Tensor:
    """Return x_t of images in [-1, 1]."""
    a = signal_B.to(image_BCHW)[:, None, None, None]
    return a.sqrt() * image_BCHW + (1 - a).sqrt() * noise_BCHW


def velocity(image_BCHW: Tensor, noise_BCHW: Tensor, signal_B: Tensor) -> Tensor:
    """Return v = sqrt(a_t) e - sqrt(1 - a_t) x_0, which a denoiser learns to tell.

    Unlike the noise it says something of the image at every step, the noisiest included.

    Source: Salimans and Ho 2022 (arXiv:2202.00512), section 4 and appendix D.
    """
    a = signal_B.to(image_BCHW)[:, None, None, None]
    return a.sqrt() * noise_BCHW - (1 - a).sqrt() * image_BCHW


def estimate(noisy_BCHW: Tensor, velocity_BCHW: Tensor, signal_B: Tensor) -> Tensor:
    """Return the image that x_t and v come from, cut to [-1, 1]."""
    a = signal_B.to(noisy_BCHW)[:, None, None, None]
    return (a.sqrt() * noisy_BCHW - (1 - a).sqrt() * velocity_BCHW).clamp(-1, 1)
