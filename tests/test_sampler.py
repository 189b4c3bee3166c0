"""The sampler, against normally distributed data, for which everything is known in closed form."""

import math

import pytest
import torch
from torch import Tensor

from model.diffusion.denoiser import SHAPES, Denoiser
from model.diffusion.noise_schedule import (
    NUM_STEPS,
    ReverseSteps,
    add_noise,
    estimate,
    signal,
    velocity,
)
from model.diffusion.sampler import denoising_error, sample

SPREAD = 0.1  # standard deviation of the data: no sample comes near the ends of [-1, 1]
STRENGTHS = (0.0, 0.1, 0.2, 0.5, 1.0)
STEPS = (2, 20, 100)


def ideal(noisy_BCHW: Tensor, times_B: Tensor) -> Tensor:
    """Tell v of data that is N(0, SPREAD^2), by the expectation of x_0 given x_t."""
    a = signal()[times_B][:, None, None, None]
    expected = a.sqrt() * SPREAD**2 / (a * SPREAD**2 + 1 - a) * noisy_BCHW
    return (a.sqrt() * noisy_BCHW - expected) / (1 - a).sqrt()


def exact_error(steps: ReverseSteps) -> Tensor:
    """The variance of x_0 given x_t."""
    return SPREAD**2 * (1 - steps.signal) / (steps.signal * SPREAD**2 + 1 - steps.signal)


def exact(num_steps: int) -> ReverseSteps:
    steps = ReverseSteps.evenly(num_steps)
    return steps.with_error(exact_error(steps))


def recursion(steps: ReverseSteps, strength: float) -> float:
    """Standard deviation of the samples: each step is linear and adds independent noise."""
    variance = 1.0
    for k in reversed(range(len(steps.times))):
        a = float(steps.signal[k])
        before = float(steps.signal[k - 1]) if k else 1.0
        added = 1 - a / before
        of_estimate = math.sqrt(before) * added / (1 - a)
        of_noisy = math.sqrt(1 - added) * (1 - before) / (1 - a)
        expected = math.sqrt(a) * SPREAD**2 / (a * SPREAD**2 + 1 - a)
        error = SPREAD**2 * (1 - a) / (a * SPREAD**2 + 1 - a)
        noise = added * (1 - before) / (1 - a) + of_estimate**2 * error
        variance = (of_estimate * expected + of_noisy) ** 2 * variance
        variance += (1 + strength) * noise if k else 0
    return math.sqrt(variance)


def gaussian(num_steps: int, strength: float, num_images: int = 1000) -> Tensor:
    """Samples of the ideal denoiser, (num_images, 3, 8, 8): enough to know their spread to .2 %."""
    generator = torch.Generator().manual_seed(1)
    shape = (num_images, 3, 8, 8)
    noise = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(num_steps)]
    return sample(ideal, exact(num_steps), torch.full((num_images,), strength), noise)


def small(seed: int = 0) -> Denoiser:
    """A network that says something: the untrained one says nothing but zeros."""
    network = Denoiser(SHAPES[32], seed).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network


def noise_of(num_images: int, num_steps: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(num_images, 3, 32, 32, generator=generator) for _ in range(num_steps)]


@pytest.mark.parametrize("num_steps", STEPS)
@pytest.mark.parametrize("strength", STRENGTHS)
def test_the_spread_of_samples_is_what_the_recursion_says(num_steps: int, strength: float) -> None:
    found = float(gaussian(num_steps, strength).std())
    assert found == pytest.approx(recursion(exact(num_steps), strength), rel=0.008)


@pytest.mark.parametrize("num_steps", STEPS)
def test_the_spread_rises_strictly_with_the_strength(num_steps: int) -> None:
    spreads = [float(gaussian(num_steps, strength, 200).std()) for strength in STRENGTHS]
    assert spreads == sorted(set(spreads))


@pytest.mark.parametrize("num_steps", [20, 100])
def test_without_strength_the_samples_spread_like_the_data(num_steps: int) -> None:
    assert recursion(exact(num_steps), 0.0) == pytest.approx(SPREAD, rel=0.01)
    assert float(gaussian(num_steps, 0.0).std()) == pytest.approx(SPREAD, rel=0.015)


def test_the_lower_bound_alone_would_make_samples_too_alike() -> None:
    steps = ReverseSteps.evenly(20)
    noise = [torch.randn(200, 3, 8, 8, dtype=torch.float64) for _ in range(20)]
    assert float(sample(ideal, steps, torch.zeros(200), noise).std()) < 0.9 * SPREAD


def test_strength_zero_is_ddpm_to_the_bit() -> None:
    network, noise = small(), noise_of(2, 12)
    steps = ReverseSteps.evenly(12).with_error(torch.full((12,), 0.01))

    x = noise[0]
    a, times = steps.signal, steps.times
    for k in range(11, -1, -1):
        v = network(x, times[k].expand(2))
        x0 = (a[k].float().sqrt() * x - (1 - a[k].float()).sqrt() * v).clamp(-1, 1)
        x = float(steps.from_estimate[k]) * x0 + float(steps.from_noisy[k]) * x
        if k > 0:
            x = x + float(steps.variance[k].sqrt()) * noise[12 - k]

    assert torch.equal(sample(network, steps, torch.zeros(2), noise), x.clamp(-1, 1))


def test_each_image_has_its_own_strength() -> None:
    network, noise = small(), noise_of(2, 5)
    steps = ReverseSteps.evenly(5).with_error(torch.full((5,), 0.01))

    def at(*strengths: float) -> Tensor:
        return sample(network, steps, torch.tensor(strengths), noise)

    mixed = at(0.0, 1.0)
    assert torch.equal(mixed[0], at(0.0, 0.0)[0])
    assert torch.equal(mixed[1], at(1.0, 1.0)[1])
    assert not torch.equal(mixed[0], at(1.0, 1.0)[0])


def test_the_measured_error_of_the_estimate_is_the_exact_one() -> None:
    generator = torch.Generator().manual_seed(3)
    images = SPREAD * torch.randn(500, 3, 8, 8, generator=generator, dtype=torch.float64)
    steps = ReverseSteps.evenly(7)
    found = denoising_error(ideal, steps, images, generator)
    torch.testing.assert_close(found, exact_error(steps), rtol=0.02, atol=1e-6)


def test_signal_falls_from_nearly_one_to_nearly_nothing() -> None:
    values = signal()
    assert len(values) == NUM_STEPS
    assert (values.diff() < 0).all()
    assert float(values[0]) == pytest.approx(1 - 1e-4)
    assert float(values[1]) == pytest.approx((1 - 1e-4) * (1 - 1e-4 - 0.0199 / 999))
    assert 0 < float(values[-1]) < 1e-4


@pytest.mark.parametrize("num_steps", [2, 3, 20, NUM_STEPS])
def test_kept_steps_begin_with_the_first_and_end_with_the_last(num_steps: int) -> None:
    times = ReverseSteps.evenly(num_steps).times
    assert (len(times), int(times[0]), int(times[-1])) == (num_steps, 0, NUM_STEPS - 1)
    assert (times.diff() > 0).all()


@pytest.mark.parametrize("num_steps", [-1, 0, 1, NUM_STEPS + 1])
def test_other_numbers_of_steps_are_refused(num_steps: int) -> None:
    with pytest.raises(ValueError, match=f"2 to 1000 steps, got {num_steps}"):
        ReverseSteps.evenly(num_steps)


@pytest.mark.parametrize("time", [0, 1, 500, NUM_STEPS - 1])
def test_the_image_comes_back_from_noisy_image_and_velocity(time: int) -> None:
    generator = torch.Generator().manual_seed(time)
    image = torch.rand(2, 3, 4, 4, generator=generator, dtype=torch.float64) * 2 - 1
    noise = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    a = signal()[time].expand(2)
    back = estimate(add_noise(image, noise, a), velocity(image, noise, a), a)
    torch.testing.assert_close(back, image)
