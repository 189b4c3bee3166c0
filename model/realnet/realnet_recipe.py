"""How a RealNet is trained, and what may be left out of it to see what it is worth."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from model.realnet.structure import Structure

Selection = Literal["afs", "random"]
Residuals = Literal["ranked", "all"]

SHARES = 6  # a sixth of all residual channels by maximum, a sixth by mean


@dataclass(frozen=True, kw_only=True)
class RealNetRecipe:
    """Sizes, training and ablations."""

    channels: tuple[int, ...] = (32, 64, 64)  # selected of each level; the last holds for deeper
    selection: Selection = "afs"  # how they are chosen
    residuals: Residuals = "ranked"  # what the decoder reads
    structure: Structure = field(default_factory=Structure)  # its counts follow from the channels
    standardised: bool = True  # selected channels to mean 0 and spread 1; else as they are
    pairs: int = 1024  # synthetic anomalies
    passes: int = 10  # points of the curve
    steps_per_pass: int = 60
    batch_images: int = 16  # half of them good, half anomalous
    learning_rate: float = 1e-3
    warm_up_steps: int = 50
    decay: bool = True  # cosine to zero; without it the rate stays as it is
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"realnet.channels must be positive, got {list(self.channels)}")
        if self.batch_images < 2 or self.batch_images % 2:
            raise ValueError(f"realnet.batch_images must be even, got {self.batch_images}")
        if min(self.passes, self.steps_per_pass, self.pairs) < 1:
            raise ValueError("realnet.passes, steps_per_pass and pairs must be at least 1")

    @property
    def members(self) -> int:
        """One: no part of it leaves images out."""
        return 1

    @property
    def num_steps(self) -> int:
        """Of the whole training."""
        return self.passes * self.steps_per_pass

    def with_seed(self, seed: int) -> "RealNetRecipe":
        """Return the recipe with another seed."""
        return replace(self, seed=seed)

    def counts(self, level_channels: Sequence[int]) -> list[int]:
        """Return how many channels are selected of levels of so many, finest first."""
        asked = [self.channels[min(i, len(self.channels) - 1)] for i in range(len(level_channels))]
        return [min(each) for each in zip(asked, level_channels, strict=True)]

    def structure_of(self, channels: Sequence[int]) -> Structure:
        """Return the sizes of a network over so many selected channels."""
        count = max(sum(channels) // SHARES, 1) if self.residuals == "ranked" else 0
        return replace(self.structure, by_max=count, by_mean=count)
