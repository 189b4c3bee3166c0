"""Pictures of an onboarding: the most anomalous images, each beside its heatmap."""

import re

import numpy as np
from numpy.typing import NDArray

from model.detector import Detector
from model.preprocessing import Preprocessing
from pipeline.datasets.layouts import Sample
from pipeline.images import heatmap
from pipeline.images.decode import read_image
from pipeline.measuring.labelled import ScoredSamples
from pipeline.onboarding.prepare import PreparedCategory, UnseenScores
from pipeline.package import MapScale

NUM_EXAMPLES = 6


def worst_unseen(
    prepared: PreparedCategory, detector: Detector, unseen: UnseenScores
) -> ScoredSamples:
    """Return the most anomalous unseen good images, where there are no labelled ones to show."""
    worst = np.argsort(-unseen.scores, kind="stable")[:NUM_EXAMPLES]
    images = unseen.images[worst]
    _, patch_scores = detector.score_pooled(prepared.good.bank.images(images))
    uris = [prepared.good.uris[index] for index in images.tolist()]
    return ScoredSamples(
        samples=[Sample(uri=uri, split="train", defect="good") for uri in uris],
        scores=unseen.scores[worst],
        maps=detector.maps(patch_scores).half().cpu().numpy(),
        unreadable=[],
    )


def examples(
    scored: ScoredSamples, scale: MapScale, preprocessing: Preprocessing
) -> dict[str, NDArray[np.uint8]]:
    """Return the most anomalous of these images, each beside its heatmap."""
    worst = np.argsort(-scored.scores, kind="stable")[:NUM_EXAMPLES]
    pictures = {}
    for rank, index in enumerate(worst):
        sample = scored.samples[index]
        pixels = read_image(sample.uri, preprocessing).shown
        if pixels is None:  # gone since it was scored
            continue
        levels = scale.to_grey(scored.maps[index].astype(np.float32))
        pair = np.concatenate([pixels, heatmap.overlay(pixels, levels)], axis=1)
        label = re.sub(r"[^A-Za-z0-9_-]+", "-", sample.defect)[:40]
        pictures[f"{rank + 1:02d}-{label}"] = pair
    return pictures
