"""How long an onboarding takes, by a look at a few images: read, embedded, and trained on.

It changes nothing and stores nothing. What it measures is this machine, with the threads that this
process has.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

import torch

from model import kinds
from model.errors import NightshiftError
from model.kind import TrainingSet
from model.recipe import Recipe
from pipeline.backbones import LoadedBackbone, own_device
from pipeline.catalogue.catalogue import Category
from pipeline.feature_store.embedder import embedder_of
from pipeline.images.batches import BATCH_IMAGES
from pipeline.onboarding.features import GoodImages, extract, training_uris
from pipeline.onboarding.found_settings import with_found_settings
from pipeline.onboarding.listed_images import list_images
from pipeline.onboarding.pairs import needs_pairs

PROBE_S = 20.0  # no further category is begun after
TRAINING_S = 5.0  # a training that takes longer is stopped, and taken to go on as it began
FEW_IMAGES = 2  # of each batch, where each is many inputs
PASSES = 4  # of each head that are made, where heads are trained in passes
MOST_IMAGES = 128  # more of them give a training no more to choose its patches from
# Kinds that can be trained on a few images over and over in no time: the others are fitted to a
# few, and take longer in proportion.
REPEATABLE = {"simplenet"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What a few images of a category took."""

    category: str
    image_s: float  # to read, decode and embed one
    training_s: float  # of the whole training
    num_images: int | None  # that it was on, where it takes longer for more; up to MOST_IMAGES
    inputs: int = 1  # of the network, that an image becomes
    heads: int = 1  # of the kind, each trained alone
    megabytes: float | None = None  # of all heads in a file, where several of them were fitted


def kind_of_work(category: Category) -> str:
    """Name what makes an image of one category take as long as one of another."""
    own = category.name if category.tiles else ""  # how many tiles its images have, nobody knows
    return repr((category.backbone_config, category.detector, category.preprocessing.size, own))


def choose(categories: Sequence[Category], num_files: Mapping[str, int]) -> list[Category]:
    """Return those to look at: of each kind of work the largest, then the smallest of all."""
    ordered = sorted(categories, key=lambda category: -num_files[category.name])
    largest: dict[str, Category] = {}
    for category in ordered:
        largest.setdefault(kind_of_work(category), category)
    chosen = list(largest.values())
    return chosen + [each for each in ordered[-1:] if each not in chosen]


def probe(categories: Sequence[Category], limit_s: float = PROBE_S) -> Iterator[Probed]:
    """Look at categories, one after the other, as long as there is time; the first in any case.

    One that cannot be looked at is left out: its onboarding would fail as well, and say why. So is
    a kind that learns from made anomalies, whose training cannot be told from a few images.
    """
    backbones, started = LoadedBackbone(own_device()), time.monotonic()
    for number, category in enumerate(categories):
        if number and time.monotonic() - started > limit_s:
            return
        if needs_pairs(category):
            continue
        try:
            yield _probe(category, backbones)
        except NightshiftError as error:
            logger.info("%s cannot be probed: %s", category.name, error)


def _probe(category: Category, backbones: LoadedBackbone) -> Probed:
    """Time two batches; the first has the engine made ready, and counts only if it is alone."""
    all_uris = training_uris(category, list_images(category).samples)
    batch = BATCH_IMAGES if category.tiles is None else FEW_IMAGES
    uris = all_uris[: 2 * batch]
    category = with_found_settings(category, uris)
    embedder = embedder_of(category, backbones(category.backbone_config))
    first, second = uris[:batch], uris[batch:]
    for measured in [first, second] if len(second) == batch else [first]:
        started = time.monotonic()
        good = extract(measured, category, embedder)
        image_s = (time.monotonic() - started) / len(measured)
    grows = category.detector not in REPEATABLE
    num_images = len(good.uris) if grows else min(len(all_uris), MOST_IMAGES)
    training_s, megabytes = _training(category, good, num_images)
    tiles = category.tiles
    return Probed(
        category=category.name,
        image_s=image_s,
        training_s=training_s,
        heads=len(tiles.group_names) if tiles else 1,
        megabytes=megabytes,
        num_images=num_images if grows else None,
        inputs=category.preprocessing.num_inputs,
    )


def _training(category: Category, good: GoodImages, num_images: int) -> tuple[float, float | None]:
    """Return how long a training on so many images takes; the few that are there stand for all.

    And the megabytes of its heads, where they are several; None where they were not all fitted.
    """
    recipe, passes = shortened(category.recipe)
    if category.tiles is not None:
        groups = category.tiles.group_names
        passes = {f"{group}_{name}": num for group in groups for name, num in passes.items()}
    started = time.monotonic()
    images = torch.arange(num_images) % len(good.uris)
    folds = torch.arange(num_images) % recipe.members
    training_set = TrainingSet(bank=good.bank, images=images, folds=folds)
    trainer = kinds.make_trainer(category.detector, training_set, recipe)
    ready = last = time.monotonic()
    spent: dict[str, list[float]] = {}
    is_fitted = category.tiles is not None
    for _ in trainer.run():
        now = time.monotonic()
        spent.setdefault(trainer.reports[-1][0] if passes else "", []).append(now - last)
        if now - ready > TRAINING_S:
            is_fitted = is_fitted and category.detector in REPEATABLE  # whose size is known before
            break
        last = now
    of_pass = {name: mean(times[1:] or times) for name, times in spent.items()}  # first: warming up
    slowest = max(of_pass.values(), default=0.0)  # of a head that was not reached
    whole = passes or {"": trainer.num_passes}
    passes_s = sum(num * of_pass.get(name, slowest) for name, num in whole.items())
    return ready - started + passes_s, trainer.folded().stored_bytes / 1e6 if is_fitted else None


def shortened(recipe: Any) -> tuple[Any, dict[str, int]]:
    """Return a recipe with a few passes of each head, and how many each has; none: left as it is.

    Heads are trained one after the other, and a pass of one takes much longer than of another.
    """
    if not isinstance(recipe, Recipe):
        return recipe, {}
    heads = {"patch": recipe.patch, "image": recipe.image}
    found = {name: config for name, config in heads.items() if config is not None}
    few = {name: replace(c, passes=min(PASSES, c.passes)) for name, c in found.items()}
    return replace(recipe, **few), {name: config.passes for name, config in found.items()}
