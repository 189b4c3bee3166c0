"""Eight good images in a package, by which a detector is known to score the same elsewhere.

float32 is one identity on every engine as long as scores differ by less than a thousandth of good
images' spread: an onboarding on a GPU then scores on CPUs. What engine calibrated a detector, and
what it said of the images, stands in the package; another one has to say the same before it scores.
Whoever scores with the same engine computes nothing. int8 is one identity by the same rule, and its
engines are OpenVINO of one release on one kind of machine.

Shapes: N images, H x W pixels of the crop.
"""

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from model.detector import Detector
from model.errors import CategoryFault
from pipeline.calibration import Calibration

CHECK_FILE = "check.png"  # the images one below the other
NUM_IMAGES = 8
MOST_APART = 1e-3  # of good images' spread: two engines' scores of an image
LEAST_SPREAD = 1e-6


class OtherScores(CategoryFault):
    """This machine's engine scores otherwise than the one that calibrated the detector."""


@dataclass(frozen=True, kw_only=True)
class EngineCheck:
    """What calibrated a detector, and what it said of the images in CHECK_FILE."""

    engine: str  # as ``Backbone.engine`` names it
    scores: tuple[float, ...]  # (N,), each a float32 value

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; ``from_json`` gives back an equal check."""
        return {**asdict(self), "scores": list(self.scores)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "EngineCheck":
        """Read what ``to_json`` wrote."""
        return cls(engine=str(data["engine"]), scores=tuple(map(float, data["scores"])))

    def refuse_other_scores(
        self, engine: str, scores_N: NDArray[np.float32], calibration: Calibration
    ) -> None:
        """Compare what another engine says of the images.

        Raises:
            OtherScores: it says something else.
        """
        spread = max(float(np.std(calibration.scores)), LEAST_SPREAD)
        apart_N = np.abs(scores_N - np.array(self.scores, np.float32)) / spread
        worst = int(np.argmax(apart_N))
        if not apart_N[worst] <= MOST_APART:
            raise OtherScores(
                f"the detector was calibrated by {self.engine}, and {engine} scores its "
                f"{len(apart_N)} stored good images otherwise: apart by up to "
                f"{apart_N[worst]:.2g} of good images' spread ({scores_N[worst]:.6g} instead of "
                f"{self.scores[worst]:.6g}), {MOST_APART:g} is allowed. Score on {self.engine}, "
                f"or onboard the category again on {engine}."
            )


def refuse_other_engine(
    detector: Detector, check: EngineCheck, images_NHWC: NDArray[np.uint8], calibration: Calibration
) -> None:
    """Let a detector's engine score the images of its package, if it is another one.

    Raises:
        OtherScores: it scores them otherwise than the engine that calibrated it.
    """
    here = detector.backbone.engine(detector.header.preprocessing.size)
    if here != check.engine:
        scores = detector(torch.from_numpy(images_NHWC))[0]
        check.refuse_other_scores(here, scores.cpu().numpy(), calibration)


def to_png(images_NHWC: NDArray[np.uint8]) -> bytes:
    """Return images as the content of CHECK_FILE."""
    file = io.BytesIO()
    Image.fromarray(images_NHWC.reshape(-1, *images_NHWC.shape[2:])).save(file, "png")
    return file.getvalue()


def from_png(content: bytes, check: EngineCheck, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the images (N, H, W, 3) of a check, of a height and width, from a CHECK_FILE.

    Raises:
        OSError, ValueError: it is no picture of such images.
    """
    with Image.open(io.BytesIO(content)) as picture:
        pixels = np.array(picture.convert("RGB"))
    if pixels.shape[1] != size[1]:
        raise ValueError(f"{CHECK_FILE} is {pixels.shape[1]} pixels wide, not {size[1]}")
    return pixels.reshape(len(check.scores), *size, 3)
