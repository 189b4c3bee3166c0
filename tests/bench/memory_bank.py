"""PatchCore on the same features, images and metrics as ``nightshift evaluate``: what to beat.

python -m tests.bench.memory_bank CATALOGUE [--only NAME] [--share 0.01] [--seed 0]
"""

import argparse
import time

import numpy as np
import torch
from rich.console import Console

from model.anomaly_map import anomaly_maps, map_matrix
from model.feature_bank import FeatureBank
from pipeline.calibration import Part
from pipeline.catalogue.catalogue import Category, load_catalogue, select
from pipeline.evaluation.protocol import read_test_set
from pipeline.measuring.metrics import image_metrics, pixel_metrics
from pipeline.onboarding.prepare import prepare
from tests.support import patchcore

BLOCK = 16  # images at a time


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory_bank", description=__doc__)
    parser.add_argument("catalogue")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--share", type=float, action="append", help="of the patches in the bank")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    for category in select(load_catalogue(arguments.catalogue), arguments.only):
        for line in measure(category, arguments.share or [0.01], arguments.seed):
            console.print(line)


def measure(category: Category, shares: list[float], seed: int) -> list[str]:
    prepared = prepare(category)
    test = read_test_set(prepared)
    train = features(prepared.good.bank, prepared.images_of(Part.TRAIN))
    tested = features(test.bank, test.images)
    lines = []
    for share in shares:
        started = time.perf_counter()
        bank = patchcore.fit(train, share, seed)
        distances = patchcore.score(bank, tested)
        seconds = time.perf_counter() - started
        found = f"image AUROC {image_auroc(distances, test.unscored.defective):.4f}"
        if any(sample.mask_uris for sample in test.unscored.samples):
            found += (
                f", pixel AUROC {pixel_auroc(distances, test.marks.known, test.marks.masks):.4f}"
            )
        name = f"{category.name}, {len(bank)} patches ({share:.0%})"
        lines.append(f"{name}, seed {seed}: {found}, {seconds:.0f} s")
    return lines


def features(bank: FeatureBank, images: torch.Tensor) -> patchcore.Array:
    """Return joint patch features, (N, H, W, C)."""
    height, width = bank.grid
    blocks = [bank.whole(index).unflatten(0, (-1, height, width)) for index in images.split(BLOCK)]
    return torch.cat(blocks).numpy()


def image_auroc(distances: patchcore.Array, defective: np.ndarray) -> float:
    return image_metrics(patchcore.image_scores(distances), defective).auroc or 0.0


def pixel_auroc(distances: patchcore.Array, marked: np.ndarray, masks: np.ndarray) -> float:
    matrix = map_matrix(distances.shape[1], masks.shape[1])
    maps = anomaly_maps(torch.from_numpy(distances[marked]), matrix, matrix).half().numpy()
    return pixel_metrics(maps, masks[marked]).auroc or 0.0


if __name__ == "__main__":
    main()
