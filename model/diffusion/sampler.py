"""Images out of noise, with a strength by which they deviate from good ones.

Each step back adds noise of the step's standard deviation times sqrt(1 + s), the last step none.
With strength s = 0 this is DDPM's ancestral sampling, and samples look like the training images.
A larger s drives them away from those: for normally distributed data the spread of the samples
follows from s by a recursion, which is what the tests compare with.

Shapes: B images, C channels, H x W pixels, K steps.
Source: strength-controllable diffusion, RealNet, Zhang et al. 2024 (arXiv:2403.05897), section 3.1;
DDPM, Ho et al. 2020 (arXiv:2006.11239), algorithm 2.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.diffusion.noise_schedule import ReverseSteps, add_noise, estimate

Denoise = Callable[[Tensor, Tensor], Tensor]  # x_t and t to v


@torch.inference_mode()
def sample(
    denoise: Denoise, steps: ReverseSteps, strength_B: Tensor, noise: Sequence[Tensor]
) -> Tensor:
    """Return images (B, C, H, W) in [-1, 1].

    Args:
        denoise: returns v of noisy images at times (B,).
        steps: those to take, with the variance that noise is drawn with.
        strength_B: s of each image, at least 0.
        noise: K standard normal (B, C, H, W): the beginning, then one for each step but the last.
    """
    x_BCHW = noise[0]
    spread_B = (1 + strength_B).sqrt().to(x_BCHW)[:, None, None, None]
    for step in reversed(range(len(steps.times))):
        mean_BCHW = _mean(denoise, steps, step, x_BCHW)
        if step == 0:
            return mean_BCHW.clamp(-1, 1)
        deviation = float(steps.variance[step].sqrt())
        x_BCHW = mean_BCHW + deviation * spread_B * noise[len(steps.times) - step]
    raise AssertionError("there are at least two steps")


@torch.inference_mode()
def denoising_error(
    denoise: Denoise, steps: ReverseSteps, image_BCHW: Tensor, generator: torch.Generator
) -> Tensor:
    """Return the mean squared error per pixel of the estimate of x_0 at each step, (K,) float64.

    Args:
        denoise: returns v of noisy images at times (B,).
        steps: those that sampling takes.
        image_BCHW: images in [-1, 1] to measure it on.
        generator: of the noise, on the device of the images.
    """
    errors = []
    for step in range(len(steps.times)):
        noise = torch.randn(
            image_BCHW.shape, generator=generator, device=image_BCHW.device, dtype=image_BCHW.dtype
        )
        x_BCHW = add_noise(image_BCHW, noise, _repeated(steps.signal, step, noise))
        found_BCHW = _estimate(denoise, steps, step, x_BCHW)
        errors.append((found_BCHW - image_BCHW).double().square().mean())
    return torch.stack(errors).cpu()


def _mean(denoise: Denoise, steps: ReverseSteps, step: int, x_BCHW: Tensor) -> Tensor:
    """Return the mean of the distribution that one step back draws from."""
    found_BCHW = _estimate(denoise, steps, step, x_BCHW)
    weight, rest = float(steps.from_estimate[step]), float(steps.from_noisy[step])
    return weight * found_BCHW + rest * x_BCHW


def _estimate(denoise: Denoise, steps: ReverseSteps, step: int, x_BCHW: Tensor) -> Tensor:
    velocity_BCHW = denoise(x_BCHW, _repeated(steps.times, step, x_BCHW))
    return estimate(x_BCHW, velocity_BCHW, _repeated(steps.signal, step, x_BCHW))


def _repeated(values_K: Tensor, step: int, x_BCHW: Tensor) -> Tensor:
    """Return one step's value for each image."""
    return values_K[step].to(x_BCHW.device).expand(len(x_BCHW))
