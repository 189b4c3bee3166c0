"""How plots look: the report's colours, one typeface, exact pixels; no pyplot, no global state."""

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray
from PIL import Image

from pipeline.pages.words import percent

# The light page of pipeline/report/static/report.css.
INK, SOFT, LINE, BAR = "#1d1c1a", "#67635c", "#e5e1da", "#c3beb4"
SURFACE, FLAG = "#ffffff", "#b8400e"
DPI = 160  # pixels per inch
TITLE, TEXT, SMALL = 11.0, 8.5, 7.5  # points, each 160 / 72 pixels
MARGIN = 40  # pixels
PERCENT = FuncFormatter(lambda share, _: percent(share))
LABEL: dict[str, Any] = {"color": SOFT, "size": TEXT, "labelpad": 8}  # of an axis


def new_figure(width: int, height: int) -> Figure:
    """Return an empty figure of so many pixels."""
    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=SURFACE)


def headings(figure: Figure, title: str, subtitle: str) -> None:
    """Write what is shown, and of what, at the top left."""
    width, height = figure.get_size_inches() * DPI
    for text, down, size, colour in ((title, 52, TITLE, INK), (subtitle, 86, TEXT, SOFT)):
        place = MARGIN / width, 1 - down / height
        figure.text(*place, text, size=size, color=colour, parse_math=False)


def panel(figure: Figure, box: tuple[int, int, int, int]) -> Axes:
    """Return axes on (left, top, right, bottom) pixels; y is a share, shown in percent."""
    width, height = figure.get_size_inches() * DPI
    left, top, right, bottom = box
    rectangle = left / width, 1 - bottom / height, (right - left) / width, (bottom - top) / height
    axes = figure.add_axes(rectangle, facecolor="none")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(SOFT)
    axes.tick_params(colors=SOFT, labelsize=SMALL, length=0, pad=6)
    axes.yaxis.set_major_formatter(PERCENT)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def drawn(figure: Figure) -> NDArray[np.uint8]:
    """Return a figure's pixels (H, W, 3); a user's matplotlibrc cannot crop or scale it."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]
    return pixels


def png(figure: Figure) -> bytes:
    """Draw a figure and return it as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(drawn(figure)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
