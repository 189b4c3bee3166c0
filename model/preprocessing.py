"""How an image file becomes what a network expects to see: a rectangle of pixels."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from model.tiles import Tiles

Fit = Literal["crop", "stretch", "pad"]
Crop = int | tuple[int, int]  # side of a square; height and width of another rectangle
Pages = Literal["one", "first", "each"]

MIN_SIDE, MAX_SIDE = 32, 4096  # of what a network sees
MAX_PIXELS = 100_000_000
# Earlier releases do not know these.
LATER = ("pixel_range", "pages", "max_pixels", "tiles", "roi", "drawn_on")


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image becomes ``crop`` pixels; always bilinear and antialiased.

    ``crop`` is the paper's: shorter side to ``resize``, then the central part. What lies outside
    of it is never looked at: of an image of other proportions that is most of it. ``stretch`` fits
    the whole image into the rectangle, ``pad`` keeps its proportions and repeats its border.
    """

    resize: int = 256  # pixels, shorter side before the central part is cut out
    crop: Crop = 224  # pixels; each side a multiple of 32
    fit: Fit = "crop"
    # The number that is white where a channel has more than 8 bits: 4095 of 12 bits. None: the
    # category has images of up to 8 bits, deeper ones are refused.
    pixel_range: float | None = None
    # Of a file with several: "one" refuses it, "first" takes its first page, "each" makes each page
    # an image of its own.
    pages: Pages = "one"
    max_pixels: int = MAX_PIXELS  # of an image; larger ones are not decoded
    # The image is cut into tiles at its own scale, and ``crop`` is a tile's side.
    tiles: Tiles | None = None
    # Left, top, width and height of what is cut out of an image before it is resized, in pixels of
    # one of ``drawn_on``; None: nothing is.
    roi: tuple[int, int, int, int] | None = None
    # Height and width of the image on which zones were drawn. They hold in shares for images of
    # these proportions; others are refused. None: images may have any.
    drawn_on: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.crop, int) and len(set(self.crop)) == 1:
            object.__setattr__(self, "crop", self.crop[0])  # a square has one way to say it
        low, high = min(self.size), max(self.size)
        if self.fit == "crop" and not MIN_SIDE <= low <= high <= self.resize:
            raise ValueError(f"crop must lie in [32, resize={self.resize}], got {self._crop_shown}")
        if not MIN_SIDE <= low <= high <= MAX_SIDE:
            raise ValueError(f"crop must lie in [32, {MAX_SIDE}], got {self._crop_shown}")
        if any(side % 32 for side in self.size):
            raise ValueError(f"crop must be a multiple of 32, got {self._crop_shown}")
        if self.fit == "crop" and self.resize > MAX_SIDE:
            raise ValueError(f"resize must be at most {MAX_SIDE}, got {self.resize}")
        if self.pixel_range is not None and not 0 < self.pixel_range < float("inf"):
            raise ValueError(f"pixel_range must be a positive number, got {self.pixel_range}")
        if self.tiles is not None and self.size != (self.tiles.size, self.tiles.size):
            raise ValueError(f"tiles.size is {self.tiles.size}, crop is {self._crop_shown}")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """Return what ``to_json`` gave.

        Raises:
            TypeError, ValueError: it did not.
        """
        lists = {name: tuple(v) for name, v in values.items() if isinstance(v, list | tuple)}
        tiles = values.get("tiles")
        return cls(**{**values, **lists, "tiles": tiles and Tiles.from_json(tiles)})

    def to_json(self) -> dict[str, Any]:
        """Return plain values; what came later is left out while it changes nothing."""
        values = asdict(self)
        unchanged = [name for name in LATER if values[name] == getattr(Preprocessing, name)]
        return {name: value for name, value in values.items() if name not in unchanged}

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what the network sees, pixels."""
        return (self.crop, self.crop) if isinstance(self.crop, int) else self.crop

    @property
    def view(self) -> tuple[int, int]:
        """Height and width of maps, masks and pictures of an image, pixels."""
        return self.size if self.tiles is None else self.tiles.view

    @property
    def size_read(self) -> tuple[int, int]:
        """Height and width of an image in memory, pixels: a whole one until it is cut."""
        if self.tiles is None or self.tiles.image is None:
            return self.size
        return self.tiles.scaled(self.tiles.image)

    @property
    def num_inputs(self) -> int:
        """How many inputs of the network an image becomes, of the category's usual size."""
        return 1 if self.tiles is None else self.tiles.num_inputs(self.size_read)

    @property
    def is_for_all_releases(self) -> bool:
        """Whether releases that read format 3 alone know everything that is set."""
        return isinstance(self.crop, int) and not self.to_json().keys() & set(LATER)

    @property
    def least_side(self) -> int | None:
        """Pixels of an image's shorter side below which detail would be lost; None: all of them."""
        if self.tiles is not None:
            return None
        least = self.resize if self.fit == "crop" else max(self.size)
        if self.roi is None or self.drawn_on is None:
            return least
        return math.ceil(least * min(self.drawn_on) / min(self.roi[2:]))

    @property
    def _crop_shown(self) -> str:
        return " x ".join(map(str, dict.fromkeys(self.size)))
