"""The network that takes noise away, and its training."""

import copy
import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from model.diffusion.denoiser import SHAPES, Denoiser
from model.diffusion.denoiser_trainer import (
    DenoiserConfig,
    DenoiserTrainer,
    Workers,
    as_pixels,
    as_signed,
)
from model.diffusion.noise_schedule import signal

CONFIG = DenoiserConfig(size=32, steps=30, batch_images=4, warm_up_steps=5)


@pytest.fixture
def pixels() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (6, 32, 32, 3), generator=generator, dtype=torch.uint8)


def trainer(pixels: Tensor, **changes: Any) -> DenoiserTrainer:
    return DenoiserTrainer(pixels, changes.get("config", CONFIG), "cpu", changes.get("workers"))


def weights(network: Denoiser) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("size", [32, 64, 128])
def test_the_estimate_has_the_shape_of_the_images(size: int) -> None:
    network = Denoiser(SHAPES[size], 0)
    assert network(torch.zeros(1, 3, size, size), torch.tensor([7])).shape == (1, 3, size, size)


def test_every_shape_ends_on_a_grid_that_attention_can_afford() -> None:
    for size, shape in SHAPES.items():
        coarsest = size / shape.block / 2 ** (len(shape.multiples) - 1)
        assert coarsest == 8


def test_an_untrained_network_says_nothing() -> None:
    network = Denoiser(SHAPES[32], 0)
    assert not network(torch.randn(2, 3, 32, 32), torch.tensor([3, 900])).any()


def test_the_same_seed_gives_the_same_network_and_leaves_others_draws_alone() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first, again, other = (Denoiser(SHAPES[32], seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


def test_training_learns_what_an_untrained_network_does_not_know() -> None:
    grey = 200 / 127.5 - 1
    untrained = float((signal() + (1 - signal()) * grey**2).mean())  # of v, taken for nothing
    flat = torch.full((2, 32, 32, 3), 200, dtype=torch.uint8)
    config = DenoiserConfig(size=32, steps=80, batch_images=4, warm_up_steps=5)
    losses = list(trainer(flat, config=config).run())
    assert len(losses) == 8
    assert sum(losses[-4:]) / 4 < 0.5 * untrained


def test_a_training_that_stopped_anywhere_ends_like_one_that_did_not(pixels: Tensor) -> None:
    whole = trainer(pixels)
    list(whole.run())
    for stop in (1, 2, 3):
        first, second = trainer(pixels), trainer(pixels)
        for _ in zip(range(stop), first.run(), strict=False):
            pass
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        second.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
        list(second.run())
        assert second.step == CONFIG.num_steps
        assert torch.equal(weights(second.network), weights(whole.network))
        assert torch.equal(weights(second.average), weights(whole.average))
        assert second.loss == whole.loss


def test_a_state_is_not_changed_by_further_training(pixels: Tensor) -> None:
    one = trainer(pixels)
    next(one.run())
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    assert torch.load(io.BytesIO(file.getvalue()), weights_only=True)["step"] == 10


@pytest.mark.parametrize("size", [2, 3, 4])
def test_several_workers_take_the_step_of_one(pixels: Tensor, size: int) -> None:
    alone = trainer(pixels)
    expected = alone._loss()
    expected.backward()
    losses, total = [], torch.zeros_like(weights(alone.network))
    for rank in range(size):
        worker = trainer(pixels, workers=Workers(rank=rank, size=size))
        share = worker._loss()
        share.backward()
        losses.append(float(share.detach()))
        parts = [p.grad.flatten() for p in worker.network.parameters() if p.grad is not None]
        total += torch.cat(parts)
    assert sum(losses) == pytest.approx(float(expected.detach()), rel=1e-5)
    own = [p.grad.flatten() for p in alone.network.parameters() if p.grad is not None]
    torch.testing.assert_close(total, torch.cat(own), rtol=1e-4, atol=1e-7)


def test_what_workers_add_up_is_what_each_goes_on_with(pixels: Tensor) -> None:
    def twice(flat: Tensor) -> None:
        flat.mul_(2)  # as if another worker had found the same

    one = trainer(pixels, workers=Workers(rank=0, size=2, add_up=twice))
    loss = one._loss()
    loss.backward()
    before = copy.deepcopy([p.grad for p in one.network.parameters()])
    assert float(one._add_up(loss.detach())) == pytest.approx(2 * float(loss.detach()))
    for gradient, parameter in zip(before, one.network.parameters(), strict=True):
        assert gradient is not None
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, 2 * gradient)


def test_the_average_of_a_constant_is_the_constant_and_it_follows_slowly(pixels: Tensor) -> None:
    one = trainer(pixels)
    for average, weight in zip(one.average.parameters(), one.network.parameters(), strict=True):
        average.zero_()
        torch.nn.init.ones_(weight)
    one.step = 10_000  # past the beginning
    one._follow()
    assert weights(one.average).unique().tolist() == pytest.approx([1 - CONFIG.decay])


def test_the_rate_rises_then_falls_to_a_fiftieth() -> None:
    config = DenoiserConfig(size=64, steps=1000, warm_up_steps=100)
    top = SHAPES[64].learning_rate
    assert config.rate_at(0) == pytest.approx(top / 100)
    assert config.rate_at(500) == pytest.approx(top * 0.5)
    assert config.rate_at(999) == pytest.approx(top * 0.02)
    assert math.isclose(config.rate_at(250), top * 0.5 * (1 + math.cos(math.pi / 4)))


@pytest.mark.parametrize(
    ("size", "nearest"), [(0, 32), (-5, 32), (48, 64), (100, 128), (224, 256), (1024, 256)]
)
def test_another_size_is_refused_and_the_nearest_named(size: int, nearest: int) -> None:
    message = f"32, 64, 128, 256 pixels, got {size}; the nearest is {nearest}"
    with pytest.raises(ValueError, match=message):
        DenoiserConfig(size=size)


@pytest.mark.parametrize("steps", [0, -3])
def test_a_training_of_no_steps_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"steps must be at least 1, got {steps}"):
        DenoiserConfig(steps=steps)


def test_every_grey_level_survives_the_way_to_the_network_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(-1, -1, -1, 3)
    signed = as_signed(levels)
    assert (float(signed.min()), float(signed.max())) == (-1, 1)
    assert torch.equal(as_pixels(signed), levels)
    assert as_pixels(torch.full((1, 3, 2, 2), 1.7)).unique().tolist() == [255]
