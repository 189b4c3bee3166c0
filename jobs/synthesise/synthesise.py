"""Make a bank of synthetic images: one Ray Train job, a worker for each accelerator.

The job's name follows from what is trained on and how, so that a run that was killed is found
again, and another bank of the same model needs no second training.
"""

from concurrent.futures import wait
from typing import Any

from jobs.cluster.join import cluster, num_accelerators, reason, resources_for
from jobs.cluster.progress_board import read_board, start_board
from jobs.cluster.train_run import TrainRun
from jobs.synthesise.synthesis_loop import run
from jobs.terminal.progress import Display
from model.errors import NightshiftError
from pipeline.synthesis import synthesis
from pipeline.synthesis.bank_folder import BankFolder
from pipeline.synthesis.bank_order import BankOrder, SynthesisError

SHOW_EVERY_S = 0.5


def synthesise(order: BankOrder, runs: str) -> tuple[dict[str, Any], bool]:
    """Make a bank, or find it made already; return its provenance, and whether it was found.

    Checkpoints lie in ``runs``, which every node must reach.

    Raises:
        SynthesisError: the folder holds something else, or the job failed.
        StorageError, ClusterError: the images, the folder or the cluster cannot be reached.
    """
    folder = BankFolder.of(order)
    known = folder.provenance()
    if known is not None:
        return known, True
    folder.begin()
    with cluster():
        facts = _run(order, runs)
    if "error" in facts:
        raise SynthesisError(f"{order.category.name}: {facts['error']}")
    return synthesis.finish(order, facts), False


def _run(order: BankOrder, runs: str) -> dict[str, Any]:
    """Run the job to its end, and show how far it is."""
    board, name = start_board(), order.category.name
    training = TrainRun(
        name=f"synthesise-{name}-{order.training_key[:16]}",
        runs=runs,
        resources=resources_for(1),
        num_workers=max(1, num_accelerators()),
    ).start(run, {"order": order.to_plain(), "board": board})
    with Display("synthesising").shown() as display:
        while not wait([training], timeout=SHOW_EVERY_S).done:
            display.update(read_board(board))
    try:
        metrics = training.result().metrics
    except NightshiftError:
        raise
    except Exception as error:
        raise SynthesisError(
            f"{name}: the job failed: {reason(error)} Run the same command again: it goes on from "
            f"its last checkpoint."
        ) from error
    assert metrics is not None, "every job reports how it ended"
    return dict(metrics)
