"""What runs on the cluster for a study: features, trials of the search, finalists, the check.

Apart from ``jobs/study/tune.py`` because every worker imports this module: no MLflow here.
"""

from typing import Any

import ray
import torch
from ray import tune

from pipeline import storage
from pipeline.backbones import own_device
from pipeline.study.check import build_test, keep_head, measure_again, measure_heads
from pipeline.study.feature_copies import own_copies
from pipeline.study.feature_view import FeatureView
from pipeline.study.run import Repeat, StudyContext, StudyTrial, train_again
from pipeline.study.sets import FoldPlan, Passes, build_view
from pipeline.study.settings import LabelledSet
from pipeline.study.space import decode


class TuneTrial(tune.Trainable):
    """A trial as Ray Tune runs it: a step is a rung. Its process is used for the next one too."""

    def setup(self, config: dict[str, Any], plan: StudyContext | None = None) -> None:
        """Begin a trial; ``plan`` comes with every process, ``config`` with every trial."""
        assert plan is not None
        torch.set_num_threads(plan.threads)
        self.plan = plan
        self.trial = StudyTrial(plan, decode(config, plan.study.space))

    def step(self) -> dict[str, Any]:
        """Train to the next rung."""
        told = self.trial.advance(self.iteration)
        for name, run in self.trial.runs.items():
            place = storage.join(self.plan.heads, self.trial_id, f"{name}.safetensors")
            keep_head(run.folded(), place)
        return told

    def cleanup(self) -> None:
        """Give the copies of features back; Ray may kill this process before it ends by itself."""
        own_copies().close()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial in this process."""
        self.trial = StudyTrial(self.plan, decode(new_config, self.plan.study.space))
        return True


@ray.remote(max_retries=2)
def embed(view: FeatureView, folds: FoldPlan, place: str, labelled: LabelledSet | None) -> Passes:
    """Write a view's sets; return what it took."""
    return build_view(view, folds, place, labelled, own_device())


@ray.remote(max_retries=2)
def embed_test(view: FeatureView, place: str) -> Passes:
    """Write a view's test images; return what it took."""
    return build_test(view, place, own_device())


@ray.remote(max_retries=2)
def repeat(plan: StudyContext, configuration: dict[str, Any], category: str, number: int) -> Repeat:
    """Train a finalist again."""
    torch.set_num_threads(plan.threads)
    return train_again(plan, configuration, category, number)


@ray.remote(max_retries=2)
def measure(
    plan: StudyContext, configuration: dict[str, Any], heads: str
) -> dict[str, dict[str, float]]:
    """Measure a trial's heads on test images."""
    torch.set_num_threads(plan.threads)
    return measure_heads(plan, configuration, heads)


@ray.remote(max_retries=2)
def measure_repeat(
    plan: StudyContext, configuration: dict[str, Any], category: str, number: int
) -> dict[str, float]:
    """Measure a finalist's training on test images."""
    torch.set_num_threads(plan.threads)
    return measure_again(plan, configuration, category, number)
