"""What a Ray Train worker does: it onboards category after category of a queue.

No MLflow: every worker imports this module.
"""

import logging
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray.train
import torch

from jobs.cluster.beside import ask
from jobs.cluster.progress_board import Reporter
from jobs.cluster.slot_worker import work_through
from jobs.cluster.work_queue import Job
from jobs.onboard.ahead import Ahead, Begun
from pipeline.backbones import LoadedBackbone, own_device
from pipeline.catalogue.catalogue import Category
from pipeline.feature_store.place import StorePlace
from pipeline.inspection.known_categories import KnownCategories
from pipeline.onboarding.finish import write_package
from pipeline.onboarding.prepare import compare, prepare
from pipeline.onboarding.unfinished import UnfinishedOnboarding

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class OnboardingWorker:
    """One worker, with what it keeps from category to category.

    A job's payload is the ``category``, what was ``told`` by labels when its key was made, and the
    ``place`` of its own files, from which a worker that was started anew goes on.
    """

    queue: Any
    slot: str
    checkpoint_every_s: float
    features: StorePlace | None
    backbone: LoadedBackbone
    others: KnownCategories
    makes_ahead: bool  # the next category ready, beside the one that trains
    ahead: Ahead = field(init=False)

    def __post_init__(self) -> None:
        self.ahead = Ahead(self._begin)

    def work(self) -> None:
        """Onboard categories until none waits."""
        work_through(
            self.queue,
            self.slot,
            self._onboard,
            after=lambda n: ray.train.report({"categories": n}),
        )

    def _onboard(self, job: Job, reporter: Reporter) -> None:
        """Leave the category's package in its place.

        Raises:
            NightshiftError: there is none, and trying again would not help.
        """
        files = UnfinishedOnboarding(job.payload["place"])
        if not files.is_complete:
            begun = self.ahead.take(job)
            if self.makes_ahead:
                self.ahead.start(ask(self.queue.ahead, self.slot))
            self._train(begun, files, reporter)

    def _begin(self, job: Job) -> Begun:
        """Read, split and embed a category's images."""
        reporter = Reporter(self.queue, job.name)
        category = Category.model_validate(job.payload["category"])
        state = UnfinishedOnboarding(job.payload["place"]).load()
        if state is not None:  # another try on another machine might choose another
            category = category.model_copy(update={"precision": state["precision"]})
        prepared = prepare(
            category,
            lambda done, total: reporter.tell("features", done, total),
            self.features,
            self.backbone,
            job.payload["told"],
        )
        return Begun(prepared=compare(prepared, self.others), state=state)

    def _train(self, begun: Begun, files: UnfinishedOnboarding, reporter: Reporter) -> None:
        """Train from where it stopped, write the package."""
        prepared, trainer = begun.prepared, begun.prepared.trainer
        if begun.state is not None:
            trainer.load_state_dict(begun.state)
            name = prepared.category.name
            logger.info("resumed %s at pass %d", name, len(trainer.reports))
        precision = {"precision": prepared.backbone.config.precision}
        saved = time.monotonic()
        for _ in trainer.run():
            reporter.tell("training", len(trainer.reports), trainer.num_passes)
            if time.monotonic() - saved >= self.checkpoint_every_s:
                files.save(trainer.state_dict() | precision)
                self.queue.keep.remote(self.slot)
                saved = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="nightshift-package-") as folder:
            write_package(prepared, Path(folder))
            files.save_package(Path(folder))


def run(config: dict[str, Any]) -> None:
    """Work through the queue: what Ray Train calls."""
    torch.set_num_threads(config.pop("threads"))
    others = KnownCategories(config.pop("summaries"))
    backbone = LoadedBackbone(own_device())
    OnboardingWorker(**config, backbone=backbone, others=others).work()
