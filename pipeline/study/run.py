"""The unit of a study: one configuration over all its categories, in one process, in three rungs.

A head trains in seconds, so that a process of its own would cost more than it does. Every rung
ends with a judgement; a scheduler may stop the trial there.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from model.errors import NightshiftError, ServiceAway
from pipeline.backbones import own_device
from pipeline.study.feature_view import view_key
from pipeline.study.objective import Scored, objective
from pipeline.study.settings import Study
from pipeline.study.space import Configuration
from pipeline.study.trial import HeadRun, Split

logger = logging.getLogger(__name__)

RUNGS = (0.25, 0.5, 1.0)  # shares of a training after which it is scored
WORST = 0.0  # objective of a training that failed


@dataclass(frozen=True, kw_only=True)
class StudyContext:
    """What every worker of a study needs to know."""

    study: Study
    features: Mapping[str, str]  # of each view's sets, by category's name and ``view_key``
    heads: str  # where trials keep their heads until the check
    threads: int = 1

    def run(self, configuration: Configuration, name: str, repeat: int) -> HeadRun:
        """Return the training of one category, not begun.

        Repeat 0 is the search; every other one has a seed and a fold left out of its own.
        """
        settings = self.study.settings
        category = next(each for each in self.study.categories if each.name == name)
        variant = self.study.apply(configuration, category)
        fold = repeat % settings.num_folds
        split = Split(seed=settings.seed + repeat, fold=fold, members=settings.members)
        features = self.features[f"{name} {view_key(variant)}"]
        return HeadRun(variant, features, split, own_device())


@dataclass
class StudyTrial:
    """One configuration of the search."""

    context: StudyContext
    configuration: Configuration
    runs: dict[str, HeadRun] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def advance(self, rung: int) -> dict[str, Any]:
        """Train every category to the end of a rung and judge it; return plain values.

        Raises:
            ServiceAway: the features cannot be read now; called again, it goes on.
        """
        categories: dict[str, dict[str, float]] = {}
        curves: dict[str, list[float]] = {}
        kind = self.context.study.settings.objective
        for category in self.context.study.categories:
            name = category.name
            metrics = self._metrics(name, RUNGS[rung])
            value = objective(metrics, kind) if metrics else WORST
            categories[name] = {**metrics, "objective": value}
            curves[name] = self.runs[name].curve if name in self.runs else []
        values = [metrics["objective"] for metrics in categories.values()]
        return {
            "objective": sum(values) / len(values),
            "share": RUNGS[rung],
            "categories": categories,
            "curves": curves,
            "errors": dict(self.errors),
        }

    def _metrics(self, name: str, share: float) -> dict[str, float]:
        if name in self.errors:
            return {}
        try:
            if name not in self.runs:
                self.runs[name] = self.context.run(self.configuration, name, repeat=0)
            self.runs[name].train_to(share)
            return self.runs[name].evaluate().metrics()
        except ServiceAway:  # the category's images and settings may be good
            raise
        except NightshiftError as error:  # it would fail again; the search goes elsewhere
            logger.info("%s fails on %s", dict(self.configuration), name, exc_info=True)
            self.errors[name] = str(error)
            return {}


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """A whole training of a finalist with a seed and a fold of its own."""

    configuration: dict[str, Any]
    category: str
    repeat: int  # from 1
    metrics: dict[str, float]
    good_scores: list[float]  # of good images it has not seen
    anomalous_scores: list[float]
    error: str | None = None


def train_again(
    context: StudyContext, configuration: dict[str, Any], name: str, repeat: int
) -> Repeat:
    """Train a finalist to the end and judge it once.

    Raises:
        ServiceAway: the features cannot be read now.
    """
    metrics: dict[str, float] = {}
    scored: Scored | None = None
    error = None
    try:
        run = context.run(configuration, name, repeat)
        run.train_to(1.0)
        scored = run.evaluate()
        metrics = scored.metrics()
        metrics["objective"] = objective(metrics, context.study.settings.objective)
    except ServiceAway:
        raise
    except NightshiftError as failure:
        error, scored, metrics = str(failure), None, {"objective": WORST}
    return Repeat(
        configuration=configuration,
        category=name,
        repeat=repeat,
        metrics=metrics,
        good_scores=scored.scores[~scored.anomalous].tolist() if scored else [],
        anomalous_scores=scored.scores[scored.anomalous].tolist() if scored else [],
        error=error,
    )
