"""What each Ray Train worker does for a bank. No MLflow: every worker imports this module."""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import Checkpoint

from jobs.cluster.progress_board import Reporter
from model.diffusion.denoiser_trainer import REPORT_STEPS, DenoiserTrainer, Workers
from model.errors import NightshiftError
from pipeline.backbones import own_device
from pipeline.synthesis import synthesis
from pipeline.synthesis.bank_order import BankOrder
from pipeline.synthesis.training_images import read_training_images

logger = logging.getLogger(__name__)

STATE_FILE = "denoiser.pt"
NUM_CHECKPOINTS = 20  # over a training: what is lost at most is a twentieth of it

Tell = Callable[[str, int, int], None]


def run(config: dict[str, Any]) -> None:
    """Read the images, train from where it stopped, and draw what the bank still lacks.

    All workers report as often as each other, for they wait for one another when they do; the
    first one's checkpoint counts.
    """
    order = BankOrder.of_plain(config["order"])
    workers = own_workers()
    tell = Reporter(config["board"], order.category.name).tell if workers.rank == 0 else _be_silent
    torch.set_num_threads(config["threads"])
    trainer = None
    try:
        images = read_training_images(
            order.category, order.training.size, lambda done, total: tell("images", done, total)
        )
        trainer = synthesis.make_trainer(order, images, own_device(), workers)
        _train(trainer, tell)
        synthesis.fill(order, trainer, lambda done, total: tell("drawing", done, total))
        _report(trainer, synthesis.facts_of(trainer, images))
        tell("done", 1, 1)
    except NightshiftError as error:  # trying again would not help
        logger.info("a bank of %s failed", order.category.name, exc_info=True)
        _report(trainer, {"error": str(error)})


def own_workers() -> Workers:
    """Return who this worker is, and how it adds up with the others."""
    context = ray.train.get_context()
    return Workers(
        rank=context.get_world_rank(),
        size=context.get_world_size(),
        add_up=torch.distributed.all_reduce,
    )


def _train(trainer: DenoiserTrainer, tell: Tell) -> None:
    restore(trainer, ray.train.get_checkpoint())
    num_steps = trainer.config.num_steps
    every = max(1, num_steps // NUM_CHECKPOINTS // REPORT_STEPS)
    for _ in trainer.run():
        tell("training", trainer.step, num_steps)
        if trainer.step // REPORT_STEPS % every == 0:
            _report(trainer, {"step": trainer.step, "loss": trainer.loss})


def restore(trainer: DenoiserTrainer, checkpoint: Checkpoint | None) -> None:
    """Go on from a checkpoint, if there is one that holds a training."""
    if checkpoint is None:
        return
    with checkpoint.as_directory() as folder:
        path = Path(folder, STATE_FILE)
        if path.exists():
            device = trainer.images.device
            trainer.load_state_dict(torch.load(path, map_location=device, weights_only=True))
            logger.info("resumed at step %d", trainer.step)


def _report(trainer: DenoiserTrainer | None, metrics: dict[str, Any]) -> None:
    """Report with a checkpoint, without which Ray Train forgets the metrics.

    What was trained before stays in it, whatever went wrong since.
    """
    if trainer is not None and trainer.workers.rank > 0:
        ray.train.report(metrics)
        return
    before = ray.train.get_checkpoint()
    if trainer is None and before is not None:
        ray.train.report(metrics, checkpoint=before)
        return
    with tempfile.TemporaryDirectory() as folder:
        if trainer is not None:
            torch.save(trainer.state_dict(), Path(folder, STATE_FILE))
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))


def _be_silent(_stage: str, _done: int, _total: int) -> None:
    """Leave telling to the first worker."""
