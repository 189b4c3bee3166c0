"""How should an image's score join four heads? Every rule on the same scores, paired.

A rule looks at unseen good images and synthetic anomalies alone and returns what joins the four; so
no test label can choose a weight. A task is one kind of defect of one data set with one backbone;
the table gives each rule's mean AUROC over the tasks, its change against SimpleNet's own rule with
an interval by bootstrap over images and seeds, and the change on each data set. The last lines
let all data sets but one choose a fixed rule for that one.

python -m tests.bench.head_weights CATALOGUE... [--only NAME] [--seeds 3] [--cache FOLDER]

Shapes: N images, 4 heads in the order of ``HEADS``, in the spread of good images' scores.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize

from pipeline.catalogue.catalogue import Category, load_catalogue, select
from pipeline.datasets.samples import GOOD
from pipeline.onboarding.prepare import prepare
from tests.bench.head_scores import HEADS, HeadScores, Strings, embed, score_heads

DRAWS = 500  # of the bootstrap
SHRINKAGE = 0.03  # of a category's weights towards equal ones

Floats = NDArray[np.floating]
Random = np.random.Generator
Join = Callable[[Floats], Floats]  # (N, 4) to (N,)
Rule = Callable[[HeadScores], Join]
Measured = Mapping[tuple[str, str], Sequence[HeadScores]]  # by data set and backbone, for each seed


def patch_and_image(z: Floats) -> Floats:
    """Join the first two as SimpleNet does."""
    joined: Floats = z[:, :2].max(axis=1) + 0.5 * z[:, :2].min(axis=1)
    return joined


def mean_of(*heads: str) -> Rule:
    """Return the rule that takes the mean of some heads, whatever the category."""
    chosen = [HEADS.index(head) for head in heads]
    return lambda _: lambda z: z[:, chosen].mean(axis=1)


def squeezed(z: Floats) -> Floats:
    """Let no head outshout the others: logarithmic far from the good images."""
    return np.sign(z) * np.log1p(np.abs(z))


def by_regression(scores: HeadScores) -> Join:
    """Weigh heads by how well they tell synthetic anomalies from good images, near to equally."""
    rows = squeezed(np.concatenate([scores.good, scores.synthetic]))
    labels = np.arange(len(rows)) >= len(scores.good)
    share_N = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())

    def loss(parameters: Floats) -> float:
        weights, bias = parameters[:4], parameters[4]
        logits = rows @ weights + bias
        uneven = np.square(weights / max(weights.mean(), 1e-6) - 1).sum()
        return float(share_N @ (np.logaddexp(0, logits) - labels * logits) + SHRINKAGE * uneven)

    bounds = [(0, None)] * 4 + [(None, None)]
    found = minimize(loss, [0.5] * 4 + [-1.0], method="L-BFGS-B", bounds=bounds).x[:4]
    return lambda z: squeezed(z) @ (found / found.sum())


def by_choice(scores: HeadScores) -> Join:
    """Take the fixed rule that finds most synthetic anomalies, each maker counting the same."""

    def found(rule: Rule) -> float:
        join = rule(scores)
        good, synthetic = join(scores.good), join(scores.synthetic)
        makers = np.unique(scores.makers)
        return float(np.mean([auroc(good, synthetic[scores.makers == m]) for m in makers]))

    return max(FIXED.values(), key=found)(scores)


FIXED: dict[str, Rule] = {
    "SimpleNet's: max + half the min": lambda _: patch_and_image,
    **{f"{head} alone": mean_of(head) for head in HEADS},
    "mean of patch, image": mean_of("patch", "image"),
    "mean of patch, pooled": mean_of("patch", "pooled"),
    "mean of patch, image, pooled": mean_of("patch", "image", "pooled"),
    "mean of patch, image, distance": mean_of("patch", "image", "distance"),
    "mean of patch, distance, pooled": mean_of("patch", "distance", "pooled"),
    "mean of all four": mean_of(*HEADS),
    "largest of all four": lambda _: lambda z: z.max(axis=1),
    "root of summed squares above 0": lambda _: lambda z: np.linalg.norm(np.maximum(z, 0), axis=1),
}
RULES = {**FIXED, "per category: regression": by_regression, "per category: choice": by_choice}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.head_weights", description=__doc__)
    parser.add_argument("catalogues", nargs="+", help="one for each backbone; calibration: cross")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=None, help="folder that keeps the scores")
    arguments = parser.parse_args()
    measured = {}
    for catalogue in arguments.catalogues:
        for category in select(load_catalogue(catalogue), arguments.only):
            scores = measure(category, arguments.seeds, arguments.cache)
            measured[category.name, category.backbone] = [in_spread(each) for each in scores]
    console = Console(highlight=False, width=240)
    for line in tables(measured):
        console.print(line)


def measure(category: Category, num_seeds: int, cache: Path | None) -> list[HeadScores]:
    """Return a category's scores for each seed, from the cache where they are there."""
    name = f"{category.name}_{category.backbone}"
    files = [cache / f"{name}_{seed}.npz" for seed in range(num_seeds)] if cache else []
    if files and all(file.exists() for file in files):
        return [HeadScores(**np.load(file)) for file in files]
    prepared = prepare(category)
    features = embed(prepared)
    scores = [score_heads(prepared, features, seed) for seed in range(num_seeds)]
    for file, each in zip(files, scores, strict=False):
        np.savez(file, **vars(each))
    return scores


def in_spread(scores: HeadScores) -> HeadScores:
    """Express scores in the mean and spread of unseen good images."""
    mean, std = scores.good.mean(axis=0), scores.good.std(axis=0)
    good, synthetic, test = (
        (each - mean) / std for each in (scores.good, scores.synthetic, scores.test)
    )
    return replace(scores, good=good, synthetic=synthetic, test=test)


def auroc(good: Floats, anomalous: Floats) -> float:
    """Percent of pairs in which the anomalous image scores higher; ties count half."""
    ordered = np.sort(good)
    below = [np.searchsorted(ordered, anomalous, side=side).mean() for side in ("left", "right")]
    return 100 * float(np.mean(below)) / len(good)


def join_test(measured: Measured) -> dict[tuple[str, str], Floats]:
    """Return what each rule says of each test image, (rules, seeds, N)."""
    return {
        key: np.array([[rule(each)(each.test) for each in seeds] for rule in RULES.values()])
        for key, seeds in measured.items()
    }


def by_data_set(
    joined: Mapping[tuple[str, str], Floats], defects: Mapping[str, Strings], random: Random | None
) -> list[Floats]:
    """Return each data set's AUROCs (tasks, rules), means over seeds.

    With random numbers, of images and seeds drawn with replacement: the same images for all
    backbones and rules, as many of every kind as there are.
    """
    found = []
    for name, kinds in defects.items():
        index = {kind: np.flatnonzero(kinds == kind) for kind in np.unique(kinds)}
        if random:
            index = {kind: random.choice(own, len(own)) for kind, own in index.items()}
        good, rows = index.pop(GOOD), []
        for scores in [each for (data_set, _), each in joined.items() if data_set == name]:
            num_seeds = scores.shape[1]
            seeds = random.integers(num_seeds, size=num_seeds) if random else range(num_seeds)
            for bad in index.values():
                drawn = [[auroc(one[s, good], one[s, bad]) for s in seeds] for one in scores]
                rows.append(np.mean(drawn, axis=1))
        found.append(np.array(rows))
    return found


def tables(measured: Measured) -> Iterator[Table | str]:
    """Yield the table of all rules, and what choosing without a data set gives it."""
    joined = join_test(measured)
    defects = {name: seeds[0].defects for (name, _), seeds in measured.items()}
    random = np.random.default_rng(0)
    draws = [by_data_set(joined, defects, None)]
    draws += [by_data_set(joined, defects, random) for _ in range(DRAWS)]
    apart = np.array([[each.mean(axis=0) for each in draw] for draw in draws])  # (., sets, rules)
    whole = np.array([np.concatenate(draw).mean(axis=0) for draw in draws])[:, None]
    every = np.concatenate([whole, apart], axis=1)
    changes = every - every[:, :, :1]
    low, high = np.quantile(changes[1:], [0.025, 0.975], axis=0)
    table = Table("rule", f"mean of {sum(map(len, draws[0]))} tasks", "change", *defects)
    for number, rule in enumerate(RULES):
        columns = (each[:, number] for each in (changes[0], low, high))
        cells = [
            f"{change:+.2f} [{a:+.2f}, {b:+.2f}]" for change, a, b in zip(*columns, strict=True)
        ]
        table.add_row(rule, f"{whole[0, 0, number]:.2f}", *cells)
    yield table
    for place, name in enumerate(defects):
        others = np.delete(changes[0, 1:, : len(FIXED)], place, axis=0).mean(axis=0)
        best = int(others.argmax())
        gain = changes[0, 1 + place, best]
        yield f"{name}: the other data sets choose {list(FIXED)[best]!r}, here {gain:+.2f}"


if __name__ == "__main__":
    main()
