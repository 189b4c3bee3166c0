"""Synthetic anomalies beside the good images they are made of, for kinds that learn from them.

All come from training images alone and from the seed, so that a restart makes the same ones. The
whole image may be covered: nothing looks for the part in it.

Shapes: M pairs, N training images, H x W pixels of the crop.
Source: RealNet, Zhang et al. 2024 (arXiv:2403.05897), section 4.1 and its release: content is
blended with an opacity of .5 to 1 where it comes from a bank of anomalies, else of .2 to 1, within
a Perlin noise above a threshold. Ours: the threshold is drawn as a share of the image, as in
``synthetic.py``, and the mask holds only what changed.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from model.kind import Pairs
from model.kinds import KINDS
from pipeline.catalogue.catalogue import Category
from pipeline.feature_store.embedder import Embedder
from pipeline.images.batches import batches, read_all
from pipeline.images.prefetch import read_ahead
from pipeline.onboarding.anomaly_bank import AnomalyBank
from pipeline.onboarding.contents import CONTENTS
from pipeline.onboarding.feature_cache import reserve
from pipeline.onboarding.features import Progress, level_shapes
from pipeline.onboarding.synthetic import (
    MAX_DRAWS,
    Mask,
    NothingChanges,
    Pixels,
    blend,
    is_visible,
    noise_region,
)

AREA = (0.003, 0.2)  # share of the image, drawn log-uniformly
OPACITY, BANK_OPACITY = (0.2, 1.0), (0.5, 1.0)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PairMaker:
    """Makes each pair from its number and the seed alone."""

    images: list[Pixels]  # good ones, (H, W, 3)
    bank: list[Pixels]  # anomalous ones; empty: content comes from the good images
    seed: int

    def make(self, number: int) -> tuple[int, Pixels, Mask]:
        """Return the place of the good image, the anomalous pixels and the mask of a pair.

        Raises:
            NothingChanges: no draw left a visible mark.
        """
        random = np.random.default_rng([self.seed, number])
        for _ in range(MAX_DRAWS):
            place = int(random.integers(len(self.images)))
            pixels, mask, region = self._draw(self.images[place], random)
            if is_visible(mask, region):
                return place, pixels, mask
        raise NothingChanges(
            f"{MAX_DRAWS} draws of a synthetic anomaly on {len(self.images)} good images changed "
            f"next to nothing. Needed are images that show something: look at them, or raise the "
            f"crop."
        )

    def _draw(self, image: Pixels, random: np.random.Generator) -> tuple[Pixels, Mask, Mask]:
        sources = self.bank or self.images
        other = sources[random.integers(len(sources))]
        region = noise_region(image.shape[:2], AREA, random)
        if self.bank:
            content, opacity = other.astype(np.float64), random.uniform(*BANK_OPACITY)
        else:
            make = CONTENTS[random.integers(len(CONTENTS))]
            content, opacity = make(image, other, random), random.uniform(*OPACITY)
        return *blend(image, content, region, opacity), region


def needs_pairs(category: Category) -> int:
    """Return how many synthetic anomalies a category's detector learns from."""
    return KINDS[category.detector].num_pairs(category.recipe)


def make_pairs(
    category: Category,
    uris: Mapping[int, str],
    anomalies: AnomalyBank,
    embedder: Embedder,
    progress: Progress | None = None,
) -> Pairs | None:
    """Make and embed a category's pairs; None where it needs none.

    ``uris`` are those of the good images that train, by their index.

    Raises:
        NothingChanges, CacheTooSmall: there is nothing to learn from, or no room.
    """
    num, started = needs_pairs(category), time.monotonic()
    if not num:
        return None
    places, maker = _maker(category, uris, anomalies, num)
    size = category.preprocessing.size
    shapes = level_shapes(embedder.backbone, category.embedding, size)
    bank = reserve(category, num, shapes, embedder.backbone.mean.device)
    originals = torch.zeros(num, dtype=torch.long)
    masks = torch.zeros(num, *size, dtype=torch.bool)
    for first, made in _blocks(maker, num):
        block = slice(first, first + len(made))
        originals[block] = torch.tensor([places[place] for place, _, _ in made])
        masks[block] = torch.from_numpy(np.stack([mask for _, _, mask in made]))
        planes = embedder.of_pixels([pixels for _, pixels, _ in made])
        bank.write(first, list(planes.values()))
        if progress:
            progress(block.stop, num)
    seconds = time.monotonic() - started
    logger.info("made %d anomalies of %s: %.1f s", num, category.name, seconds)
    return Pairs(bank=bank, originals=originals, masks=masks)


def _maker(
    category: Category, uris: Mapping[int, str], anomalies: AnomalyBank, num: int
) -> tuple[list[int], PairMaker]:
    """Read the good images that pairs are made of; return their indices as well.

    No more are read than there are pairs.
    """
    seed = category.training.seed
    chosen = sorted(np.random.default_rng(seed).permutation([*uris])[:num].tolist())
    reads = list(read_all([uris[index] for index in chosen], category.preprocessing))
    readable = [i for i, read in zip(chosen, reads, strict=True) if read.pixels is not None]
    images = [read.pixels for read in reads if read.pixels is not None]
    if not images:
        raise NothingChanges(f"none of {len(chosen)} training images can be read any more.")
    return readable, PairMaker(images=images, bank=[*anomalies.pixels], seed=seed)


def _blocks(maker: PairMaker, num: int) -> Iterator[tuple[int, list[tuple[int, Pixels, Mask]]]]:
    """Yield the number of a first pair with it and those that follow, made ahead."""
    first = 0
    for made in batches(read_ahead(maker.make, range(num), num_threads=2)):
        yield first, made
        first += len(made)
