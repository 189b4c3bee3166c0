"""Folded heads to fill: zeros of the right shapes, scores as they come."""

from collections.abc import Sequence

import torch

from model.folding import FoldedHead, head_shapes


def empty_head(channels: Sequence[int], hidden: int, middle: tuple[int, ...] = ()) -> FoldedHead:
    shapes = head_shapes(channels, hidden, middle)
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    return FoldedHead(tensors | {"spread": torch.ones(())})
