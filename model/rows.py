"""What heads are trained on: patches of a bank, or its images as a whole.

Shapes: N images, K rows, C channels.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from model.coreset import greedy_coreset, random_projection
from model.feature_bank import FeatureBank
from model.training import TrainingConfig

BLOCK = 8_192  # patches put together at a time
CANDIDATES = 131_072  # random patches among which a coreset is chosen
LEAST_REDUCTION = 10  # a coreset takes at most one patch in so many


class PatchRows:
    """Patches of some of a bank's images: any, or a coreset that covers them."""

    def __init__(self, bank: FeatureBank, images: Tensor, config: TrainingConfig) -> None:
        self.bank, self.images = bank, images.to(bank.device)
        self.coreset_KC = self._choose(config) if config.coreset else None

    def sample(self, num_rows: int, generator: torch.Generator) -> Tensor:
        """Return random patches (K, C), every position equally likely."""
        return self.bank.draw(num_rows, self.images, generator)

    def num_batches(self, config: TrainingConfig) -> int:
        """Return the number of batches in a pass."""
        if config.batch_images is None:
            return config.steps_per_pass
        return -(-len(self.images) // config.batch_images)

    def batches(self, config: TrainingConfig, generator: torch.Generator) -> Iterator[Tensor]:
        """Yield random patches, or all patches of a few images at a time."""
        if config.batch_images is None:
            for _ in range(config.steps_per_pass):
                yield self._batch(config.batch_rows, generator)
            return
        order = torch.randperm(len(self.images), generator=generator, device=generator.device)
        for image_B in self.images[order].split(config.batch_images):
            yield self.bank.whole(image_B)

    def _batch(self, num_rows: int, generator: torch.Generator) -> Tensor:
        if self.coreset_KC is None:
            return self.sample(num_rows, generator)
        return pick(self.coreset_KC, num_rows, generator).float()

    def _choose(self, config: TrainingConfig) -> Tensor:
        """Return the coreset's features, in half precision."""
        generator = torch.Generator(self.bank.device).manual_seed(config.seed)
        num_patches = len(self.images) * self.bank.grid[0] * self.bank.grid[1]
        num_candidates = min(CANDIDATES, num_patches)
        projection = random_projection(self.bank.channels, generator)
        drawn, points = [], []
        for start in range(0, num_candidates, BLOCK):
            rows_KC = self.sample(min(BLOCK, num_candidates - start), generator)
            points.append(rows_KC @ projection)
            drawn.append(rows_KC.half())
        size = min(config.coreset, max(num_candidates // LEAST_REDUCTION, 1))
        return torch.cat(drawn)[greedy_coreset(torch.cat(points), size, generator)]


def pick(rows_NC: Tensor, num_rows: int, generator: torch.Generator) -> Tensor:
    """Return random rows (K, C) of a table."""
    size, device = (num_rows,), generator.device
    return rows_NC[torch.randint(len(rows_NC), size, generator=generator, device=device)]


class ImageRows:
    """Some of a bank's images as a whole: the mean feature of every level, side by side."""

    def __init__(self, bank: FeatureBank, images: Tensor) -> None:
        self.rows_NC = bank.image_means(images.to(bank.device))

    def sample(self, num_rows: int, generator: torch.Generator) -> Tensor:
        """Return random images, (K, C)."""
        return pick(self.rows_NC, num_rows, generator)

    def num_batches(self, config: TrainingConfig) -> int:
        """Return the number of batches in a pass."""
        return config.steps_per_pass

    def batches(self, config: TrainingConfig, generator: torch.Generator) -> Iterator[Tensor]:
        """Yield random images."""
        for _ in range(config.steps_per_pass):
            yield self.sample(config.batch_rows, generator)
