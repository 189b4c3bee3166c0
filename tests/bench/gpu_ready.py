"""From ready pixels on the host to scores on the host, by the product's own way: torch alone.

Two threads hand on batches as a scoring worker's do: they are stacked, copied from pinned memory,
pooled by ``GpuEngine`` and scored by one category's heads or by those of 64. Part of
``python -m tests.bench.gpu``.
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.backbone import Backbone, BackboneConfig
from model.detector import Detector
from model.embedding import Embedding
from model.gpu_engine import GpuEngine
from model.kind import Heads
from model.mixed_batch import score_images, score_together
from pipeline.images.prefetch import read_ahead
from tests.bench.gpu import Figure, Setting, make_detector, make_images

IN_FLIGHT = 2  # as a scoring worker has it
MANY = 64  # categories
BATCHES = (64, 128)
PRECISIONS = ("bfloat16", "float32")

Score = Callable[[Sequence[Heads], Tensor], tuple[Tensor, Tensor]]


def ready(setting: Setting, device: torch.device) -> Iterator[Figure]:
    """Images/s of batches that are read, each way of computing them, and how far scores move."""
    exact = Backbone(BackboneConfig(name=setting.backbone, weights="random"))
    detector = make_detector(setting, exact)
    detector.heads.halve()
    for precision in PRECISIONS if device.type == "cuda" else ("float32",):
        backbone = exact if precision == "float32" else exact.in_precision("bfloat16")
        yield from _of_backbone(setting, copy.deepcopy(backbone).to(device), detector)


def _of_backbone(setting: Setting, backbone: Backbone, detector: Detector) -> Iterator[Figure]:
    device, embedding = backbone.mean.device, detector.header.embedding
    heads = [copy.deepcopy(detector.heads).to(device) for _ in range(MANY)]
    for batch in BATCHES if device.type == "cuda" else (setting.batch,):
        images = make_images(batch, setting.side).numpy()
        expected = None
        for way, score in _ways(backbone, embedding, batch):
            for categories in (1, MANY):
                heads_B = sorted((heads[i % categories] for i in range(batch)), key=id)
                call = _one_batch(score, heads_B, images)
                scores = call(0)
                name = f"{setting.backbone} {backbone.config.precision}, batches of {batch}, {way}"
                name = f"{name}, {categories} categories"
                rate = batch * _per_s(call, setting.rounds)
                yield Figure(name=f"ready pixels: {name}", value=rate, unit="images/s")
                expected = scores if expected is None else expected
                moved = float(np.abs(scores - expected).max())
                yield Figure(name=f"scores moved: {name}", value=moved, unit="spreads")


def _ways(backbone: Backbone, embedding: Embedding, batch: int) -> Iterator[tuple[str, Score]]:
    yield "step by step", lambda heads, images: score_images(backbone, embedding, heads, images)
    if backbone.is_on_cpu:
        return
    for name, compiles in (("graph", False), ("compiled graph", True)):
        engine = GpuEngine(backbone, embedding, compiles=compiles)
        yield name, partial(_by_engine, engine, batch)


def _by_engine(
    engine: GpuEngine, batch: int, heads_B: Sequence[Heads], images: Tensor
) -> tuple[Tensor, Tensor]:
    return score_together(heads_B, engine(images, batch))


def _one_batch(
    score: Score, heads_B: Sequence[Heads], images: NDArray[np.uint8]
) -> Callable[[int], NDArray[np.float32]]:
    @torch.inference_mode()
    def call(_: int) -> NDArray[np.float32]:
        pixels = torch.from_numpy(np.stack(list(images)))
        scores: NDArray[np.float32] = score(heads_B, pixels)[0].cpu().numpy()
        return scores

    return call


def _per_s(call: Callable[[int], object], rounds: int) -> float:
    """Return batches/s of two threads, best of two passes after one that warms up."""
    rates = []
    for _ in range(3):
        started = time.perf_counter()
        for _ in read_ahead(call, range(rounds), IN_FLIGHT):
            pass
        rates.append(rounds / (time.perf_counter() - started))
    return max(rates[1:])
