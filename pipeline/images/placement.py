"""Where the rectangle that a network sees lies in its image, and the way back to its pixels.

Shapes: H x W pixels of an image, h x w positions of a map over the rectangle, whatever its grid.
"""

from dataclasses import dataclass

from model.preprocessing import Preprocessing

Box = tuple[float, float, float, float]  # left, top, width, height

PROPORTIONS = 1.02  # times longer or shorter: one pixel of a thumbnail of 64


@dataclass(frozen=True, slots=True)
class Placement:
    """A rectangle in pixels of the upright image; what was padded lies outside of ``bounds``."""

    size: tuple[int, int]  # H and W of the image
    box: Box  # in its pixels
    roi: tuple[int, int, int, int] | None = None  # what is looked at, as ``roi_of``; None: all

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of what is looked at, in pixels of the image."""
        return self.roi or (0, 0, self.size[1], self.size[0])

    def to_image(self, box: Box, grid: tuple[int, int]) -> Box:
        """Return a box in pixels of the image, cut at the border of what is looked at.

        It is given in positions of a map of a height and width.
        """
        left, top, width, height = self.box
        across, down = width / grid[1], height / grid[0]
        first, above, right, below = self.bounds
        x, wide = _cut(left + across * box[0], left + across * (box[0] + box[2]), (first, right))
        y, high = _cut(top + down * box[1], top + down * (box[1] + box[3]), (above, below))
        return x, y, wide, high

    def to_shares(self, box: Box) -> Box:
        """Return a box of the image's pixels in shares of the rectangle's sides."""
        left, top, width, height = self.box
        x, y = (box[0] - left) / width, (box[1] - top) / height
        return x, y, box[2] / width, box[3] / height


def placement(size: tuple[int, int], preprocessing: Preprocessing) -> Placement:
    """Return where ``fit.to_crop`` takes its pixels from an upright image of a height and width."""
    left, top, right, bottom = roi = roi_of(size, preprocessing)
    inner = _placed(bottom - top, right - left, preprocessing)
    return Placement(size, (inner[0] + left, inner[1] + top, inner[2], inner[3]), roi)


def roi_of(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom, in pixels of an image, of what is looked at at all.

    It is one pixel at least, and lies in the image, however small that is.
    """
    height, width = size
    if preprocessing.roi is None or preprocessing.drawn_on is None:
        return 0, 0, width, height
    x, y, wide, high = preprocessing.roi
    across, down = width / preprocessing.drawn_on[1], height / preprocessing.drawn_on[0]
    left, top = min(round(x * across), width - 1), min(round(y * down), height - 1)
    right, bottom = round((x + wide) * across), round((y + high) * down)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def size_seen(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """Return height and width of what is looked at, in pixels of an upright image of a size."""
    left, top, right, bottom = roi_of(size, preprocessing)
    return bottom - top, right - left


def size_cut(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """Return the same of what is cut into tiles, in pixels of the scale at which it is cut."""
    assert preprocessing.tiles is not None, "nothing else is cut"
    return preprocessing.tiles.scaled(size_seen(size, preprocessing))


def has_proportions(size: tuple[int, int], preprocessing: Preprocessing) -> bool:
    """Whether zones hold for an upright image of a height and width: they do in shares of it."""
    if preprocessing.drawn_on is None:
        return True
    (height, width), (high, wide) = size, preprocessing.drawn_on
    return 1 / PROPORTIONS <= width * high / (height * wide) <= PROPORTIONS


def _placed(height: int, width: int, preprocessing: Preprocessing) -> Box:
    """Return the rectangle in pixels of what is looked at; of tiles joined again it is all."""
    if preprocessing.tiles is not None:
        return 0.0, 0.0, float(width), float(height)
    high, wide = preprocessing.size
    match preprocessing.fit:
        case "crop":
            left, top, right, bottom = crop_box((width, height), preprocessing.resize, (wide, high))
            return left, top, right - left, bottom - top
        case "stretch":
            return 0.0, 0.0, float(width), float(height)
        case "pad":
            inside = inside_of((width, height), (wide, high))
            across, down = width / inside[0], height / inside[1]
            margins = (wide - inside[0]) // 2, (high - inside[1]) // 2
            return -margins[0] * across, -margins[1] * down, wide * across, high * down


def crop_box(size: tuple[int, int], resize: int, crop: tuple[int, int]) -> Box:
    """Return left, top, right and bottom of a central crop in pixels of its image.

    Sizes are width and height; ``resize`` is the shorter side before the crop is cut out.
    """
    (left, right), (top, bottom) = (
        _middle(side, resize * side // min(size), inside)
        for side, inside in zip(size, crop, strict=True)
    )
    return left, top, right, bottom


def inside_of(size: tuple[int, int], of: tuple[int, int]) -> tuple[int, int]:
    """Return width and height of the largest image of some proportions inside of a rectangle."""
    (width, height), (wide, high) = size, of
    to, side = (wide, width) if wide * height <= high * width else (high, height)
    return max(1, round(to * width / side)), max(1, round(to * height / side))


def _middle(side: int, resized: int, crop: int) -> tuple[float, float]:
    start = round((resized - crop) / 2)
    return start * side / resized, (start + crop) * side / resized


def _cut(first: float, last: float, within: tuple[int, int]) -> tuple[float, float]:
    first, last = (min(max(end, float(within[0])), float(within[1])) for end in (first, last))
    return first, last - first
