"""What a network expects to see: one square of pixels per image."""

from dataclasses import dataclass
from typing import Literal

Fit = Literal["crop", "stretch", "pad"]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image becomes a square of ``crop`` pixels; always bilinear and antialiased.

    ``crop`` is the paper's: shorter side to ``resize``, then the central square. What lies outside
    of it is never looked at: of an image far from square that is most of it. ``stretch`` fits the
    whole image into the square, ``pad`` keeps its proportions and repeats its border.
    """

    resize: int = 256  # pixels, shorter side before the central square is cut out
    crop: int = 224  # pixels, side of the square; a multiple of 32
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        if not 32 <= self.crop <= self.resize:
            raise ValueError(f"crop must lie in [32, resize={self.resize}], got {self.crop}")
        if self.crop % 32:
            raise ValueError(f"crop must be a multiple of 32, got {self.crop}")
        if self.resize > 4096:
            raise ValueError(f"resize must be at most 4096, got {self.resize}")

    @property
    def least_side(self) -> int:
        """Pixels of an image's shorter side below which detail would be lost."""
        return self.resize if self.fit == "crop" else self.crop
