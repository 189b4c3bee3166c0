"""Anomalies of an image as a whole: what a head over images may see and none over patches.

The makers of ``pipeline/onboarding/synthetic.py`` leave a mark at one place. These change the light
or the focus of the whole image, or where things are in it. Their strength is drawn from barely
visible to obvious, as the opacity of those is.

Shapes: H x W pixels of the network's crop, RGB.
"""

import math
from collections.abc import Callable, Sequence
from itertools import cycle

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.onboarding.synthetic import jitter, sample, turned_grid

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]
Random = np.random.Generator
Maker = Callable[[Pixels, Random], Floats]

# Drawn log-uniformly. Shares are of the image's side.
BLUR, GRAIN = (0.5, 4.0), (3.0, 30.0)  # pixels; grey levels
TURN, SHIFT, WAVE = (2.0, 90.0), (0.01, 0.2), (0.005, 0.04)  # degrees; shares
PART = (0.1, 0.4)  # side of a part, a share
LIGHT = 0.3  # most change of a channel's gain


def make_image_anomalies(images: Sequence[Pixels], num: int, seed: int) -> list[tuple[Pixels, str]]:
    """Return ``num`` anomalies (H, W, 3) on random images with their maker's name, in turn."""
    made = []
    for index, name in zip(range(num), cycle(MAKERS), strict=False):
        random = np.random.default_rng([seed, index])
        image = images[random.integers(len(images))]
        changed = MAKERS[name](image, random)
        made.append((np.rint(changed).clip(0, 255).astype(np.uint8), name))
    return made


def light(image: Pixels, random: Random) -> Floats:
    """Change brightness, contrast, saturation and the gain of every channel."""
    gains = 1 + LIGHT * random.uniform(-0.5, 0.5, 3) * (np.ptp(image, axis=2).max() > 0)
    return jitter(image, LIGHT, random) * gains


def blur(image: Pixels, random: Random) -> Floats:
    """Put everything out of focus."""
    width = _draw(BLUR, random)
    return ndimage.gaussian_filter(image.astype(np.float64), (width, width, 0))


def grain(image: Pixels, random: Random) -> Floats:
    """Add the noise of a sensor, the same in all channels."""
    return image + _draw(GRAIN, random) * random.standard_normal(image.shape[:2])[..., None]


def turn(image: Pixels, random: Random) -> Floats:
    """Turn the image around its middle."""
    angle = math.radians(_draw(TURN, random)) * random.choice([-1, 1])
    middle = (np.array(image.shape[:2]) - 1) / 2
    rows, columns = turned_grid(image.shape[:2], middle, angle)
    return _mirrored(image, rows + middle[0], columns + middle[1])


def shift(image: Pixels, random: Random) -> Floats:
    """Move the image."""
    angle, length = random.uniform(0, 2 * math.pi), _draw(SHIFT, random) * image.shape[0]
    rows, columns = np.indices(image.shape[:2])
    return _mirrored(image, rows + length * math.sin(angle), columns + length * math.cos(angle))


def wave(image: Pixels, random: Random) -> Floats:
    """Bend the image along two waves."""
    side, height = image.shape[0], _draw(WAVE, random) * image.shape[0]
    rows, columns = np.indices(image.shape[:2]).astype(np.float64)
    turns, start = random.uniform(1, 4, 2), random.uniform(0, 2 * math.pi, 2)
    moved_rows = rows + height * np.sin(2 * math.pi * turns[0] * columns / side + start[0])
    moved_columns = columns + height * np.sin(2 * math.pi * turns[1] * rows / side + start[1])
    return _mirrored(image, moved_rows, moved_columns)


def missing(image: Pixels, random: Random) -> Floats:
    """Fill a part with the colour of its edge."""
    part = _part(image, random)
    inside = image[part]
    edge = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    changed = image.astype(np.float64)
    changed[part] = np.median(edge, axis=0)
    return changed


def misplaced(image: Pixels, random: Random) -> Floats:
    """Exchange two parts of the same size."""
    first = _part(image, random)
    size = [place.stop - place.start for place in first]
    start = random.integers(np.array(image.shape[:2]) - size, endpoint=True)
    second = tuple(slice(s, s + length) for s, length in zip(start, size, strict=True))
    changed = image.astype(np.float64)
    changed[first], changed[second] = image[second], image[first]
    return changed


MAKERS: dict[str, Maker] = {
    "light": light,
    "blur": blur,
    "grain": grain,
    "turn": turn,
    "shift": shift,
    "wave": wave,
    "missing": missing,
    "misplaced": misplaced,
}


def _part(image: Pixels, random: Random) -> tuple[slice, ...]:
    """Return a rectangle somewhere."""
    shape = np.array(image.shape[:2])
    size = np.rint(shape * [_draw(PART, random), _draw(PART, random)]).astype(int)
    start = random.integers(shape - size, endpoint=True)
    return tuple(slice(s, s + length) for s, length in zip(start, size, strict=True))


def _mirrored(image: Pixels, rows: Floats, columns: Floats) -> Floats:
    """Return the nearest pixels of an image that is mirrored beyond its borders."""
    height, width = image.shape[:2]
    inside = [
        side - 1 - np.abs(side - 1 - np.abs(places) % (2 * side - 2))
        for places, side in ((rows, height), (columns, width))
    ]
    return sample(image, *inside).astype(np.float64)


def _draw(bounds: tuple[float, float], random: Random) -> float:
    low, high = bounds
    return float(low * (high / low) ** random.random())
