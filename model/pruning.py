"""Fewer units for a trained head that says the same.

A wide head trains better than a narrow one, but once it is trained many of its units say what
others say as well. Kept are those from which the others follow best (pivoted Cholesky, which is
greedy selection), and their output weights are fitted anew to what the whole member said.

Shapes: M members, U units of each, T units kept of each, K rows, C channels.
"""

import torch
from torch import Tensor

from model.folding import FoldedHead

RIDGE = 1e-9  # of the mean square contribution: units may be copies of each other


@torch.no_grad()
def prune(head: FoldedHead, rows_KC: Tensor, members: int, kept: int) -> FoldedHead:
    """Return the head with ``kept`` units of each member.

    Args:
        head: as it was folded, not yet rounded or scaled.
        rows_KC: what it shall say the same of: normal rows and rows with the training's noise.
        members: of the head.
        kept: T, fewer than a member has.
    """
    levels = [part[:, :, None, None] for part in rows_KC.split(list(head.channels), dim=1)]
    units_KX = head.units(levels).flatten(1).double()
    said_MKU = (units_KX * head.output).unflatten(1, (members, -1)).transpose(0, 1)
    gram_MUU = said_MKU.transpose(1, 2) @ said_MKU / len(rows_KC)
    chosen_MT = _choose(gram_MUU, kept)
    weight_MT = _refit(gram_MUU, chosen_MT)
    first_unit_M1 = torch.arange(members, device=chosen_MT.device)[:, None] * gram_MUU.shape[1]
    return head.keep((first_unit_M1 + chosen_MT).flatten(), weight_MT.flatten())


def _choose(gram_MUU: Tensor, kept: int) -> Tensor:
    """Return the units (M, T) of each member that leave the least of the others unsaid."""
    members, num_units, _ = gram_MUU.shape
    rest_MU = gram_MUU.diagonal(dim1=1, dim2=2).clone()
    factor_MUT = gram_MUU.new_zeros(members, num_units, kept)
    chosen_MT = torch.zeros(members, kept, dtype=torch.long, device=gram_MUU.device)
    every = torch.arange(members, device=gram_MUU.device)
    for step in range(kept):
        pick_M = rest_MU.argmax(dim=1)
        known_MU = torch.einsum("mut,mt->mu", factor_MUT, factor_MUT[every, pick_M])
        scale_M = rest_MU[every, pick_M].clamp_min(torch.finfo(torch.float64).tiny).sqrt()
        column_MU = (gram_MUU[every, pick_M] - known_MU) / scale_M[:, None]
        factor_MUT[:, :, step] = column_MU
        rest_MU = (rest_MU - column_MU.square()).clamp_min(0)
        chosen_MT[:, step] = pick_M
        rest_MU.scatter_(1, chosen_MT[:, : step + 1], -1.0)
    return chosen_MT.sort(dim=1).values


def _refit(gram_MUU: Tensor, chosen_MT: Tensor) -> Tensor:
    """Return by how much the kept units' output weights grow to say what all did (M, T)."""
    rows_MTU = gram_MUU.gather(1, chosen_MT[..., None].expand(-1, -1, gram_MUU.shape[2]))
    square_MTT = rows_MTU.gather(2, chosen_MT[:, None].expand(-1, chosen_MT.shape[1], -1))
    ridge_M = RIDGE * square_MTT.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(1e-30)
    ridge_MTT = torch.diag_embed(ridge_M[:, None].expand(-1, chosen_MT.shape[1]))
    # torch.linalg.solve returns nonsense for a batch where there are two threads (torch 2.15).
    factor_MTT = torch.linalg.cholesky(square_MTT + ridge_MTT)
    fitted: Tensor = torch.cholesky_solve(rows_MTU.sum(dim=2, keepdim=True), factor_MTT)
    return fitted.squeeze(2)
