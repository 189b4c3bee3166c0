"""What heads are trained on: patches of a bank, or its images as a whole.

Every member of a head draws from the images that are not of its own fold; a fold that is no
member's leaves nobody's images out.

Shapes: N images, M members, K rows, C channels.
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

    def __init__(
        self, bank: FeatureBank, images: Tensor, folds: Tensor, config: TrainingConfig
    ) -> None:
        """Take patches of ``images``, an index (N,), of which ``folds`` (N,) is the fold."""
        self.bank, self.images, self.folds = bank, images.to(bank.device), folds.to(bank.device)
        self.seen = _seen(self.folds, config.head.members)
        self.coreset_KC: Tensor | None = None
        if config.coreset:
            self._take(*self._choose(config), config.head.members)

    @classmethod
    def of_coreset(
        cls, bank: FeatureBank, images: Tensor, coreset_KC: Tensor, members: int
    ) -> "PatchRows":
        """Take a coreset that was chosen before, of images that nobody leaves out."""
        nobodys = torch.full((len(images),), -1, device=bank.device)
        rows = cls(bank, images, nobodys, TrainingConfig(coreset=0))
        rows._take(coreset_KC.to(bank.device), nobodys[:1].expand(len(coreset_KC)), members)
        return rows

    def sample(self, num_rows: int, generator: torch.Generator) -> Tensor:
        """Return random patches (K, C), every position that counts equally likely."""
        return self.bank.draw(num_rows, self.images, generator)[0]

    def num_batches(self, config: TrainingConfig) -> int:
        """Return the number of batches in a pass."""
        if config.batch_images is None:
            return config.steps_per_pass
        return -(-min(map(len, self.seen)) // config.batch_images)

    def batches(self, config: TrainingConfig, generator: torch.Generator) -> Iterator[Tensor]:
        """Yield random patches (M, K, C), or all patches of a few images at a time."""
        if config.batch_images is not None:
            yield from self._whole_images(config.batch_images, generator)
            return
        for _ in range(config.steps_per_pass):
            if self.coreset_KC is None:
                own = [self.images[seen] for seen in self.seen]
                drawn = [self.bank.draw(config.batch_rows, images, generator)[0] for images in own]
                yield torch.stack(drawn)
            else:
                chosen_MK = _pick(self.coreset_seen, config.batch_rows, generator)
                yield self.coreset_KC[chosen_MK].float()

    def _take(self, coreset_KC: Tensor, fold_K: Tensor, members: int) -> None:
        self.coreset_KC, self.coreset_seen = coreset_KC, _seen(fold_K, members)

    def _whole_images(self, num_images: int, generator: torch.Generator) -> Iterator[Tensor]:
        shortest = min(map(len, self.seen))
        order_MN = torch.stack([_shuffled(seen, generator)[:shortest] for seen in self.seen])
        for part_MB in order_MN.split(num_images, dim=1):
            rows = [self.bank.whole(self.images[part_B]) for part_B in part_MB]
            fewest = min(map(len, rows))  # where other positions count of other images
            yield torch.stack([rows_KC[:fewest] for rows_KC in rows])

    def _choose(self, config: TrainingConfig) -> tuple[Tensor, Tensor]:
        """Return the coreset's features, in half precision, and folds."""
        generator = torch.Generator(self.bank.device).manual_seed(config.seed)
        num_candidates = min(CANDIDATES, self.bank.num_patches(self.images))
        projection = random_projection(self.bank.channels, generator)
        device = self.bank.device
        points_KD = torch.empty(num_candidates, projection.shape[1], device=device)
        rows_KC = torch.empty(num_candidates, len(projection), dtype=torch.half, device=device)
        whose_K = torch.empty(num_candidates, dtype=torch.long, device=device)
        for start in range(0, num_candidates, BLOCK):
            part = slice(start, min(start + BLOCK, num_candidates))
            drawn, whose_K[part] = self.bank.draw(part.stop - start, self.images, generator)
            points_KD[part], rows_KC[part] = drawn @ projection, drawn
        size = min(config.coreset, max(num_candidates // LEAST_REDUCTION, 1))
        chosen_K = greedy_coreset(points_KD, size, generator)
        return rows_KC[chosen_K], self.folds[whose_K[chosen_K]]


class ImageRows:
    """Some of a bank's images as a whole: the mean feature of every level, side by side."""

    def __init__(self, bank: FeatureBank, images: Tensor, folds: Tensor, members: int) -> None:
        """Take ``images``, an index (N,), of which ``folds`` (N,) is the fold."""
        self.rows_NC = bank.image_means(images.to(bank.device))
        self.seen = _seen(folds.to(bank.device), members)

    def sample(self, num_rows: int, generator: torch.Generator) -> Tensor:
        """Return random images, (K, C)."""
        size, device = (num_rows,), generator.device
        chosen_K = torch.randint(len(self.rows_NC), size, generator=generator, device=device)
        return self.rows_NC[chosen_K]

    def num_batches(self, config: TrainingConfig) -> int:
        """Return the number of batches in a pass."""
        return config.steps_per_pass

    def batches(self, config: TrainingConfig, generator: torch.Generator) -> Iterator[Tensor]:
        """Yield random images (M, K, C)."""
        for _ in range(config.steps_per_pass):
            yield self.rows_NC[_pick(self.seen, config.batch_rows, generator)]


def _seen(fold_N: Tensor, members: int) -> list[Tensor]:
    """Return, for each member, the indices of what is not of its own fold.

    Where nothing is left (there are fewer images than members) it sees everything.
    """
    indices = [torch.nonzero(fold_N != member).flatten() for member in range(members)]
    everything = torch.arange(len(fold_N), device=fold_N.device)
    return [rows if len(rows) else everything for rows in indices]


def _pick(indices: list[Tensor], num_rows: int, generator: torch.Generator) -> Tensor:
    """Return random indices (M, K), each member's among its own."""
    size, device = (num_rows,), generator.device
    return torch.stack(
        [own[torch.randint(len(own), size, generator=generator, device=device)] for own in indices]
    )


def _shuffled(values_N: Tensor, generator: torch.Generator) -> Tensor:
    return values_N[torch.randperm(len(values_N), generator=generator, device=generator.device)]
