"""A RealNet small enough to train in a second, and features with planted anomalies for it."""

from typing import Any

import torch

from model.feature_bank import FeatureBank
from model.kind import Pairs, TrainingSet
from model.realnet.realnet_recipe import RealNetRecipe

SHAPES = [(8, 16, 16), (12, 8, 8), (20, 4, 4)]
SIDE = 64  # pixels of the crop
SHOWING = (1, 3, 5)  # channels of every level that show anomalies; the others do not


def bank_of(num_images: int, seed: int) -> FeatureBank:
    """Images that share a pattern, and some noise."""
    shared, own = (torch.Generator().manual_seed(each) for each in (99, seed))
    bank = FeatureBank(num_images, SHAPES)
    levels = []
    for shape in SHAPES:
        pattern = torch.randn(shape, generator=shared)
        levels.append(pattern + 0.3 * torch.randn(num_images, *shape, generator=own))
    bank.write(0, levels)
    return bank


def training_set(num_good: int = 12, num_pairs: int = 24) -> TrainingSet:
    """Where a mask is set, some channels are far away and others jitter."""
    good = bank_of(num_good, seed=0)
    images = torch.arange(num_good)[::2]  # the others are held out
    originals = images.repeat(num_pairs)[:num_pairs]
    generator = torch.Generator().manual_seed(1)
    masks = torch.zeros(num_pairs, SIDE, SIDE, dtype=torch.bool)
    corners = torch.randint(SIDE // 16, (num_pairs, 2), generator=generator) * 16
    for mask, (top, left) in zip(masks, corners.tolist(), strict=True):
        mask[top : top + 16, left : left + 16] = True
    levels = good.images(originals)
    for level in levels:
        marked = torch.nn.functional.interpolate(masks[:, None].float(), size=level.shape[2:])
        for channel in range(level.shape[1]):
            noise = torch.randn(level[:, channel].shape, generator=generator)
            level[:, channel] += 6 * marked[:, 0] if channel in SHOWING else 0.5 * noise
    anomalous = FeatureBank(num_pairs, SHAPES)
    anomalous.write(0, levels)
    pairs = Pairs(bank=anomalous, originals=originals, masks=masks)
    return TrainingSet(bank=good, images=images, folds=torch.zeros(len(images)), pairs=pairs)


def recipe_of(**changes: Any) -> RealNetRecipe:
    settings: dict[str, Any] = {
        "channels": (4, 6, 6),
        "pairs": 24,
        "passes": 3,
        "steps_per_pass": 4,
        "batch_images": 4,
        "warm_up_steps": 2,
    }
    return RealNetRecipe(**settings | changes)
