"""Score single images with one category's package: what stands behind the registered model.

Every registered version names this module, by which MLflow loads it: it cannot move. ``predict``
takes a list of RGB images (H, W, 3) of any size, or of image URIs, and returns one row per image in
the same order. Nightshift must be installed where it is loaded.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from model.backbone import Backbone
from model.detector import Detector
from pipeline.backbones import fetch_backbone
from pipeline.engine_check import refuse_other_engine
from pipeline.images.batches import batches, num_readers, pixels_of
from pipeline.images.decode import (
    ImageRead,
    ImageStatus,
    ImageTooLarge,
    UnreadableImage,
    as_scored,
    read_image,
)
from pipeline.images.pixel_range import refuse_other_numbers, scale
from pipeline.images.prefetch import read_ahead
from pipeline.package import Package

# What has no value is missing in its column's own way; without the types, one bad image would
# turn a column of decisions into one of objects.
COLUMNS = {
    "status": "str",
    "error": "str",
    "score": "float64",
    "p_value": "float64",
    "flagged": "boolean",
    "threshold": "float64",
}


def _is_deep(pixels: NDArray[Any]) -> bool:
    """Whether an array holds grey or RGB numbers of more than 8 bits."""
    is_picture = pixels.ndim == 2 or pixels.shape[2:] == (3,)
    return (
        is_picture and pixels.size > 0 and pixels.dtype.kind in "uif" and pixels.dtype.itemsize > 1
    )


def _load_pyfunc(folder: str) -> "Predictor":
    """What MLflow calls to load a version."""
    return Predictor.load(folder)


class Predictor:
    """A detector, its calibration and its backbone, ready to score."""

    def __init__(self, package: Package, backbone: Backbone) -> None:
        """Join the parts.

        Raises:
            DetectorFileError: the package belongs to another backbone.
            OtherScores: the engine at hand scores otherwise than the one that calibrated it.
        """
        self.package = package
        self.detector = Detector(backbone, package.heads, package.header)
        reference, images = package.reference, package.check_images
        if reference.check and images is not None:
            refuse_other_engine(self.detector, reference.check, images, reference.calibration)

    @classmethod
    def load(cls, folder: str) -> "Predictor":
        """Load a package and the backbone it names."""
        package = Package.read(Path(folder))
        return cls(package, fetch_backbone(package.header.backbone_config))

    def predict(self, images: Sequence[Any]) -> pd.DataFrame:
        """Return one row per image, in order; an image that cannot be read has a status.

        Args:
            images: arrays, or URIs; both may stand in one list. Arrays are RGB (H, W, 3) of uint8.
                Where the category has a ``pixel_range``, they may also be RGB or grey (H, W) of any
                number type.
        """
        reads = read_ahead(self._read, images, num_readers(self.package.header.preprocessing))
        rows: list[dict[str, Any]] = []
        for batch in batches(reads):
            rows += self._score(batch)
        return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)

    def _read(self, image: Any) -> ImageRead:
        preprocessing = self.package.header.preprocessing
        if isinstance(image, str):
            return read_image(image, preprocessing)
        pixels = np.asarray(image)
        if preprocessing.pixel_range is not None and _is_deep(pixels):
            try:
                refuse_other_numbers(pixels, preprocessing.pixel_range)
            except UnreadableImage as unlike:
                return ImageRead("", ImageStatus.UNREADABLE, str(unlike))
            picture = Image.fromarray(scale(pixels, preprocessing.pixel_range)[0]).convert("RGB")
        elif pixels.dtype == np.uint8 and pixels.shape[2:] == (3,) and pixels.size:
            picture = Image.fromarray(pixels)
        else:
            error = f"expected uint8 (H, W, 3) or a URI, found {pixels.dtype} {pixels.shape}"
            return ImageRead("", ImageStatus.UNREADABLE, error)
        try:
            scored, view = as_scored(picture, preprocessing, pixels.shape[:2])
        except ImageTooLarge as error:
            return ImageRead("", ImageStatus.TOO_LARGE, str(error))
        except UnreadableImage as unlike:
            return ImageRead("", ImageStatus.UNREADABLE, str(unlike))
        return ImageRead("", ImageStatus.OK, None, scored, "", view=view)

    def _score(self, batch: list[ImageRead]) -> list[dict[str, Any]]:
        good = [image for image in batch if image.status is ImageStatus.OK]
        calibration = self.package.reference.calibration
        scores = self.detector(pixels_of(good))[0].numpy() if good else np.zeros(0, np.float32)
        values = zip(scores, calibration.p_value(scores), calibration.flagged(scores), strict=True)
        rows = []
        for image in batch:
            row: dict[str, Any] = {"status": image.status.value, "error": image.error}
            if image.status is ImageStatus.OK:
                score, p_value, flagged = next(values)
                row |= {
                    "score": float(score),
                    "p_value": float(p_value),
                    "flagged": bool(flagged),
                    "threshold": calibration.threshold,
                }
            rows.append(row)
        return rows
