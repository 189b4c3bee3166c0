"""What the checks know of a category's images: facts of each, gathered while they are embedded.

Shapes: B images of a batch, N images of the set, F values that describe an image as a whole.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.calibration import first_copies
from pipeline.datasets.samples import Sample
from pipeline.feature_store.embedder import EmbeddedBatch
from pipeline.images.decode import ImageRead
from pipeline.images.image_statistics import STATISTICS
from pipeline.inspection.category_summary import Floats
from pipeline.inspection.robust_tail import LEAST_VALUES
from pipeline.inspection.suspects import unseen_scores


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images that could be read, in the order of their samples, and those that could not."""

    name: str  # of the category
    samples: list[Sample]  # (N,)
    reads: list[ImageRead]  # (N,), without pixels
    unreadable: list[ImageRead]
    statistics: dict[str, Floats]  # by name, (N,) each
    pooled: Floats  # (N, F), see ``pool``; (N, 0) where nothing was embedded

    @property
    def uris(self) -> list[str]:
        """Their addresses."""
        return [sample.uri for sample in self.samples]

    @property
    def hashes(self) -> list[str]:
        """Digests of their contents."""
        return [read.sha256 for read in self.reads]

    @cached_property
    def trained_on(self) -> NDArray[np.int64]:
        """Indices of the good images to train on, each content once: the ones to judge."""
        is_train = np.array([sample.split == "train" for sample in self.samples], dtype=bool)
        found = np.flatnonzero(is_train)
        return found[first_copies([self.reads[index].sha256 for index in found])]

    @cached_property
    def least_usual(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Indices and unseen scores (``suspects.py``) of what is trained on, highest score first.

        Nothing where the images are too few to judge.
        """
        index, hashes = self.trained_on, self.hashes
        if len(index) < LEAST_VALUES or not self.pooled.shape[1]:
            return np.zeros(0, np.int64), np.zeros(0)
        scores = unseen_scores(self.pooled[index], [hashes[i] for i in index])
        order = np.argsort(-scores, kind="stable")
        return index[order], scores[order]


class Gatherer:
    """Takes embedded batches as they come and keeps what the checks need of them."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.reads: list[ImageRead] = []
        self.unreadable: list[ImageRead] = []
        self._statistics: dict[str, list[Floats]] = {name: [] for name in STATISTICS}
        self._pooled: list[Floats] = []

    def add(self, batch: EmbeddedBatch) -> None:
        """Take the next images."""
        self.unreadable += batch.unreadable
        if not batch.images:
            return
        self.reads += batch.images
        for name, values in batch.statistics.items():
            self._statistics[name].append(values)
        self._pooled.append(pool(list(batch.planes.values())))

    @property
    def statistics(self) -> dict[str, Floats]:
        """Statistics of the images, by name, (N,) each."""
        none = np.zeros(0, np.float32)
        return {name: np.concatenate([none, *v]) for name, v in self._statistics.items()}

    def finish(self, name: str, samples: Iterable[Sample]) -> ImageSet:
        """Return the set of a category; ``samples`` are those that were read, in any order."""
        by_uri = {sample.uri: sample for sample in samples}
        pooled = np.concatenate(self._pooled) if self._pooled else np.zeros((0, 0), np.float32)
        return ImageSet(
            name=name,
            samples=[by_uri[read.uri] for read in self.reads],
            reads=self.reads,
            unreadable=self.unreadable,
            statistics=self.statistics,
            pooled=pooled,
        )


def pool(levels: Sequence[Tensor]) -> Floats:
    """Return mean and standard deviation of every channel of pooled (B, C, H, W) maps, (B, F)."""
    flat = [level.float().flatten(2) for level in levels]
    parts = [each.mean(dim=2) for each in flat] + [each.std(dim=2) for each in flat]
    pooled: Floats = torch.cat(parts, dim=1).nan_to_num().cpu().numpy()
    return pooled
