"""What a slot's worker does: it evaluates category after category, each with all its detectors.

Apart from ``jobs/evaluate/evaluate.py`` because every worker imports this module: no MLflow here.
"""

import logging
from dataclasses import dataclass, replace
from typing import Any

import torch

from jobs.cluster.join import reason
from jobs.cluster.progress_board import Reporter
from jobs.cluster.slot_worker import work_through
from jobs.cluster.work_queue import Job
from pipeline.backbones import LoadedBackbone, own_device
from pipeline.catalogue.catalogue import Category
from pipeline.evaluation.plots import draw
from pipeline.evaluation.protocol import CategoryResult, Protocol
from pipeline.evaluation.tables import scores_csv

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A category's result and the files that show it."""

    result: CategoryResult
    files: dict[str, bytes]  # by name


def run(config: dict[str, Any]) -> None:
    """Work through the queue: what the task does.

    A job's payload is a category's variants, by detector, which share what they have in common; a
    variant that fails has the reason in its place and never stops the others.
    """
    torch.set_num_threads(config["threads"])
    backbone = LoadedBackbone(own_device())

    def measure(job: Job, reporter: Reporter) -> dict[str, Measured | str]:
        protocol = Protocol(
            num_seeds=config["num_seeds"],
            progress=reporter.tell,
            features=config["features"],
            fetch=backbone,
        )
        checked = {name: Category.model_validate(each) for name, each in job.payload.items()}
        return {name: _measured(protocol, category) for name, category in checked.items()}

    work_through(config["queue"], config["slot"], measure)


def _measured(protocol: Protocol, category: Category) -> Measured | str:
    try:
        result = protocol.measure(category)
    except Exception as error:  # one bad variant never stops the others
        logger.info("evaluating %s failed", category.name, exc_info=True)
        return reason(error)
    files = {**draw(result), "scores.csv": scores_csv(result).encode()}
    return Measured(result=replace(result, tiles=()), files=files)  # tiles are in the picture
