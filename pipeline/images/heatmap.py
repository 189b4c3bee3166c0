"""Anomaly maps as people see them: a colour scale and an overlay.

The scale belongs to the model, not to the picture: the same grey level of the stored map has the
same colour on every image, so that images compare.
"""

import numpy as np
from numpy.typing import NDArray

# (grey level of the map, red, green, blue, opacity in 0..1). Usual surfaces stay as they are;
# from there lightness falls steadily, so the scale also reads in print and without colour vision.
COLOUR_STOPS = (
    (0, 255, 226, 138, 0.00),
    (64, 255, 226, 138, 0.00),
    (108, 255, 204, 92, 0.40),
    (150, 250, 146, 44, 0.62),
    (200, 222, 52, 30, 0.74),
    (255, 148, 8, 62, 0.84),
)


def colour_table() -> NDArray[np.float64]:
    """Red, green, blue (0..255) and opacity (0..1) for each grey level, shape (256, 4)."""
    stops = np.asarray(COLOUR_STOPS, dtype=np.float64)
    levels = np.arange(256)
    channels = [np.interp(levels, stops[:, 0], stops[:, channel]) for channel in range(1, 5)]
    return np.stack(channels, axis=1)


def overlay(image: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay the grey levels of an anomaly map, (H, W), over its RGB image, (H, W, 3)."""
    colours = colour_table()[levels]
    opacity = colours[..., 3:]
    mixed = image * (1.0 - opacity) + colours[..., :3] * opacity
    return np.rint(mixed).astype(np.uint8)


def filter_tables() -> dict[str, str]:
    """The colour scale as the tables of an SVG filter: red, green, blue, opacity by grey level."""
    table = colour_table()
    table[:, :3] /= 255
    names = ("red", "green", "blue", "opacity")
    return {
        name: " ".join(f"{value:.3f}".rstrip("0").rstrip(".") for value in channel)
        for name, channel in zip(names, table.T, strict=True)
    }


def legend_gradient() -> str:
    """The colour scale over mid grey, as a CSS gradient for the page's legend."""
    grey = 150.0
    stops = []
    for level, *rgb, opacity in COLOUR_STOPS:
        mixed = [round(grey * (1 - opacity) + channel * opacity) for channel in rgb]
        stops.append(f"rgb({mixed[0]} {mixed[1]} {mixed[2]}) {level / 255:.1%}")
    return f"linear-gradient(90deg, {', '.join(stops)})"
