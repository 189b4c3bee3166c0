"""Which good images a package holds for other engines to be checked by (``engine_check.py``)."""

import numpy as np
import torch
from numpy.typing import NDArray

from model.detector import Detector
from pipeline.engine_check import NUM_IMAGES, EngineCheck
from pipeline.images.decode import read_image
from pipeline.onboarding.prepare import PreparedCategory, UnseenScores


def check_images(
    prepared: PreparedCategory, detector: Detector, unseen: UnseenScores
) -> tuple[EngineCheck, NDArray[np.uint8]] | None:
    """Return unseen good images (N, H, W, 3), from the least to the most unusual, and their scores.

    None where the detector's numeric mode is not one on every engine, or no image is left to read.
    Features are there already: nothing goes through the backbone again, but for images that are cut
    into tiles: of them what maps show is held, and scored as an image of that size.
    """
    if detector.header.precision == "bfloat16":
        return None
    order = np.argsort(unseen.scores, kind="stable")
    ranks = np.linspace(0, len(order) - 1, min(NUM_IMAGES, len(order))).round().astype(int)
    pixels, read = [], []
    for index in unseen.images[order[ranks]].tolist():
        image = read_image(prepared.good.uris[index], prepared.category.preprocessing)
        if image.shown is not None:  # it is not gone since
            pixels.append(image.shown)
            read.append(index)
    if not read:
        return None
    if prepared.category.tiles is None:
        scores = detector.score_pooled(prepared.good.bank.images(torch.tensor(read)))[0]
    else:
        scores = detector(torch.from_numpy(np.stack(pixels)))[0]
    engine = detector.backbone.engine(detector.header.preprocessing.size)
    return EngineCheck(engine=engine, scores=tuple(scores.tolist())), np.stack(pixels)
