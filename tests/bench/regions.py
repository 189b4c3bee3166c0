"""Regions on real defects: how many are found, and how many are false on good images.

    python -m tests.bench.regions DATA... [--weights FILE] [--detector memory_bank]

A defect is a connected part of an image's mask; it is found where a region covers any of its
pixels. Reported beside it: regions for each good test image, and how many of these have any.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from model.preprocessing import Preprocessing
from pipeline.catalogue.catalogue import Category
from pipeline.datasets.samples import of_split
from pipeline.images.placement import Placement
from pipeline.images.regions import TOUCHING, RegionRule, find_regions, fit_rule
from pipeline.measuring.labelled import read_marks, score_samples
from pipeline.onboarding.prepare import make_detector, prepare, score_unseen

RATES = (0.01, 0.05)


def main() -> None:
    """Onboard each data set once and look at its test images at both rates."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--weights")
    parser.add_argument("--detector", default="memory_bank")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for folder in asked.data:
        settings = {"backbone": "resnet18", "weights": asked.weights, "detector": asked.detector}
        given = {"name": folder.name, "images": str(folder), "false_alarm_rate": 0.01, **settings}
        _measure(Category.model_validate(given))


def _measure(category: Category) -> None:
    prepared = prepare(category)
    for _ in prepared.trainer.run():
        pass
    detector = make_detector(prepared, prepared.trainer)
    highest = score_unseen(prepared, prepared.trainer, detector).highest
    scored = score_samples(of_split(prepared.samples, "test"), detector, prepared.embedder)
    marks = read_marks(scored.samples, category.preprocessing)
    for rate in RATES:
        rule = fit_rule(highest, rate)
        found = [_look(each, rule, category.preprocessing) for each in scored.maps]
        good = [number for (number, _), bad in zip(found, scored.defective, strict=True) if not bad]
        parts = [
            bool((labels == label)[above].any())
            for (_, above), mask, known in zip(found, marks.masks, marks.known, strict=True)
            if known
            for labels, count in [ndimage.label(mask, TOUCHING)]
            for label in range(1, count + 1)
        ]
        sys.stdout.write(
            f"{category.name}, {category.detector}, {rate:.0%} of {len(highest)} held out: "
            f"{sum(parts)} of {len(parts)} defects found ({np.mean(parts):.1%}), "
            f"{np.mean(good):.3f} regions a good image, {np.count_nonzero(good)} of {len(good)} "
            f"have any\n"
        )


def _look(map_HW: Any, rule: RegionRule, way: Preprocessing) -> tuple[int, Any]:
    height, width = way.size
    place = Placement(way.size, (0.0, 0.0, float(width), float(height)))
    levels = map_HW.astype(np.float32)
    return find_regions(levels, rule, place).number, levels > rule.threshold


if __name__ == "__main__":
    main()
