"""Evaluate a catalogue by the honest protocol, a Ray task per category."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
import torch

from jobs.cluster import Slots, slots
from jobs.progress import Display, Reporter, start_board
from model.errors import NightshiftError
from pipeline import storage
from pipeline.catalogue import Category
from pipeline.protocol import CategoryResult, mean_and_std, run_protocol

logger = logging.getLogger(__name__)

POLL_S = 0.5
COLUMNS = {
    "image_auroc": "image AUROC",
    "oracle_image_auroc": "oracle pass*",
    "image_average_precision": "image AP",
    "image_f1_max": "F1 max",
    "pixel_auroc": "pixel AUROC",
    "pixel_average_precision": "pixel AP",
    "pixel_aupro_30": "AUPRO 0.3",
    "pixel_aupro_05": "AUPRO 0.05",
    "test_false_alarm_rate": "false alarms",
    "test_recall": "recall",
}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found; ``failed`` holds the error of each category that has no result."""

    results: Sequence[CategoryResult]
    failed: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: every seed's metrics, their mean and spread, and the means."""
        return {
            "categories": {
                result.category: {
                    "seeds": [
                        {**seed.metrics, "oracle_image_auroc": seed.oracle_image_auroc}
                        for seed in result.seeds
                    ],
                    "mean_std": result.summary(),
                }
                for result in self.results
            },
            "mean": self.mean(),
            "failed": self.failed,
        }

    def mean(self) -> dict[str, float]:
        """Return the mean over the categories that have the metric."""
        rows = [result.summary() for result in self.results]
        return {
            name: mean_and_std([row[name][0] for row in rows if name in row])[0]
            for name in COLUMNS
            if any(name in row for row in rows)
        }

    def to_markdown(self) -> str:
        """Return a table: mean and standard deviation over seeds in percent."""
        lines = [
            "| category | " + " | ".join(COLUMNS.values()) + " |",
            "| --- |" + " --- |" * len(COLUMNS),
        ]
        for result in self.results:
            summary = result.summary()
            cells = [_cell(*summary[name]) if name in summary else "-" for name in COLUMNS]
            lines.append(f"| {result.category} | " + " | ".join(cells) + " |")
        mean = self.mean()
        cells = [f"{100 * mean[name]:.1f}" if name in mean else "-" for name in COLUMNS]
        lines.append("| mean | " + " | ".join(cells) + " |")
        lines += [
            "",
            "Percent, mean +- standard deviation over seeds, at the last pass; thresholds are from "
            "held-out good images alone.",
            "* what choosing the pass by its test AUROC would have claimed: nobody can have that.",
        ]
        return "\n".join(lines) + "\n"


def evaluate(categories: Sequence[Category], num_seeds: int, out: str) -> Evaluation:
    """Train and measure every category; write evaluation.json and evaluation.md under ``out``."""
    share = slots(len(categories))
    board = start_board()
    task = _evaluate.options(num_cpus=share.cpus, num_gpus=share.gpus)
    running = {
        task.remote(category.model_dump(), num_seeds, share, board): category.name
        for category in categories
    }
    results, failed, waiting = {}, {}, list(running)
    with Display("evaluating").shown() as display:
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1, timeout=POLL_S)
            for reference in done:
                try:
                    results[running[reference]] = ray.get(reference)
                except NightshiftError as error:  # Ray raises the task's own error
                    failed[running[reference]] = str(getattr(error, "cause", error))
            display.update(ray.get(board.read.remote()))
    ordered = [results[category.name] for category in categories if category.name in results]
    evaluation = Evaluation(results=ordered, failed=failed)
    text = json.dumps(evaluation.to_json(), indent=1)
    storage.write_bytes(storage.join(out, "evaluation.json"), text.encode())
    if ordered:
        markdown = evaluation.to_markdown()
        storage.write_bytes(storage.join(out, "evaluation.md"), markdown.encode())
    return evaluation


@ray.remote(max_retries=2)
def _evaluate(category: dict[str, Any], num_seeds: int, share: Slots, board: Any) -> CategoryResult:
    """Run one category's protocol in a process of its own."""
    torch.set_num_threads(share.cpus)
    checked = Category.model_validate(category)
    reporter = Reporter(board, checked.name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return run_protocol(checked, num_seeds, reporter.tell, device)


def _cell(mean: float, std: float) -> str:
    return f"{100 * mean:.1f} +- {100 * std:.1f}"
