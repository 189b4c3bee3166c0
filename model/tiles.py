"""Tiles: an image at its own scale as overlapping squares, each an input of the network.

A thumbnail, the whole image stretched into such a square, may come behind them: tiles alone miss
what is large, or missing. Corners lie on multiples of what backbones divide by, so that the patch
grids of overlapping tiles coincide. The joined map of an image has a size that belongs to the
category, whatever the image's own.

Sizes and places alone, without torch: whoever only reads images needs them too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

STEP = 32  # pixels; a multiple of every backbone's stride
LEAST_SIZE, MOST_SIZE = 64, 4096
MOST_OVERLAP = 0.75
MOST_TILES = 1024  # of an image
LONGEST_VIEW = 1024  # pixels of a joined map's longer side

Size = tuple[int, int]  # height and width
Share = Literal["all", "position"]


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """How an image is cut."""

    size: int = 256  # pixels, side of a tile; a multiple of 32
    overlap: float = 0.25  # share of a tile's side that the next one covers as well, at least
    scale: float = 1.0  # of the image before it is cut
    thumbnail: bool = True
    share: Share = "all"  # which tiles have one head together: all, or those of one position
    image: Size | None = None  # the good images' size in pixels, found in them

    def __post_init__(self) -> None:
        if not LEAST_SIZE <= self.size <= MOST_SIZE or self.size % STEP:
            raise ValueError(
                f"tiles.size must be a multiple of {STEP} in [{LEAST_SIZE}, {MOST_SIZE}], "
                f"got {self.size}"
            )
        if not 0 <= self.overlap <= MOST_OVERLAP:
            raise ValueError(f"tiles.overlap must lie in [0, {MOST_OVERLAP}], got {self.overlap}")
        if not 0 < self.scale <= 1:
            raise ValueError(f"tiles.scale must lie in (0, 1], got {self.scale}")
        if self.share not in get_args(Share):
            raise ValueError(f"tiles.share must be all or position, got {self.share}")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Tiles":
        """Return what plain values of every field say.

        Raises:
            TypeError, ValueError: they do not.
        """
        image = values.get("image")
        return cls(**{**values, "image": image and (int(image[0]), int(image[1]))})

    @property
    def view(self) -> Size:
        """Height and width of the category's maps and pictures, multiples of 32."""
        if self.image is None:
            return self.size, self.size
        height, width = self.scaled(self.image)
        shrunk = min(1.0, LONGEST_VIEW / max(height, width))
        return _rounded(height * shrunk), _rounded(width * shrunk)

    @property
    def group_names(self) -> list[str]:
        """What the inputs that have heads of their own are called, in the order of these."""
        names = ["tiles"]
        if self.share == "position":
            names = [f"tile_{number}" for number in range(1, self.num_tiles(self._usual) + 1)]
        return names + ["thumbnail"] * self.thumbnail

    @property
    def step(self) -> int:
        """Pixels from one tile to the next, but for the last one."""
        return max(STEP, int(self.size * (1 - self.overlap)) // STEP * STEP)

    def scaled(self, size: Size) -> Size:
        """Return the size in which an image is cut."""
        return max(1, round(size[0] * self.scale)), max(1, round(size[1] * self.scale))

    def num_tiles(self, size: Size) -> int:
        """Return how many tiles an image of a size, already scaled, has."""
        return len(self._starts(size[0])) * len(self._starts(size[1]))

    def num_inputs(self, size: Size) -> int:
        """Return how often such an image goes through the network, K."""
        return self.num_tiles(size) + self.thumbnail

    def groups(self, size: Size) -> list[int]:
        """Return by number which heads each of the K inputs of such an image has.

        Tiles of an image of another size than the good images have those of the position that is
        nearest in shares of the image.
        """
        numbers = [0] * self.num_tiles(size)
        if self.share == "position":
            rows, columns = map(self._nearest, size, self._usual)
            num_columns = len(self._starts(self._usual[1]))
            numbers = [row * num_columns + column for row in rows for column in columns]
        return numbers + [len(self.group_names) - 1] * self.thumbnail

    def corners(self, size: Size) -> list[tuple[int, int]]:
        """Return top and left of every tile of such an image, row by row.

        The last tiles of a row or column are shifted inwards; an image that ends between two
        multiples of 32, or is smaller than a tile, has its border repeated.
        """
        return [(y, x) for y in self._starts(size[0]) for x in self._starts(size[1])]

    def _starts(self, length: int) -> list[int]:
        last = max(self.size, -(-length // STEP) * STEP) - self.size
        return [*range(0, last, self.step), last]

    @property
    def _usual(self) -> Size:
        if self.image is None:
            raise ValueError("tiles.share is position, and the size of the images is not known")
        return self.scaled(self.image)

    def _nearest(self, length: int, usual: int) -> list[int]:
        """Return for every tile along a side which one along the usual side lies nearest."""
        own, others = (
            [(start + self.size / 2) / (starts[-1] + self.size) for start in starts]
            for starts in (self._starts(length), self._starts(usual))
        )
        numbers = range(len(others))
        return [min(numbers, key=lambda at: abs(others[at] - middle)) for middle in own]


def _rounded(length: float) -> int:
    return max(STEP, round(length / STEP) * STEP)
