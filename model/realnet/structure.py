"""The numbers that say which network a detector's tensors belong to."""

from dataclasses import astuple, dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Structure:
    """Sizes of a RealNet; a file holds them as a tensor, in this order."""

    pool: int = 2  # side of the squares that the finest level is averaged over before anything else
    scales: int = 2  # grids of a reconstruction, each half as fine and twice as wide as the last
    units: int = 1  # residual units of a scale
    attends: int = 0  # 1: those of coarser scales attend as well, not only the middle
    by_max: int = 26  # residual channels that the decoder reads by their highest position,
    by_mean: int = 26  # and by their mean; both 0: it reads all, in their own order
    decoder_width: int = 64  # channels of the decoder's first convolution

    def __post_init__(self) -> None:
        if min(self.pool, self.scales, self.units, self.decoder_width) < 1:
            raise ValueError(f"a RealNet needs at least one of everything, got {self}")

    def to_tensor(self) -> Tensor:
        """Return the numbers, (7,)."""
        return torch.tensor(astuple(self), dtype=torch.float32)

    @classmethod
    def from_tensor(cls, numbers: Tensor) -> "Structure":
        """Return what ``to_tensor`` wrote.

        Raises:
            ValueError: they are too few or too many, or not possible.
        """
        names = list(cls.__dataclass_fields__)
        return cls(**dict(zip(names, (int(each) for each in numbers.tolist()), strict=True)))
