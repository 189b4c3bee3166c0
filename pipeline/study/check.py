"""After the choice: does the objective rank trials as labelled test images do?

Trials keep their heads; once the choice is written, and only then, test images are embedded and
every kept head scores them. What comes out is a check of the study, never a choice.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from model.folding import FoldedHead
from pipeline import storage
from pipeline.backbones import Fetch, fetch_backbone, own_device
from pipeline.datasets.samples import has_both_kinds, of_split
from pipeline.onboarding.listed_images import list_images
from pipeline.study.choice import difference, mean_interval
from pipeline.study.feature_view import FeatureView, is_there, view_key
from pipeline.study.objective import METRICS
from pipeline.study.records import TrialRecord
from pipeline.study.run import StudyContext
from pipeline.study.sets import Passes, embedder_of_view, ranged, write_labelled
from pipeline.study.space import Configuration
from pipeline.study.trial import evaluate_labelled

TEST = "test"
Measured = tuple[TrialRecord, Mapping[str, Mapping[str, float]]]  # test metrics by category
RESAMPLES = 2000  # of the bootstrap


def keep_head(head: FoldedHead, uri: str) -> None:
    """Write a head."""
    from safetensors.torch import save  # noqa: PLC0415  only files need it

    tensors = {name: value.contiguous().cpu() for name, value in head.state_dict().items()}
    storage.write_bytes(uri, save(tensors))


def read_head(uri: str) -> FoldedHead:
    """Read what ``keep_head`` wrote."""
    from safetensors.torch import load  # noqa: PLC0415

    return FoldedHead(load(storage.read_bytes(uri)))


def build_test(view: FeatureView, features: str, fetch: Fetch = fetch_backbone) -> Passes:
    """Embed a view's labelled test images; return what it took, nothing without labels."""
    if is_there(storage.join(features, TEST)):
        return Passes()
    category = view.category
    samples = list_images(category).samples
    test = of_split(samples, "test")
    if not has_both_kinds(test):
        return Passes()
    view = ranged(view, samples)
    embedder = embedder_of_view(view, fetch)
    num_images = write_labelled(view, test, embedder, storage.join(features, TEST))
    return Passes(num_images, embedder.backbone.num_images_seen)


def measure_heads(
    context: StudyContext, configuration: Configuration, heads: str
) -> dict[str, dict[str, float]]:
    """Return the test metrics of a trial's heads by category, where there are labels and heads."""
    found = {}
    for category in context.study.categories:
        variant = context.study.apply(configuration, category)
        features = storage.join(context.features[f"{category.name} {view_key(variant)}"], TEST)
        uri = storage.join(heads, f"{category.name}.safetensors")
        if is_there(features) and storage.exists(uri):
            head = read_head(uri).to(own_device())
            found[category.name] = evaluate_labelled(
                head, features, variant, own_device()
            ).metrics()
    return found


def correlations(trials: Sequence[Measured]) -> dict[str, Any]:
    """Return, by category, how the objective ranks trials and how test images do.

    A trial that was stopped early is compared as it stood: its objective and its test metrics are
    of the same head.
    """
    found: dict[str, Any] = {}
    for name in sorted({name for _, measured in trials for name in measured}):
        own = [(record, measured[name]) for record, measured in trials if name in measured]
        whole = [pair for pair in own if pair[0].is_whole]
        found[name] = {
            "all_trials": _by_metric(own, name),
            "whole_trials": _by_metric(whole, name),
            "points": [
                {"objective": record.of(name), "share": record.rungs[-1]["share"], **metrics}
                for record, metrics in own
            ],
        }
    return found


def _by_metric(
    trials: Sequence[tuple[TrialRecord, Mapping[str, float]]], category: str
) -> dict[str, Any]:
    """Return the rank correlation of the objective with each test metric."""
    names = [name for name in METRICS if all(name in metrics for _, metrics in trials)]
    objectives = [record.of(category) or 0.0 for record, _ in trials]
    return {
        name: rank_correlation(objectives, [metrics[name] for _, metrics in trials])
        for name in (names if trials else [])
    }


def measure_again(
    context: StudyContext, configuration: dict[str, Any], name: str, repeat: int
) -> dict[str, float]:
    """Return the test metrics of a finalist's training, made once more; nothing without labels."""
    run = context.run(configuration, name, repeat)
    features = storage.join(run.features, TEST)
    if not is_there(features):
        return {}
    run.train_to(1.0)
    return evaluate_labelled(run.folded(), features, run.category, own_device()).metrics()


def all_measured(repeats: Sequence[Mapping[str, float]]) -> bool:
    """Whether every repeat has test metrics: there are labels, and no process died."""
    return all(repeats)


def paired(
    best: Sequence[Mapping[str, float]], default: Sequence[Mapping[str, float]]
) -> dict[str, Any]:
    """Return, by test metric, the means of both sides and their paired difference."""
    names = [name for name in METRICS if all(name in each for each in [*best, *default])]
    found = {}
    for name in names:
        one, other = ([each[name] for each in side] for side in (best, default))
        found[name] = {
            "best": asdict(mean_interval(one)),
            "default": asdict(mean_interval(other)),
            "difference": asdict(difference(one, other)),
        }
    return found


def rank_correlation(
    first: Sequence[float], second: Sequence[float], seed: int = 0
) -> dict[str, float | int | None]:
    """Return Spearman's rank correlation with its bootstrap interval (95 %, over trials).

    There is none where one side never varies; resamples of which that is true are left out.
    """
    from scipy import stats  # noqa: PLC0415  a second to import, which no trial needs

    pairs = np.asarray(first, float), np.asarray(second, float)
    if len(first) < 3 or min(np.ptp(side) for side in pairs) == 0:
        return {"value": None, "low": None, "high": None, "trials": len(first)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of resamples in which a side never varies
        resampled = stats.bootstrap(
            pairs,
            lambda x, y: stats.spearmanr(x, y).statistic,
            paired=True,
            vectorized=False,
            n_resamples=RESAMPLES,
            method="percentile",
            rng=seed,
        ).bootstrap_distribution
    low, high = np.nanquantile(resampled, [0.025, 0.975]).tolist()
    value = float(stats.spearmanr(*pairs).statistic)
    return {"value": value, "low": low, "high": high, "trials": len(first)}
