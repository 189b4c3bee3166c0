"""One category's evaluation with one detector or several, a Ray task.

Apart from ``jobs/evaluate/evaluate.py`` because every worker imports this module: no MLflow here.
"""

import logging
from dataclasses import dataclass, replace
from typing import Any

import ray
import torch

from jobs.cluster.join import Resources, reason
from jobs.cluster.progress_board import Reporter
from pipeline.backbones import own_device
from pipeline.catalogue.catalogue import Category
from pipeline.evaluation.plots import draw
from pipeline.evaluation.protocol import CategoryResult, Protocol
from pipeline.evaluation.tables import scores_csv
from pipeline.feature_store.place import StorePlace

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A category's result and the files that show it."""

    result: CategoryResult
    files: dict[str, bytes]  # by name


@ray.remote(max_retries=2)
def measure(
    variants: dict[str, dict[str, Any]],
    num_seeds: int,
    resources: Resources,
    board: Any,
    features: StorePlace | None,
) -> dict[str, Measured | str]:
    """Run the protocol of a category's variants in a process of its own, and draw what it found.

    A variant that fails has the reason in its place and never stops the others.
    """
    torch.set_num_threads(resources.cpus)
    checked = {name: Category.model_validate(variant) for name, variant in variants.items()}
    reporter = Reporter(board, next(iter(checked.values())).name)
    protocol = Protocol(
        num_seeds=num_seeds, progress=reporter.tell, device=own_device(), features=features
    )
    return {name: _measured(protocol, category) for name, category in checked.items()}


def _measured(protocol: Protocol, category: Category) -> Measured | str:
    try:
        result = protocol.measure(category)
    except Exception as error:  # one bad variant never stops the others
        logger.info("evaluating %s failed", category.name, exc_info=True)
        return reason(error)
    files = {**draw(result), "scores.csv": scores_csv(result).encode()}
    return Measured(result=replace(result, tiles=()), files=files)  # tiles are in the picture
