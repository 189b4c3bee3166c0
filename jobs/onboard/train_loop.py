"""What a Ray Train worker does for one category. No MLflow: every worker imports this module."""

import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import Checkpoint

from jobs.terminal.progress import Reporter
from model.errors import NightshiftError
from pipeline.backbones import own_device
from pipeline.catalogue.catalogue import Category
from pipeline.onboarding.finish import write_package
from pipeline.onboarding.prepare import prepare
from pipeline.package import HEAD_FILE

logger = logging.getLogger(__name__)

STATE_FILE, ERROR_FILE = "trainer.pt", "error.json"


def run(config: dict[str, Any]) -> None:
    """Prepare, train from where it stopped, write the package."""
    category = Category.model_validate(config["category"])
    reporter = Reporter(config["board"], category.name)
    torch.set_num_threads(config["threads"])
    state = restore(ray.train.get_checkpoint())
    if state == "finished":
        return
    try:
        _train(category, state, reporter, config)
    except NightshiftError as error:  # trying again would not help; the category is reported
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, ERROR_FILE).write_text(json.dumps({"error": str(error)}))
            ray.train.report({"failed": 1}, checkpoint=Checkpoint.from_directory(folder))


def _train(category: Category, state: Any, reporter: Reporter, config: dict[str, Any]) -> None:
    if state is not None:  # another try on another machine might choose another
        category = category.model_copy(update={"precision": state["precision"]})
    prepared = prepare(
        category,
        lambda done, total: reporter.tell("features", done, total),
        own_device(),
        config["features"],
    )
    trainer = prepared.trainer
    if state is not None:
        trainer.load_state_dict(state)
        logger.info("resumed %s at pass %d", category.name, len(trainer.reports))
    saved = time.monotonic()
    for report in trainer.run():
        passes = len(trainer.reports)
        reporter.tell("training", passes, trainer.num_passes)
        if time.monotonic() - saved >= config["checkpoint_every_s"]:
            with tempfile.TemporaryDirectory() as folder:
                kept = {"precision": prepared.backbone.config.precision}
                torch.save(trainer.state_dict() | kept, Path(folder, STATE_FILE))
                checkpoint = Checkpoint.from_directory(folder)
                ray.train.report({"pass": passes, **vars(report)}, checkpoint=checkpoint)
            saved = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        write_package(prepared, Path(folder))
        metrics = {"pass": len(trainer.reports), **vars(trainer.reports[-1][1])}
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))
    reporter.tell("done", 1, 1)


def restore(checkpoint: Checkpoint | None) -> Any:
    """Return the trainer's saved state, "finished", or None to start anew."""
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        if Path(folder, HEAD_FILE).exists():
            return "finished"
        if Path(folder, STATE_FILE).exists():
            return torch.load(Path(folder, STATE_FILE), weights_only=True)
    return None  # it failed for a reason that may be gone now
