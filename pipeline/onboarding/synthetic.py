"""Synthetic anomalies: what a head can be judged by before anybody has labelled a defect.

A maker returns content and the region that it covers; content is blended into a good image with
an opacity drawn per anomaly, so that anomalies run from barely visible to obvious. What everybody
finds, or nobody, tells no two heads apart. All of them are local: they tell a broken setting of
the head over patches from a sound one, but not what a head over whole images adds, nor the share
of real defects found.

Shapes: H x W pixels of the network's crop, after preprocessing, RGB.
Source: CutPaste, Li et al. 2021 (arXiv:2104.04015), sections 2.1 and 2.2; DRAEM, Zavrtanik et al.
2021 (arXiv:2108.07610), section 3.2; noise as in Perlin 2002 ("Improving Noise"). Ours: every kind
is blended, textures come from good images of the same category, the mask holds only what changed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from model.errors import CategoryFault

OPACITY = (0.2, 0.9)
MIN_CHANGE = 8  # grey levels in at least one channel; what changes less is not touched at all
MIN_PIXELS, MIN_SHARE = 16, 0.25  # that must change: in all, and of the region covered
MAX_DRAWS = 100  # for one anomaly

# Areas, lengths and widths are shares of the image's, drawn log-uniformly: small ones as often.
PATCH_AREA, PATCH_ASPECT = (0.02, 0.15), (0.3, 3.3)
SCAR_LENGTH, SCAR_WIDTH = (0.05, 0.25), (0.01, 0.06)
TEXTURE_AREA = (0.003, 0.1)
MAX_OCTAVE = 5  # Perlin noise has 2^0 to 2^5 lattice cells along a side
LATTICE = 64  # gradients along a side, then they repeat: further than a turned image reaches
PATCH_JITTER, TEXTURE_JITTER = 0.1, 0.4

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
Maker = Callable[[Pixels, Pixels, np.random.Generator], tuple[Floats, Mask]]


class NothingChanges(CategoryFault):
    """Images on which no draw leaves a visible mark."""


@dataclass(frozen=True)
class SyntheticAnomaly:
    """A good image with something wrong in it; outside ``mask`` it is still the good image."""

    pixels: Pixels  # (H, W, 3)
    mask: Mask  # (H, W)
    kind: str  # a key of ``MAKERS``


def make_anomalies(images: Sequence[Pixels], num: int, seed: int) -> list[SyntheticAnomaly]:
    """Return ``num`` anomalies on random images, the kinds in turn.

    Each depends on its place and the seed alone: a longer list begins with the shorter one.

    Args:
        images: good images of one category, (H, W, 3), all of one size. To compare with held-out
            images, give those: a trained-on background would be scored too low.
        num: of anomalies.
        seed: from 0; the same one gives the same anomalies.

    Raises:
        ValueError: there is no image.
        NothingChanges: the images are all black or too small to show anything.
    """
    if not images:
        raise ValueError("synthetic anomalies need at least one good image, got none")
    return [
        _make(images, kind, np.random.default_rng([seed, index]))
        for index, kind in zip(range(num), cycle(MAKERS), strict=False)
    ]


def _make(images: Sequence[Pixels], kind: str, random: np.random.Generator) -> SyntheticAnomaly:
    """Draw image, mark and opacity until enough pixels change."""
    for _ in range(MAX_DRAWS):
        chosen = random.choice(len(images), size=2, replace=len(images) < 2)
        image, other = (images[index] for index in chosen)
        content, region = MAKERS[kind](image, other, random)
        pixels, mask = blend(image, content, region, random.uniform(*OPACITY))
        if is_visible(mask, region):
            return SyntheticAnomaly(pixels, mask, kind)
    height, width = images[0].shape[:2]
    raise NothingChanges(
        f"{MAX_DRAWS} draws of a `{kind}` anomaly on {len(images)} good images of "
        f"{height} x {width} changed fewer than {MIN_PIXELS} pixels, or {MIN_SHARE:.0%} of those "
        f"covered, by {MIN_CHANGE} grey levels. Needed are images that show something: look at "
        f"them, or raise the crop."
    )


def is_visible(mask: Mask, region: Mask) -> bool:
    """Whether enough pixels changed of the region that was covered."""
    return bool(mask.sum() >= max(MIN_PIXELS, MIN_SHARE * region.sum()))


def blend(image: Pixels, content: Floats, region: Mask, opacity: float) -> tuple[Pixels, Mask]:
    """Lay content (H, W, 3) over a region; return the pixels and the mask of those that changed.

    DRAEM, equation 1. What would change by less than MIN_CHANGE stays as it is.
    """
    mixed = np.rint(image + opacity * (content - image)).clip(0, 255).astype(np.uint8)
    change = np.abs(mixed.astype(np.int16) - image).max(axis=2)
    mask = region & (change >= MIN_CHANGE)
    return np.where(mask[..., None], mixed, image), mask


def cut_paste(image: Pixels, _: Pixels, random: np.random.Generator) -> tuple[Floats, Mask]:
    """Copy a rectangle from another place of the same image."""
    size = np.array(image.shape[:2])
    area, aspect = _log_uniform(PATCH_AREA, random), _log_uniform(PATCH_ASPECT, random)
    extent = np.rint(size * [math.sqrt(area / aspect), math.sqrt(area * aspect)]).astype(int)
    start, source = random.integers(size - extent, endpoint=True, size=(2, 2))
    region = np.zeros(image.shape[:2], dtype=bool)
    region[tuple(map(slice, start, start + extent))] = True
    content = np.roll(image, start - source, axis=(0, 1))
    return _sometimes_jittered(content, random), region


def scar(image: Pixels, _: Pixels, random: np.random.Generator) -> tuple[Floats, Mask]:
    """Copy a thin strip from another place of the same image, turned."""
    shape = image.shape[:2]
    target, source = random.uniform(0, shape, size=(2, 2))
    length, width = _log_uniform(SCAR_LENGTH, random), _log_uniform(SCAR_WIDTH, random)
    down, across = turned_grid(shape, target, random.uniform(0, math.pi))
    region = (np.abs(down) <= width * min(shape) / 2) & (np.abs(across) <= length * min(shape) / 2)
    content = sample(image, down + source[0], across + source[1])
    return _sometimes_jittered(content, random), region


def texture(image: Pixels, other: Pixels, random: np.random.Generator) -> tuple[Floats, Mask]:
    """Cover what a Perlin noise has above a threshold with another good image, turned.

    The threshold is drawn as the share of the image that lies above it.
    """
    region = noise_region(image.shape[:2], TEXTURE_AREA, random)
    return turned(other, random), region


def turned(image: Pixels, random: np.random.Generator) -> Floats:
    """Return an image turned by any angle around any point, in other colours."""
    content = sample(image, *_any_turned_grid(image.shape[:2], random))
    return jitter(content, TEXTURE_JITTER, random)


def noise_region(
    shape: tuple[int, ...], area: tuple[float, float], random: np.random.Generator
) -> Mask:
    """Return what a Perlin noise, turned, has above a threshold, (H, W).

    ``area`` is the least and the greatest share of the image that may lie above it.
    """
    angles = random.uniform(0, 2 * math.pi, (LATTICE, LATTICE))
    gradients = np.stack([np.sin(angles), np.cos(angles)], axis=2)
    cells = 2.0 ** random.integers(MAX_OCTAVE, endpoint=True, size=2)
    down, across = _any_turned_grid(shape, random)
    noise = perlin_noise(down * cells[0] / shape[0], across * cells[1] / shape[1], gradients)
    region: Mask = noise > np.quantile(noise, 1 - _log_uniform(area, random))
    return region


MAKERS: dict[str, Maker] = {"cut_paste": cut_paste, "scar": scar, "texture": texture}


def perlin_noise(rows: Floats, columns: Floats, gradients: Floats) -> Floats:
    """Gradient noise in [-1, 1] at any points: smooth, and 0 on every lattice point.

    Args:
        rows: positions in lattice cells, any shape.
        columns: likewise, of the same shape.
        gradients: unit vectors (row, column) of the lattice points, (P, Q, 2); they repeat.
    """
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, across = rows - top, columns - left

    def slope(below: int, right: int) -> Floats:
        vectors = gradients[(top + below) % len(gradients), (left + right) % gradients.shape[1]]
        along: Floats = vectors[..., 0] * (down - below) + vectors[..., 1] * (across - right)
        return along

    upper = slope(0, 0) + _fade(across) * (slope(0, 1) - slope(0, 0))
    lower = slope(1, 0) + _fade(across) * (slope(1, 1) - slope(1, 0))
    noise: Floats = math.sqrt(2) * (upper + _fade(down) * (lower - upper))
    return noise


def _fade(share: Floats) -> Floats:
    """Rise from 0 to 1 with two derivatives that vanish at both ends."""
    return share**3 * (share * (6 * share - 15) + 10)


def turned_grid(shape: tuple[int, ...], centre: Floats, angle: float) -> tuple[Floats, Floats]:
    """Return row and column (H, W) of every pixel in axes turned by ``angle`` around ``centre``."""
    rows, columns = np.indices(shape, dtype=np.float64) - centre[:, None, None]
    sine, cosine = math.sin(angle), math.cos(angle)
    return cosine * rows + sine * columns, cosine * columns - sine * rows


def _any_turned_grid(shape: tuple[int, ...], random: np.random.Generator) -> tuple[Floats, Floats]:
    return turned_grid(shape, random.uniform(0, shape), random.uniform(0, 2 * math.pi))


def sample(image: Pixels, rows: Floats, columns: Floats) -> Pixels:
    """Return the nearest pixels (H, W, 3) of an image that repeats beyond its borders."""
    height, width = image.shape[:2]
    nearest: Pixels = image[
        np.rint(rows).astype(int) % height, np.rint(columns).astype(int) % width
    ]
    return nearest


def jitter(pixels: Pixels, spread: float, random: np.random.Generator) -> Floats:
    """Change brightness, contrast and saturation by up to ``spread``; grey stays grey."""
    brightness, contrast, saturation = random.uniform(1 - spread, 1 + spread, 3)
    grey = pixels.mean(axis=2, keepdims=True)
    coloured = grey + saturation * (pixels - grey)
    mixed: Floats = brightness * (grey.mean() + contrast * (coloured - grey.mean()))
    return mixed


def _sometimes_jittered(pixels: Pixels, random: np.random.Generator) -> Floats:
    return jitter(pixels, PATCH_JITTER * random.integers(2), random)


def _log_uniform(bounds: tuple[float, float], random: np.random.Generator) -> float:
    low, high = bounds
    return float(low * (high / low) ** random.random())
