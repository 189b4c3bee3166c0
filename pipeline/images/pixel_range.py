"""The range of a category's pixels: which number is white.

Files of 8 bits say it themselves. A file of 16 bits or of floats does not: cameras write 10, 12 or
14 bits into 16, and floats may end at 1, 255 or 65535. A range that is guessed for each image makes
one bright pixel darken the rest of it and hides a lamp that fails. So it belongs to the category:
the smallest usual one that holds every pixel of its good images (``pipeline/onboarding``), or its
setting ``pixel_range``, the same for every image after. What lies outside is clipped and counted.

Shapes: H x W pixels, C channels.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.errors import CategoryFault
from pipeline.images.picture import Picture, UnreadableImage

INTEGER_RANGES = tuple(float(2**bits - 1) for bits in (8, 10, 12, 14, 16))
FLOAT_RANGES = (1.0, 255.0, 65535.0)
MAX_OUTSIDE = 0.01  # share of the pixels of good images that may be negative or not a number


class PixelRangeError(CategoryFault):
    """The good images do not say which number is white."""


@dataclass(frozen=True, slots=True)
class Levels:
    """The numbers of one deep image."""

    highest: float
    outside: float  # share of the numbers that are negative or not finite: no range holds them
    is_float: bool
    bits: int | None  # significant ones, where the file says so


def as_rgb(picture: Picture, pixel_range: float | None) -> tuple[Image.Image, float]:
    """Return a picture as a person sees it, in 8 bits, and the share of its numbers out of range.

    Transparent parts lie over black, CMYK and palettes become their colours. Images of up to 8 bits
    have their own range, in a category of deep ones, too. Without a range the category is one of 8
    bits.

    Raises:
        UnreadableImage: a deep image in a category of 8 bits.
    """
    if isinstance(picture.pixels, Image.Image):
        return picture.upright(eight_bits(picture.pixels)), 0.0
    if pixel_range is None:
        raise UnreadableImage(
            f"the image has more than 8 bits ({picture.mode}), its category was onboarded with "
            f"images of 8; export it with 8 bits, or set `pixel_range` (4095 for 12 bits, 65535 "
            f"for 16) and onboard the category again"
        )
    numbers = colours_of(picture)
    refuse_other_numbers(numbers, pixel_range)
    if picture.white_is_zero:
        numbers = pixel_range - numbers
    scaled, outside = scale(numbers, pixel_range)
    return picture.upright(Image.fromarray(scaled).convert("RGB")), outside


def refuse_other_numbers(numbers: NDArray[Any], pixel_range: float) -> None:
    """Raise UnreadableImage where numbers are of another kind than those of their category."""
    is_float = numbers.dtype.kind == "f"
    highest = float(numbers.max(initial=0))
    if pixel_range <= 1 < highest and not is_float:
        raise UnreadableImage(
            f"the image holds integers up to {highest:.0f}, in its category {pixel_range:g} is "
            f"white; export it as its good images were"
        )
    if is_float and highest <= 1 and pixel_range >= INTEGER_RANGES[0]:
        raise UnreadableImage(
            f"the image holds floats up to {highest:.3g}, in its category {pixel_range:g} is "
            f"white; export it as its good images were"
        )


def scale(values: NDArray[Any], pixel_range: float) -> tuple[NDArray[np.uint8], float]:
    """Return numbers of any shape as 8 bits, and the share of them outside of 0..pixel_range."""
    outside = 1 - float(np.mean((values >= 0) & (values <= pixel_range)))
    levels = np.nan_to_num(values * np.float32(255 / pixel_range), posinf=255, neginf=0)
    return np.rint(levels.clip(0, 255)).astype(np.uint8), outside


def levels_of(picture: Picture) -> Levels | None:
    """Return what finding a range needs of a picture; None of one with up to 8 bits."""
    if isinstance(picture.pixels, Image.Image):
        return None
    colours = np.asarray(colours_of(picture))
    sound = np.isfinite(colours) & (colours >= 0)
    return Levels(
        highest=float(colours.max(initial=0, where=sound)),
        outside=1 - float(sound.mean()),
        is_float=picture.pixels.dtype.kind == "f",
        bits=picture.bits,
    )


def smallest_range(name: str, images: Iterable[Levels]) -> float:
    """Return the smallest usual range that holds every pixel of a category's deep good images.

    Where each file says how many of its bits are significant, that is the range, unless pixels lie
    beyond it: PNG files may also hold fewer bits scaled up to 16.

    Raises:
        PixelRangeError: no usual range holds them, or they are of two kinds.
    """
    levels = list(images)
    highest = max(each.highest for each in levels)
    if len({each.is_float for each in levels}) == 2:
        raise PixelRangeError(
            f"{name}: {sum(each.is_float for each in levels)} of {len(levels)} deep images hold "
            f"floats, the others integers; convert one kind, or set `pixel_range`"
        )
    outside = sum(each.outside for each in levels) / len(levels)
    if outside > MAX_OUTSIDE:
        raise PixelRangeError(
            f"{name}: {outside:.1%} of the pixels are negative or not a number; mend the images, "
            f"or set `pixel_range` to clip them"
        )
    ranges = FLOAT_RANGES if levels[0].is_float else INTEGER_RANGES
    tags = [each.bits for each in levels if each.bits is not None]
    if len(tags) == len(levels) and highest < 2 ** max(tags):
        return float(2 ** max(tags) - 1)
    for pixel_range in ranges:
        if highest <= pixel_range:
            return pixel_range
    raise PixelRangeError(
        f"{name}: the brightest pixel is {highest:.6g}, beyond {ranges[-1]:.0f}; set `pixel_range` "
        f"to the number that is white"
    )


def eight_bits(image: Image.Image) -> Image.Image:
    """Return an image of up to 8 bits as RGB, transparent parts over black."""
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        black = Image.new("RGB", image.size)
        black.paste(colours, mask=colours)
        return black
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


def colours_of(picture: Picture) -> NDArray[Any]:
    """Return the numbers (H, W) or (H, W, 3) of a picture, transparent parts over black."""
    if isinstance(picture.pixels, Image.Image):
        grey = picture.pixels.mode in ("1", "L")
        return np.asarray(picture.pixels.convert("L") if grey else eight_bits(picture.pixels))
    values = picture.pixels
    if values.ndim == 2 or values.shape[2] == 3:
        return values
    colours, alpha = values[..., :-1], values[..., -1:]
    if not (alpha == alpha.flat[0]).all() or alpha.flat[0] == 0:  # else it says nothing
        kind = FLOAT_RANGES if alpha.dtype.kind == "f" else INTEGER_RANGES
        highest = float(alpha.max())
        opaque = next((full for full in kind if highest <= full), highest)
        share = (alpha / np.float32(opaque)).clip(0, 1)
        colours = (
            np.rint(colours * share).astype(colours.dtype)
            if kind is INTEGER_RANGES
            else (colours * share)
        )
    return colours[..., 0] if colours.shape[2] == 1 else colours
