"""What a Ray Train worker does: it onboards category after category of a queue.

No MLflow: every worker imports this module.
"""

import logging
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch

from jobs.cluster.beside import ask
from jobs.cluster.join import reason
from jobs.cluster.progress_board import DONE, FAILED, Reporter
from jobs.cluster.work_queue import Job
from jobs.onboard.ahead import Ahead, Begun
from model.errors import NightshiftError
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
        """Onboard categories until none waits.

        A category that is no good is reported. Another error may have left the process in a bad
        state, and ends it: Ray Train starts a new one, which tries once more.
        """
        worker, node = uuid.uuid4().hex, ray.get_runtime_context().get_node_id()
        num_done = 0
        while (job := self._take(worker, node)) is not None:
            try:
                error = self._onboard(job)
            except Exception as unexpected:
                ask(self.queue.explain, self.slot, reason(unexpected))
                raise
            ask(self.queue.end, self.slot, job.name, error)
            num_done += 1
            ray.train.report({"categories": num_done})

    def _take(self, worker: str, node: str) -> Job | None:
        job: Job | None = ask(self.queue.take, self.slot, worker, node)
        return job

    def _onboard(self, job: Job) -> str | None:
        """Leave the category's package in its place, or say why there is none."""
        reporter = Reporter(self.queue, job.name)
        try:
            files = UnfinishedOnboarding(job.payload["place"])
            if not files.is_complete:
                begun = self.ahead.take(job)
                if self.makes_ahead:
                    self.ahead.start(ask(self.queue.ahead, self.slot))
                self._train(begun, files, reporter)
        except NightshiftError as error:  # trying again would not help
            reporter.tell(FAILED, 1, 1)
            return reason(error)
        reporter.tell(DONE, 1, 1)
        return None

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
            lambda config: self.backbone(config).to(own_device()),
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
    OnboardingWorker(**config, backbone=LoadedBackbone(), others=others).work()
