"""Test images beside their heatmaps, on one picture: good ones that look worst, and defects.

Shapes: N images, M shown, H x W pixels of the crop.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageOps
from scipy import ndimage

from pipeline.images import heatmap
from pipeline.package import THRESHOLD_GREY
from pipeline.pages import plot_style as style
from pipeline.pages.words import decimal

NUM_GOOD, NUM_DEFECTIVE = 3, 9
COLUMNS = 3
SIDE = 224  # pixels of one picture; a pair is an image and its map over it
PAIR_GAP, COLUMN_GAP = 4, 32
PAIR = 2 * SIDE + PAIR_GAP
WIDTH = 2 * style.MARGIN + COLUMNS * PAIR + (COLUMNS - 1) * COLUMN_GAP
HEAD, SECTION, CAPTION, FOOT = 116, 52, 52, 76  # heights, pixels
SCALE_WIDTH, SCALE_HEIGHT = 255, 12  # of the legend
GREY = 150  # under the legend's colours


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One test image, its map and what was decided on it."""

    pixels: NDArray[np.uint8]  # (H, W, 3), RGB
    levels: NDArray[np.uint8]  # (H, W), grey levels of the map
    mask: NDArray[np.bool_]  # (H, W), where the defect is, if that is known
    defect: str
    is_good: bool
    score: float
    flagged: bool


def choose(scores: NDArray[np.floating], defective: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return which images to show, (M,): the worst good ones, then a spread of defects.

    Defects are evenly spaced by rank from the lowest score to the highest, both included. Scores
    and labels are (N,).
    """
    order = np.argsort(scores, kind="stable")
    good, bad = order[~defective[order]][::-1], order[defective[order]]
    ranks = np.linspace(0, len(bad) - 1, min(NUM_DEFECTIVE, len(bad)))
    return np.concatenate([good[:NUM_GOOD], bad[np.rint(ranks).astype(np.int64)]])


def grid_size(tiles: Sequence[Tile]) -> tuple[int, int]:
    """Return width and height in pixels of what ``grid_figure`` draws."""
    heights = [SECTION + _num_rows(part) * (SIDE + CAPTION) for _, part in _sections(tiles)]
    return WIDTH, HEAD + sum(heights) + FOOT


def grid_figure(tiles: Sequence[Tile], headings: tuple[str, str]) -> Figure:
    """Draw all tiles under a title and a subtitle."""
    width, height = grid_size(tiles)
    canvas = np.empty((height, width, 3), dtype=np.uint8)
    canvas[:] = ImageColor.getrgb(style.SURFACE)
    figure = style.new_figure(width, height)
    style.headings(figure, *headings)
    axes = figure.add_axes((0, 0, 1, 1), frameon=False, xticks=[], yticks=[])
    top = HEAD
    for name, part in _sections(tiles):
        _text(axes, (style.MARGIN, top + 16), name, style.INK)
        top += SECTION
        for index, tile in enumerate(part):
            row, column = divmod(index, COLUMNS)
            left = style.MARGIN + column * (PAIR + COLUMN_GAP)
            _draw_tile(axes, canvas, tile, (left, top + row * (SIDE + CAPTION)))
        top += _num_rows(part) * (SIDE + CAPTION)
    _draw_legend(axes, canvas, top + 12)
    axes.imshow(canvas, interpolation="none", extent=(0, width, height, 0), aspect="auto")
    return figure


def _sections(tiles: Sequence[Tile]) -> list[tuple[str, list[Tile]]]:
    good = [tile for tile in tiles if tile.is_good]
    bad = [tile for tile in tiles if not tile.is_good]
    parts = [
        ("Good: the most anomalous first", good),
        ("Defective: from the lowest score to the highest", bad),
    ]
    return [(name, part) for name, part in parts if part]


def _num_rows(part: Sequence[Tile]) -> int:
    return -(-len(part) // COLUMNS)


def _draw_tile(axes: Axes, canvas: NDArray[np.uint8], tile: Tile, corner: tuple[int, int]) -> None:
    left, top = corner
    over = heatmap.overlay(tile.pixels, tile.levels)
    for picture, start in ((tile.pixels, left), (over, left + SIDE + PAIR_GAP)):
        canvas[top : top + SIDE, start : start + SIDE] = _resized(picture)
    _outline(canvas[top : top + SIDE, left + SIDE + PAIR_GAP : left + PAIR], tile.mask)
    below = top + SIDE + 17
    colour = style.FLAG if tile.flagged else style.INK
    decision = "flagged" if tile.flagged else "not flagged"
    _text(axes, (left, below), f"{decimal(tile.score)} {decision}", colour)
    if not tile.is_good:
        _text(axes, (left + PAIR, below), tile.defect[:28], style.SOFT, side="right")


def _resized(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture of any proportions within a square."""
    image = Image.fromarray(picture)
    return np.asarray(ImageOps.pad(image, (SIDE, SIDE), Image.Resampling.BICUBIC, style.SURFACE))


def _outline(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
    """Draw the border of the defect, white within ink, which shows on any surface."""
    image = Image.fromarray(mask).convert("L")
    drawn = np.asarray(ImageOps.pad(image, (SIDE, SIDE), Image.Resampling.NEAREST)) > 0
    for colour in (style.SURFACE, style.INK):
        grown = ndimage.binary_dilation(drawn)
        picture[grown & ~drawn] = ImageColor.getrgb(colour)
        drawn = grown


def _draw_legend(axes: Axes, canvas: NDArray[np.uint8], top: int) -> None:
    """Draw the colour scale with the threshold on it, and say what the outline is."""
    colours = heatmap.colour_table()[np.linspace(0, 255, SCALE_WIDTH).astype(int)]
    mixed = GREY * (1 - colours[:, 3:]) + colours[:, :3] * colours[:, 3:]
    left = style.MARGIN + 60
    canvas[top : top + SCALE_HEIGHT, left : left + SCALE_WIDTH] = np.rint(mixed)
    limit = left + round(SCALE_WIDTH * THRESHOLD_GREY / 255)
    canvas[top - 4 : top + SCALE_HEIGHT + 4, limit : limit + 2] = ImageColor.getrgb(style.INK)
    middle = top + SCALE_HEIGHT // 2
    _text(axes, (style.MARGIN, middle), "usual", style.SOFT)
    _text(axes, (limit, top + SCALE_HEIGHT + 18), "threshold", style.SOFT, side="center")
    note = "far above the threshold · outline: the defect as it was labelled"
    _text(axes, (left + SCALE_WIDTH + 12, middle), note, style.SOFT)


def _text(axes: Axes, place: tuple[int, int], text: str, colour: str, side: str = "left") -> None:
    options: dict[str, Any] = {"ha": side, "va": "center", "color": colour, "size": style.TEXT}
    axes.text(*place, text, parse_math=False, **options)
