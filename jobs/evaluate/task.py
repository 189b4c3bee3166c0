"""One category's evaluation with one detector or several, a Ray task.

Apart from ``jobs/evaluate/evaluate.py`` because every worker imports this module: no MLflow here.
"""

from dataclasses import dataclass, replace
from typing import Any

import ray
import torch

from jobs.cluster.join import Resources
from jobs.terminal.progress import Reporter
from pipeline.backbones import own_device
from pipeline.catalogue.catalogue import Category
from pipeline.evaluation.plots import draw
from pipeline.evaluation.protocol import CategoryResult, run_protocols
from pipeline.evaluation.tables import scores_csv


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A category's result and the files that show it."""

    result: CategoryResult
    files: dict[str, bytes]  # by name


@ray.remote(max_retries=2)
def measure(
    variants: dict[str, dict[str, Any]], num_seeds: int, resources: Resources, board: Any
) -> dict[str, Measured]:
    """Run the protocol of a category's variants in a process of its own, and draw what it found."""
    torch.set_num_threads(resources.cpus)
    checked = {name: Category.model_validate(variant) for name, variant in variants.items()}
    reporter = Reporter(board, next(iter(checked.values())).name)
    measured = {}
    for name, result in run_protocols(checked, num_seeds, reporter.tell, own_device()):
        files = {**draw(result), "scores.csv": scores_csv(result).encode()}
        measured[name] = Measured(result=replace(result, tiles=()), files=files)  # in the picture
    return measured
