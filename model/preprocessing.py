"""How an image file becomes what a network expects to see: one square of pixels."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Fit = Literal["crop", "stretch", "pad"]
Pages = Literal["one", "first", "each"]

MAX_PIXELS = 100_000_000
LATER = ("pixel_range", "pages", "max_pixels")  # earlier releases do not know these


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
    # The number that is white where a channel has more than 8 bits: 4095 of 12 bits. None: the
    # category has images of up to 8 bits, deeper ones are refused.
    pixel_range: float | None = None
    # Of a file with several: "one" refuses it, "first" takes its first page, "each" makes each page
    # an image of its own.
    pages: Pages = "one"
    max_pixels: int = MAX_PIXELS  # of an image; larger ones are not decoded

    def __post_init__(self) -> None:
        if not 32 <= self.crop <= self.resize:
            raise ValueError(f"crop must lie in [32, resize={self.resize}], got {self.crop}")
        if self.crop % 32:
            raise ValueError(f"crop must be a multiple of 32, got {self.crop}")
        if self.resize > 4096:
            raise ValueError(f"resize must be at most 4096, got {self.resize}")
        if self.pixel_range is not None and not 0 < self.pixel_range < float("inf"):
            raise ValueError(f"pixel_range must be a positive number, got {self.pixel_range}")

    def to_json(self) -> dict[str, Any]:
        """Return plain values; what came later is left out while it changes nothing."""
        values = asdict(self)
        unchanged = [name for name in LATER if values[name] == getattr(Preprocessing, name)]
        return {name: value for name, value in values.items() if name not in unchanged}

    @property
    def least_side(self) -> int:
        """Pixels of an image's shorter side below which detail would be lost."""
        return self.resize if self.fit == "crop" else self.crop
