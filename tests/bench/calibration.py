"""How often a good image is really flagged, over how often it may be."""

import itertools
from collections.abc import Iterator

import numpy as np
import torch

from model.kinds import KINDS
from tests.bench.measure import Ratio
from tests.support.made_up_categories import CROSSWISE, NUM_GOOD, RATE, realised_rate

NUM_CATEGORIES = 1000


def realised_false_alarms() -> Iterator[Ratio]:
    """Realised over asked rate, mean over a thousand made-up categories."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks so small that a second thread only waits
    methods = {"cross": 0, "split": NUM_GOOD // 2}
    for detector, (method, num_held_out) in itertools.product(KINDS, methods.items()):
        if not num_held_out and detector not in CROSSWISE:
            continue
        seeds = range(NUM_CATEGORIES)
        rates = np.array([realised_rate(seed, num_held_out, detector) for seed in seeds])
        error = rates.std() / NUM_CATEGORIES**0.5
        detail = f"{rates.mean():.4f} +- {error:.4f} where {RATE:g} was asked"
        yield Ratio(
            name=f"realised_false_alarms {detector} {method}",
            value=rates.mean() / RATE,
            target=1.0,
            at_most=True,
            detail=detail,
        )
    torch.set_num_threads(threads)
