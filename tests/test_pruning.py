"""Pruned heads: what is redundant goes without a trace, what is left says the same."""

import dataclasses

import pytest
import torch
from test_simplenet import SHAPES, make_levels, make_trainer, small, trained

from model.folding import FoldedHead
from model.pruning import prune

CHANNELS = tuple(shape[0] for shape in SHAPES)
MEMBERS = 3
ROWS = 400


def rows() -> torch.Tensor:
    return torch.randn(ROWS, sum(CHANNELS), generator=torch.Generator().manual_seed(1)) * 3


def random_head(units: int, middle: tuple[int, ...] = ()) -> FoldedHead:
    head = FoldedHead(CHANNELS, units, middle)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in head.state_dict().items():
        if name not in ("offset", "spread"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return head


def with_copies(head: FoldedHead) -> FoldedHead:
    """Each unit twice, the second time 2 times as large: LeakyReLU lets that factor through."""
    twice = FoldedHead(CHANNELS, 2 * head.hidden)
    tensors = dict(head.state_dict())
    for name in ("level0", "level1", "bias", "output"):
        tensors[name] = torch.stack([tensors[name], 2 * tensors[name]], dim=1).flatten(0, 1)
    twice.load_state_dict(tensors)
    return twice


def test_copies_of_units_go_without_a_trace() -> None:
    whole = with_copies(random_head(MEMBERS * 5))
    pruned = prune(whole, rows(), MEMBERS, 5)
    assert pruned.hidden == MEMBERS * 5
    levels = make_levels()
    torch.testing.assert_close(pruned(levels), whole(levels), atol=1e-3, rtol=1e-4)
    for part, all_of_it in zip(pruned.split(MEMBERS), whole.split(MEMBERS), strict=True):
        torch.testing.assert_close(part(levels), all_of_it(levels), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("middle", [(), (MEMBERS, 8, 5)])
def test_the_more_units_are_kept_the_less_is_lost(middle: tuple[int, ...]) -> None:
    whole = random_head(MEMBERS * 8, middle)
    levels = [part[:, :, None, None] for part in rows().split(list(CHANNELS), dim=1)]
    lost = [
        (prune(whole, rows(), MEMBERS, kept)(levels) - whole(levels)).square().mean().item()
        for kept in (2, 4, 6, 8)
    ]
    assert lost == sorted(lost, reverse=True)
    assert lost[-1] == pytest.approx(0, abs=1e-6 * lost[0])


def test_a_refit_loses_no_more_than_leaving_the_other_units_out() -> None:
    whole = random_head(MEMBERS * 8)
    pruned = prune(whole, rows(), MEMBERS, 5)
    kept = [whole.weights[0].eq(row).all(dim=1).nonzero().item() for row in pruned.weights[0]]
    units = torch.tensor(kept)
    assert [sum(unit // 8 == member for unit in kept) for member in range(MEMBERS)] == [5, 5, 5]
    cut = whole.keep(units, torch.ones(len(units)))
    levels = [part[:, :, None, None] for part in rows().split(list(CHANNELS), dim=1)]
    lost = [(head(levels) - whole(levels)).square().mean() for head in (pruned, cut)]
    assert lost[0] < lost[1]


def test_a_head_may_be_folded_while_it_trains() -> None:
    recipe = small("default")
    recipe = dataclasses.replace(
        recipe,
        patch=dataclasses.replace(
            recipe.patch, head=dataclasses.replace(recipe.patch.head, kept=5)
        ),
    )
    undisturbed, watched = trained(recipe).folded(), make_trainer(recipe)
    for _ in watched.run():
        watched.folded()
    assert watched.folded().patch.hidden == 5 * recipe.members
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(value, watched.folded().state_dict()[name]), name


def test_many_units_are_refitted_alike_by_one_thread_and_by_two() -> None:
    """Batched solvers have gone wrong with several threads from about 190 unknowns on."""
    head, threads = random_head(2 * 256), torch.get_num_threads()
    pruned = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            pruned.append(prune(head, rows(), 2, 216))
    finally:
        torch.set_num_threads(threads)
    one, two = (made.state_dict()["output"] for made in pruned)
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)
