"""What a RealNet trains on: the selected channels of good images and of synthetic anomalies.

Channels are selected once, so no others are kept: about 180 kB of an image at 224 pixels. They are
standardised already and in half precision.

Shapes: N good images, M pairs, K selected channels of a level, h x w its grid, g x g the decoder's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.feature_bank import FeatureBank
from model.kind import Pairs, TrainingSet
from model.realnet.feature_selection import Changed, random_channels, select_channels
from model.realnet.realnet_heads import pool_finest
from model.realnet.realnet_recipe import RealNetRecipe

BATCH_IMAGES = 16  # among which a channel's change is brought to 0 to 1, as in the release
MOST_SEEN = 1024  # pairs that channels are selected by
LEAST_SPREAD = 1e-3  # of a channel, in the mean spread of its level's


@dataclass(frozen=True, kw_only=True)
class Channels:
    """The channels of a level that are read, and what they are measured in."""

    index: Tensor  # (K,), ascending
    mean: Tensor  # (K,)
    scale: Tensor  # (K,), one over the spread


@dataclass(frozen=True, kw_only=True)
class SelectedFeatures:
    """Levels of good images and pairs, finest first, and the masks of the pairs."""

    channels: list[Channels]
    good: list[Tensor]  # (N, K, h, w) of each level, half precision
    anomalous: list[Tensor]  # (M, K, h, w) likewise
    originals: Tensor  # (M,), the place of each one's good image among the N
    marked: Tensor  # (M, 2g, 2g), the share of each of the decoder's positions that was changed

    @classmethod
    def of(cls, training_set: TrainingSet, recipe: RealNetRecipe) -> "SelectedFeatures":
        """Select channels, and keep those of every image."""
        bank, pairs = training_set.bank, training_set.pairs
        assert pairs is not None, "this kind learns from synthetic anomalies"
        images, pool = training_set.images.to(bank.device), recipe.structure.pool
        indices = _select(bank, pairs, recipe)
        kept_good = _keep(bank, images, indices, pool)
        channels = [
            _measure(level, index, standardised=recipe.standardised)
            for level, index in zip(kept_good, indices, strict=True)
        ]
        everyone = torch.arange(len(pairs.originals), device=bank.device)
        kept = _keep(pairs.bank, everyone, indices, pool)
        places = torch.full((bank.num_images,), -1, device=bank.device)
        places[images] = torch.arange(len(images), device=bank.device)
        originals = places[pairs.originals.to(bank.device)]
        assert bool((originals >= 0).all()), "anomalies are made of training images alone"
        height, width = kept_good[0].shape[2:]
        return cls(
            channels=channels,
            good=_standardised(kept_good, channels),
            anomalous=_standardised(kept, channels),
            originals=originals,
            marked=_shares(pairs.masks, (2 * height, 2 * width)).to(bank.device),
        )


def _select(bank: FeatureBank, pairs: Pairs, recipe: RealNetRecipe) -> list[Tensor]:
    """Return the channels of each level, (K,) each, ascending."""
    counts = recipe.counts(bank.level_channels)
    if recipe.selection == "random":
        generator = torch.Generator(bank.device).manual_seed(recipe.seed)
        widths = zip(bank.level_channels, counts, strict=True)
        return [random_channels(width, count, generator) for width, count in widths]
    return [
        select_channels(_changes(bank, pairs, level, recipe.structure.pool), count)
        for level, count in enumerate(counts)
    ]


def _changes(bank: FeatureBank, pairs: Pairs, level: int, pool: int) -> Iterator[Changed]:
    """Yield one level of anomalous images and of their good ones, with masks, batch by batch."""
    num_seen = min(len(pairs.originals), MOST_SEEN)
    for index in torch.arange(num_seen).split(BATCH_IMAGES):
        anomalous = pool_finest(pairs.bank.images(index), pool)[level]
        good = pool_finest(bank.images(pairs.originals[index]), pool)[level]
        yield anomalous, good, pairs.masks[index].to(bank.device)


def _keep(bank: FeatureBank, images: Tensor, indices: Sequence[Tensor], pool: int) -> list[Tensor]:
    """Return selected channels of some images, (N, K, h, w) of each level, half precision."""
    parts = []
    for image_B in images.split(BATCH_IMAGES):
        levels = pool_finest(bank.images(image_B), pool)
        parts.append([level[:, index] for level, index in zip(levels, indices, strict=True)])
    return [torch.cat(level).half() for level in zip(*parts, strict=True)]


def _measure(level_NKhw: Tensor, index_K: Tensor, *, standardised: bool) -> Channels:
    """Return mean and spread of a level's channels over good images."""
    num_channels = level_NKhw.shape[1]
    mean_K = torch.zeros(num_channels, device=level_NKhw.device)
    if not standardised:
        return Channels(index=index_K, mean=mean_K, scale=torch.ones_like(mean_K))
    square_K = torch.zeros_like(mean_K)
    for part in level_NKhw.split(BATCH_IMAGES):  # in float32, and not all at once
        mean_K += part.float().sum(dim=(0, 2, 3))
        square_K += part.float().square().sum(dim=(0, 2, 3))
    count = level_NKhw[:, 0].numel()
    mean_K /= count
    spread_K = (square_K / count - mean_K.square()).clamp_min(0).sqrt()
    least = LEAST_SPREAD * spread_K.mean().clamp_min(1e-6)
    return Channels(index=index_K, mean=mean_K, scale=1 / spread_K.clamp_min(least))


def _standardised(levels: Sequence[Tensor], channels: Sequence[Channels]) -> list[Tensor]:
    """Measure what is kept, a few images at a time, in its place."""
    for level_NKhw, each in zip(levels, channels, strict=True):
        mean, scale = each.mean[:, None, None], each.scale[:, None, None]
        for part in level_NKhw.split(BATCH_IMAGES):
            part.copy_((part.float() - mean) * scale)
    return list(levels)


def _shares(masks_MHW: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the marked share of every position of a coarser grid, (M, 2g, 2g)."""
    parts = [
        F.adaptive_avg_pool2d(part[:, None].float(), grid)[:, 0].half()
        for part in masks_MHW.split(BATCH_IMAGES)
    ]
    return torch.cat(parts)
