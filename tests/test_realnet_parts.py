"""The parts of a RealNet, each against what its description says."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.realnet.decoder import Decoder
from model.realnet.feature_selection import channel_scores, random_channels, select_channels
from model.realnet.reconstruction import Attention, Reconstruction
from model.realnet.residual_selection import MOMENTUM, ResidualSelection, rank, take
from model.realnet.structure import Structure


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def changed_by(planted: list[int], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Sixteen images: planted channels change where the mask is, the others anywhere."""
    random = generator(seed)
    good = torch.randn(16, 32, 14, 14, generator=random)
    masks = torch.zeros(16, 112, 112, dtype=torch.bool)
    masks[:, 24:72, 40:96] = True
    marked = F.interpolate(masks[:, None].float(), size=(14, 14))[:, 0]
    anomalous = good + 0.5 * torch.randn(good.shape, generator=random)
    for channel in planted:
        strength = 1 + 0.2 * torch.rand(16, 1, 1, generator=random)
        anomalous[:, channel] = good[:, channel] + strength * marked
    return anomalous, good, masks


@pytest.mark.parametrize("planted", [[3, 11, 20], [0, 31], list(range(10, 18)), [7]])
def test_channels_that_change_where_the_mask_is_are_selected(planted: list[int]) -> None:
    batches = [changed_by(planted, seed) for seed in range(2)]
    assert select_channels(batches, len(planted)).tolist() == planted


@pytest.mark.parametrize("num", [32, 50])
def test_as_many_channels_as_there_are_are_all_in_their_order(num: int) -> None:
    assert select_channels([changed_by([3])], num).tolist() == list(range(32))


@pytest.mark.parametrize("side", [0, 16, 64])
def test_a_channel_that_never_changes_scores_the_masked_share(side: int) -> None:
    good = torch.randn(4, 3, 16, 16, generator=generator())
    masks = torch.zeros(4, 64, 64, dtype=torch.bool)
    masks[:2, :side, :side] = True
    scores = channel_scores(good, good, masks)
    assert scores.tolist() == pytest.approx([masks.float().mean().item()] * 3)


def test_a_score_is_the_mean_squared_difference_of_change_and_mask() -> None:
    good = torch.zeros(1, 1, 2, 2)
    anomalous = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])  # squared: 0, 1, 4, 9
    masks = torch.tensor([[[False, False], [True, True]]])
    expected = (0**2 + (1 / 9) ** 2 + (4 / 9 - 1) ** 2 + (9 / 9 - 1) ** 2) / 4
    assert channel_scores(anomalous, good, masks).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_channel_that_is_no_number_is_the_worst(bad: float) -> None:
    anomalous, good, masks = changed_by([5])
    anomalous[0, 5, 0, 0] = bad
    assert select_channels([(anomalous, good, masks)], 31).tolist() == [
        channel for channel in range(32) if channel != 5
    ]


def test_random_channels_come_from_the_seed() -> None:
    drawn = [random_channels(64, 16, generator(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert drawn[0].tolist() == sorted(set(drawn[0].tolist()))


def residuals() -> Tensor:
    """Two images of 20 channels; in each, some stand out in one place and others everywhere."""
    low = 0.1 * torch.rand(2, 20, 8, 8, generator=generator())
    low[0, 4, 1, 1], low[0, 7, 2, 2] = 50, 40
    low[0, [1, 9, 15]] += torch.tensor([4.0, 3.0, 2.0])[:, None, None]
    low[1, 5, 0, 0], low[1, 6, 0, 0] = 90, 80
    low[1, [0, 2, 3]] += torch.tensor([2.0, 3.0, 4.0])[:, None, None]
    return low


def test_residuals_are_ranked_by_maximum_and_by_mean() -> None:
    order = rank(residuals(), torch.zeros(20), torch.ones(20), (2, 3))
    assert order.tolist() == [[4, 7, 1, 9, 15], [5, 6, 3, 2, 0]]


def test_ranks_are_measured_in_each_channels_own_mean_and_spread() -> None:
    flat = torch.tensor([10.0, 3.0, 5.0])[None, :, None, None].expand(1, 3, 2, 2)
    mean, variance = torch.tensor([9.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 100.0])
    # (10 - 9) / 1 = 1, (3 - 0) / 1 = 3, (5 - 0) / 10 = .5
    assert rank(flat, mean, variance, (3, 0)).tolist() == [[1, 0, 2]]


def test_residuals_are_handed_on_unchanged_in_the_order_of_their_rank() -> None:
    selection = ResidualSelection(20, 2, 3).eval()
    chosen = selection(residuals())
    for image, order in enumerate([[4, 7, 1, 9, 15], [5, 6, 3, 2, 0]]):
        assert torch.equal(chosen[image], residuals()[image, order])


def test_as_many_residuals_as_there_are_come_in_another_order() -> None:
    chosen = ResidualSelection(20, 20, 0).eval()(residuals())
    assert not torch.equal(chosen, residuals())
    assert torch.equal(chosen.sort(dim=1).values, residuals().sort(dim=1).values)


def test_without_ranks_all_residuals_are_handed_on_in_their_own_order() -> None:
    selection = ResidualSelection(20, 0, 0)
    assert selection(residuals()) is not None
    assert torch.equal(selection(residuals()), residuals())
    assert selection.state_dict() == {}


def test_statistics_are_a_running_mean_of_batches() -> None:
    selection, first = ResidualSelection(20, 2, 2), residuals()
    selection(first)
    selection(3 * first)
    mean, variance = first.mean(dim=(0, 2, 3)), first.var(dim=(0, 2, 3), correction=0)
    kept = 1 - MOMENTUM
    expected_mean = kept * MOMENTUM * mean + MOMENTUM * 3 * mean
    expected = kept**2 + kept * MOMENTUM * variance + MOMENTUM * 9 * variance
    torch.testing.assert_close(selection.mean, expected_mean)
    torch.testing.assert_close(selection.variance, expected)
    before = selection.mean.clone()
    selection.eval()(first)
    assert torch.equal(selection.mean, before)


def test_a_gradient_flows_through_what_is_taken_and_nothing_else() -> None:
    values = residuals().requires_grad_()
    take(values, torch.tensor([[4, 7], [5, 6]])).sum().backward()
    assert values.grad is not None
    assert sorted(set(values.grad.nonzero()[:, 1].tolist())) == [4, 5, 6, 7]


STRUCTURES = [Structure(), Structure(scales=3, units=2, attends=1), Structure(scales=1)]


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize(("channels", "side"), [(64, 14), (24, 28), (40, 7), (3, 4), (100, 9)])
def test_an_untrained_reconstruction_says_the_mean_feature(
    structure: Structure, channels: int, side: int
) -> None:
    net = Reconstruction(channels, structure)
    x = torch.randn(2, channels, side, side, generator=generator())
    assert torch.equal(net(x), torch.zeros_like(x))


@pytest.mark.parametrize("channels", [32, 64, 100, 192])
def test_attention_starts_as_the_identity(channels: int) -> None:
    x = torch.randn(2, channels, 5, 6, generator=generator())
    assert torch.equal(Attention(channels)(x), x)


def test_attention_is_that_of_its_formula() -> None:
    attention = Attention(8)
    torch.nn.init.normal_(attention.leave.weight)
    x = torch.randn(1, 8, 3, 4, generator=generator())
    looks = attention.look(attention.norm(x)).flatten(2)[0].T.detach().double().numpy()
    query, key, value = np.split(looks, 3, axis=1)
    weights = np.exp(query @ key.T / np.sqrt(8))
    seen = weights @ value / weights.sum(axis=1, keepdims=True)
    leave = attention.leave.weight[:, :, 0, 0].detach().double().numpy()
    expected = x[0].double().numpy() + (leave @ seen.T).reshape(8, 3, 4)
    np.testing.assert_allclose(attention(x)[0].detach().numpy(), expected, rtol=1e-4, atol=1e-4)


def test_a_reconstruction_of_its_own_size_has_the_weights_of_the_release() -> None:
    """256 channels: 2 + 2 units of 128, 4 of 256, 4 of 512 and a middle, with attention."""
    net = Reconstruction(256, Structure(scales=3, units=2, attends=1))
    widths = [tuple(p.shape[:2]) for p in net.parameters() if p.dim() == 4]
    assert (128, 256) in widths
    assert max(width for width, _ in widths) == 3 * 512  # of attention at the deepest scale
    assert sum(isinstance(module, Attention) for module in net.modules()) == 2 + 2 + 2 + 1


def test_a_folded_decoder_says_the_same() -> None:
    decoder = Decoder(10, 16)
    x = torch.rand(4, 10, 6, 6, generator=generator())
    for _ in range(3):
        decoder(x)
    before = decoder.eval()(x)
    decoder.fold()
    assert isinstance(decoder.norm, torch.nn.Identity)
    torch.testing.assert_close(decoder(x), before, rtol=1e-4, atol=1e-5)
    assert decoder(x).shape == (4, 12, 12)


def test_numbers_of_a_structure_are_written_and_read() -> None:
    structure = Structure(pool=1, scales=3, units=2, attends=1, by_max=7, by_mean=9)
    assert Structure.from_tensor(structure.to_tensor()) == structure
    with pytest.raises(ValueError, match="shorter"):
        Structure.from_tensor(structure.to_tensor()[:-1])
    with pytest.raises(ValueError, match="at least one of everything"):
        Structure.from_tensor(torch.zeros(7))
