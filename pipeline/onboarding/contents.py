"""What is blended into good images for a detector that learns from synthetic anomalies.

Without a bank of anomalous images it comes from the category itself (another good image, turned;
the same one, shifted) or from nothing (a texture of random colours on several scales).

Shapes: H x W pixels of the network's crop, RGB.
Source: RealNet, Zhang et al. 2024 (arXiv:2403.05897), which blends textures of DTD where it has no
generated anomalies; CutPaste, Li et al. 2021 (arXiv:2104.04015), for content of the same image.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image

from pipeline.onboarding.synthetic import Floats, Pixels, jitter, turned

LEAST_SHIFT = 1 / 8  # of a side
SHIFT_JITTER = 0.1
OCTAVES = 6  # a texture has 2, 4, .. 2^6 random colours along a side
GREY_SHARE = 0.3  # of the textures

Content = Callable[[Pixels, Pixels, np.random.Generator], Floats]


def of_another(_: Pixels, other: Pixels, random: np.random.Generator) -> Floats:
    """Return another good image, turned, in other colours."""
    return turned(other, random)


def of_the_same(image: Pixels, _: Pixels, random: np.random.Generator) -> Floats:
    """Return the image itself, shifted, half of the time a little brighter or paler."""
    size = np.array(image.shape[:2])
    shift = random.integers(np.ceil(LEAST_SHIFT * size), size, endpoint=True)
    shifted: Pixels = np.roll(image, shift, axis=(0, 1))
    return jitter(shifted, SHIFT_JITTER * random.integers(2), random)


def of_nothing(image: Pixels, _: Pixels, random: np.random.Generator) -> Floats:
    """Return a texture of random colours, the sum of noise on several scales, 0 to 255."""
    height, width = image.shape[:2]
    colours = 1 if random.random() < GREY_SHARE else 3
    total = np.zeros((height, width, colours))
    for octave in range(1, OCTAVES + 1):
        noise = random.normal(size=(colours, 2**octave + 1, 2**octave + 1)).astype(np.float32)
        scale = random.uniform(0.2, 1)
        for colour, coarse in enumerate(noise):
            fine = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            total[..., colour] += scale * np.asarray(fine)
    low, high = total.min(), total.max()
    texture: Floats = np.broadcast_to(255 * (total - low) / (high - low), image.shape)
    return texture


CONTENTS: tuple[Content, ...] = (of_another, of_the_same, of_nothing)
