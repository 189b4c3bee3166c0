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

    def setup(self, config: dict[str, Any], context: StudyContext | None = None) -> None:
        """Begin a trial; ``context`` comes with every process, ``config`` with every trial."""
        assert context is not None
        torch.set_num_threads(context.threads)
        self.context = context
        self.trial = StudyTrial(context, decode(config, context.study.space))

    def step(self) -> dict[str, Any]:
        """Train to the next rung."""
        told = self.trial.advance(self.iteration)
        for name, run in self.trial.runs.items():
            uri = storage.join(self.context.heads, self.trial_id, f"{name}.safetensors")
            keep_head(run.folded(), uri)
        return told

    def cleanup(self) -> None:
        """Give the copies of features back; Ray may kill this process before it ends by itself."""
        own_copies().close()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial in this process."""
        self.trial = StudyTrial(self.context, decode(new_config, self.context.study.space))
        return True


@ray.remote(max_retries=2)
def embed(view: FeatureView, folds: FoldPlan, uri: str, labelled: LabelledSet | None) -> Passes:
    """Write a view's sets; return what it took."""
    return build_view(view, folds, uri, labelled, own_device())


@ray.remote(max_retries=2)
def embed_test(view: FeatureView, uri: str) -> Passes:
    """Write a view's test images; return what it took."""
    return build_test(view, uri, own_device())


@ray.remote(max_retries=2)
def repeat(
    context: StudyContext, configuration: dict[str, Any], category: str, number: int
) -> Repeat:
    """Train a finalist again."""
    torch.set_num_threads(context.threads)
    return train_again(context, configuration, category, number)


@ray.remote(max_retries=2)
def measure(
    context: StudyContext, configuration: dict[str, Any], heads: str
) -> dict[str, dict[str, float]]:
    """Measure a trial's heads on test images."""
    torch.set_num_threads(context.threads)
    return measure_heads(context, configuration, heads)


@ray.remote(max_retries=2)
def measure_repeat(
    context: StudyContext, configuration: dict[str, Any], category: str, number: int
) -> dict[str, float]:
    """Measure a finalist's training on test images."""
    torch.set_num_threads(context.threads)
    return measure_again(context, configuration, category, number)
