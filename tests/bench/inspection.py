"""What an inspection is worth: defects planted among good images, and a thousand categories.

python -m tests.bench.inspection CATALOGUE [--only NAME] [--seeds 3] [--features URI]
python -m tests.bench.inspection CATALOGUE --strangers [--features URI]
python -m tests.bench.inspection CATALOGUE --only NAME --onboarding
python -m tests.bench.inspection --categories 1000

Planted: a share of the training images is replaced by defective test images, which leave the test
set of every arm. A memory bank is fitted to what is there (report), without the suspects (drop),
and without the planted ones (clean).
"""

import argparse
import resource
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
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
from pipeline.data_report.category_reading import Reader, Reading
from pipeline.data_report.inspection import inspect_catalogue
from pipeline.feature_store.embedder import embedder_of
from pipeline.feature_store.place import named_place
from pipeline.images.batches import read_all
from pipeline.images.fingerprint import fingerprint
from pipeline.inspection.data_checks import examine
from pipeline.inspection.known_categories import KnownCategories, collect
from pipeline.inspection.suspects import are_suspects, unseen_scores
from pipeline.inspection.training_summary import describe, summary_of
from pipeline.onboarding.contamination import inspect_good
from pipeline.onboarding.features import GoodImages, extract
from pipeline.onboarding.finish import write_package
from pipeline.onboarding.listed_images import list_images
from pipeline.onboarding.prepare import compare, prepare
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
    parser.add_argument("--strangers", action="store_true")
    parser.add_argument("--onboarding", action="store_true")
    arguments = parser.parse_args()
    if arguments.categories:
        scale(arguments.categories)
    if not arguments.catalogue:
        return
    categories = select(load_catalogue(arguments.catalogue), arguments.only)
    if arguments.strangers:
        distances(categories, arguments.features)
        return
    for category in categories:
        if arguments.onboarding:
            cost(category)
        else:
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


def distances(categories: Sequence[Category], features: str | None) -> None:
    """Say how far images lie from each category, in units of its summary's ``usual``."""
    reader = Reader(named_place(features))
    read = {category.name: reader.read(category) for category in categories}
    for name, reading in read.items():
        own, images = summary_of(reading.images, reading.space), reading.images
        assert own is not None
        is_bad = np.array([not sample.is_good for sample in images.samples])
        is_test = np.array([sample.split == "test" for sample in images.samples])
        others = [r.images.pooled[r.images.trained_on] for n, r in read.items() if n != name]
        sets = {
            "good test images": images.pooled[is_test & ~is_bad],
            "defects": images.pooled[is_bad],
            "others": np.concatenate([images.pooled[:0], *others]),
        }
        for what, rows in sets.items():
            relative = own.distances(rows) / own.usual
            if len(relative):
                say(f"{name}, {len(rows)} {what}: {relative.min():.2f} to {relative.max():.2f}")


def cost(category: Category) -> None:
    """Say what part of an onboarding's CPU time its checks of images are."""
    started = time.process_time()
    prepared = prepare(category)
    for _ in prepared.trainer.run():
        pass
    with TemporaryDirectory() as folder:
        write_package(prepared, Path(folder))
        total = time.process_time() - started
        own = prepared.described
        assert own.summary is not None
        summary, file = own.summary, f"{folder}/summaries.json"
        champions = {f"c{number}": "digest" for number in range(1000)}
        collect(file, champions, lambda name: replace(own, summary=replace(summary, name=name)))
        known = KnownCategories(file)
        pixels = [image.pixels for image in read_all(prepared.good.uris, category.preprocessing)]
        images = replace(prepared.good.images)  # nothing of it is cached
        parts = {
            "checks": lambda: inspect_good(images),
            "summary": lambda: describe(images, summary.space),
            "fingerprints": lambda: [fingerprint(each) for each in pixels if each is not None],
            "1,000 summaries read, once a slot": lambda: known.of_space(summary.space),
            "compared with them": lambda: compare(prepared, known),
        }
        say(f"{category.name}, {category.detector}: {total:.1f} CPU seconds")
        for name, work in parts.items():
            started = time.process_time()
            work()
            seconds = time.process_time() - started
            say(f"  {name}: {seconds:.2f} s, {seconds / total:.2%}")


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
