"""What an inspection is worth: defects planted among good images, and a thousand categories.

python -m tests.bench.inspection CATALOGUE [--only NAME] [--seeds 3] [--features URI]
python -m tests.bench.inspection --categories 1000

Planted: a share of the training images is replaced by defective test images, which leave the test
set of every arm. A memory bank is fitted to what is there (report), without the suspects (drop),
and without the planted ones (clean).
"""

import argparse
import resource
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from sklearn.metrics import roc_auc_score

from model.feature_bank import FeatureBank
from model.memory_bank import MemoryBankRecipe, fit
from pipeline.backbones import fetch_backbone
from pipeline.catalogue.catalogue import Category, load_catalogue, select
from pipeline.data_report.category_reading import Reading
from pipeline.data_report.inspection import inspect_catalogue
from pipeline.feature_store.embedder import embedder_of
from pipeline.feature_store.place import named_place
from pipeline.inspection.data_checks import examine
from pipeline.inspection.suspects import are_suspects, unseen_scores
from pipeline.onboarding.features import GoodImages, extract
from pipeline.onboarding.listed_images import list_images
from tests.support.image_sets import image_set

SHARES = (0.05, 0.1)
NUM_IMAGES, WIDTH = 200, 304  # of a made-up category; twice the channels of EfficientNet-Lite0
Indices = NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.inspection", description=__doc__)
    parser.add_argument("catalogue", nargs="?")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--features")
    parser.add_argument("--categories", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.categories:
        scale(arguments.categories)
    if arguments.catalogue:
        for category in select(load_catalogue(arguments.catalogue), arguments.only):
            plant(category, arguments.seeds, arguments.features)


def say(line: str) -> None:
    Console(highlight=False, soft_wrap=True).print(line)


def plant(category: Category, num_seeds: int, features: str | None) -> None:
    samples = list_images(category).samples
    embedder = embedder_of(
        category, fetch_backbone(category.backbone_config), named_place(features)
    )
    images = extract([sample.uri for sample in samples], category, embedder)
    by_uri = {sample.uri: sample for sample in samples}
    kinds = [by_uri[uri] for uri in images.uris]
    train = np.flatnonzero([each.split == "train" for each in kinds])
    bad = np.flatnonzero([not each.is_good for each in kinds])
    test = np.flatnonzero([each.is_good and each.split == "test" for each in kinds])
    started = time.monotonic()
    examine(replace(images.images, name=category.name))
    say(f"{category.name}: checks of {len(kinds)} images {time.monotonic() - started:.2f} s")
    for share in SHARES:
        rows = [arms(images, (train, bad, test), share, seed) for seed in range(num_seeds)]
        means = {name: round(float(np.mean([r[name] for r in rows])), 3) for name in rows[0]}
        say(f"{category.name} {share:.0%}: {means}")
    scores = unseen_scores(images.images.pooled[train], [images.hashes[i] for i in train])
    say(f"{category.name}: false suspects of the clean set {are_suspects(scores).sum()}")


def arms(
    images: GoodImages, places: tuple[Indices, Indices, Indices], share: float, seed: int
) -> dict[str, float]:
    """Return recall among the first of the list, suspects, and image AUROC of each arm."""
    train, bad, good_test = places
    random = np.random.default_rng(seed)
    count = round(share * len(train))
    kept = random.choice(train, len(train) - count, replace=False)
    planted = random.choice(bad, count, replace=False)
    learned = np.concatenate([kept, planted])
    is_planted = np.isin(learned, planted)
    scores = unseen_scores(images.images.pooled[learned], [images.hashes[i] for i in learned])
    suspect = are_suspects(scores)
    rest = np.setdiff1d(bad, planted)
    sets = {"report": learned, "drop": learned[~suspect], "clean": kept}
    return {
        "recall_first_k": is_planted[np.argsort(-scores)[:count]].mean(),
        "suspected": suspect[is_planted].mean(),
        "false_suspects": float(suspect[~is_planted].sum()),
        **{name: auroc(images.bank, own, good_test, rest) for name, own in sets.items()},
    }


@torch.inference_mode()
def auroc(bank: FeatureBank, learned: Indices, good: Indices, bad: Indices) -> float:
    heads = fit(bank, torch.from_numpy(learned), MemoryBankRecipe()).in_float32()
    index = torch.from_numpy(np.concatenate([good, bad]))
    scores = torch.cat([heads(bank.images(part))[0] for part in index.split(16)])
    labels = np.arange(len(index)) >= len(good)
    return float(roc_auc_score(labels, scores.numpy()))


class MadeUp:
    """Reads categories that are nowhere."""

    def read(self, category: Category) -> Reading:
        seed = int(category.name[1:])
        pooled = np.random.default_rng(seed).normal(seed, 1, size=(NUM_IMAGES, WIDTH))
        images = image_set(NUM_IMAGES, pooled=pooled, seed=seed)
        reads = [replace(each, sha256=f"{seed:08x}{each.sha256[8:]}") for each in images.reads]
        images = replace(images, name=category.name, reads=reads)
        return Reading(category=category, images=images, space="s", findings=())


def scale(num_categories: int) -> None:
    names = [f"c{number}" for number in range(num_categories)]
    categories = (Category(name=name, images=f"/{name}") for name in names)
    started, done = time.monotonic(), 0

    def told(_: Any) -> None:
        nonlocal done
        done += 1
        if done in (10, 100, num_categories // 2, num_categories):
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
            say(f"{done} categories: peak {peak:.0f} MB, {time.monotonic() - started:.0f} s")

    reader: Any = MadeUp()
    inspection = inspect_catalogue("made-up", categories, reader, told)
    files = inspection.files()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    sizes = ", ".join(f"{name} {len(content) / 1e6:.1f} MB" for name, content in files.items())
    say(f"across all: peak {peak:.0f} MB, {time.monotonic() - started:.0f} s; {sizes}")


if __name__ == "__main__":
    main()
