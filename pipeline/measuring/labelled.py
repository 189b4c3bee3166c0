"""Measure a finished detector on labelled images, once, after every decision has been taken."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from model.detector import Detector
from model.preprocessing import Preprocessing
from pipeline.calibration import Calibration
from pipeline.datasets.layouts import Sample
from pipeline.feature_store.embedder import Embedder
from pipeline.images.decode import ImageRead, ImageTooLarge, UnreadableImage
from pipeline.images.masks import read_mask
from pipeline.measuring.metrics import image_metrics, pixel_metrics, realised_rates
from pipeline.storage import StorageError


@dataclass(frozen=True, kw_only=True)
class ScoredSamples:
    """Test images that could be read, with their scores and maps."""

    samples: list[Sample]
    scores: NDArray[np.float32]  # (N,)
    maps: NDArray[np.float16]  # (N, H, W); half precision halves the largest array of a run
    unreadable: list[ImageRead]
    hashes: Sequence[str] = ()  # of their contents, (N,)

    @property
    def defective(self) -> NDArray[np.bool_]:
        """Labels, shape (N,)."""
        return np.array([not sample.is_good for sample in self.samples], dtype=bool)


@dataclass(frozen=True, kw_only=True)
class Marks:
    """Which pixels of labelled images are defect."""

    known: NDArray[np.bool_]  # (N,), of good images and of defective ones whose masks mark any
    masks: NDArray[np.bool_]  # (N, H, W), the union of an image's masks
    empty: tuple[str, ...] = ()  # defective images whose masks mark nothing
    unread: tuple[str, ...] = ()  # why masks of other defective images cannot be read

    @property
    def findings(self) -> list[str]:
        """What a person should know of the masks."""
        kinds = {"that mark nothing": self.empty, "that cannot be read": self.unread}
        return [
            f"masks {what}: {len(images)}, first of {images[0]}; these images do not count for "
            f"pixel metrics"
            for what, images in kinds.items()
            if images
        ]


def score_samples(
    samples: Sequence[Sample], detector: Detector, embedder: Embedder
) -> ScoredSamples:
    """Score labelled images in the order given; unreadable ones are set aside."""
    preprocessing = detector.header.preprocessing
    scored: list[Sample] = []
    hashes: list[str] = []
    scores, maps, unreadable = [], [], []
    by_uri = {sample.uri: sample for sample in samples}
    for batch in embedder.read([sample.uri for sample in samples], preprocessing):
        unreadable += batch.unreadable
        if not batch.images:
            continue
        batch_scores, patch_scores = detector.score_embedded(batch.levels)
        scores.append(batch_scores.cpu().numpy())
        maps.append(detector.maps(patch_scores).half().cpu().numpy())
        scored += [by_uri[image.uri] for image in batch.images]
        hashes += [image.sha256 for image in batch.images]
    return ScoredSamples(
        samples=scored,
        scores=np.concatenate(scores) if scores else np.zeros(0, np.float32),
        maps=np.concatenate(maps) if maps else np.zeros((0, *preprocessing.view), np.float16),
        unreadable=unreadable,
        hashes=hashes,
    )


def read_marks(samples: Sequence[Sample], preprocessing: Preprocessing) -> Marks:
    """Read every sample's masks; nothing is marked on a good one."""
    masks = np.zeros((len(samples), *preprocessing.view), dtype=bool)
    known = np.array([sample.is_good for sample in samples], dtype=bool)
    empty, unread = [], []
    for index, sample in enumerate(samples):
        if sample.is_good or not sample.mask_uris:
            continue
        try:
            mask = read_mask(sample.mask_uris, preprocessing)
        except (StorageError, UnreadableImage, ImageTooLarge) as error:
            unread.append(f"{sample.uri} ({error})")
            continue
        if mask is None:
            empty.append(sample.uri)
        else:
            masks[index], known[index] = mask, True
    return Marks(known=known, masks=masks, empty=tuple(empty), unread=tuple(unread))


def measure(scored: ScoredSamples, calibration: Calibration, marks: Marks) -> dict[str, float]:
    """Return image, pixel and threshold metrics by name; what is undefined is left out."""
    rates = realised_rates(calibration.flagged(scored.scores), scored.defective)
    found: dict[str, float | None] = {
        f"image_{name}": value
        for name, value in asdict(image_metrics(scored.scores, scored.defective)).items()
    }
    for name, share in asdict(rates).items():
        if share["total"]:
            found[f"test_{name}"] = share["value"]
            found[f"test_{name}_low"], found[f"test_{name}_high"] = share["low"], share["high"]
    if (marks.known & scored.defective).any():
        pixels = asdict(pixel_metrics(scored.maps[marks.known], marks.masks[marks.known]))
        found |= {f"pixel_{name}": value for name, value in pixels.items() if name != "num_regions"}
    return {name: float(value) for name, value in found.items() if value is not None}
