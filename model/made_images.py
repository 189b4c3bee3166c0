"""Images made by code, with the statistics of photographs: what a network's ranges are measured on.

Noise whose amplitude falls with the frequency, as photographs have it, with shapes, a grating and
grain laid over it: soft and hard edges, flat and busy parts, grey and colour. Nothing is read, so
that every machine has them.

Shapes: N images, S x S pixels.
Source of the noise: Field 1987, Relations between the statistics of natural images and the response
properties of cortical cells.
"""

import math

import torch
from torch import Tensor

SIDE = 224
STEEPNESS = (0.5, 2.0)  # of the fall of amplitudes; photographs have about 1


def made_images(count: int) -> Tensor:
    """Return uint8 images (N, S, S, 3); the first ones are the same for every count."""
    return torch.stack([_image(number) for number in range(count)])


def _image(number: int) -> Tensor:
    """Draw the image of a number, (S, S, 3)."""
    random = torch.Generator().manual_seed(number)
    steepness = _between(*STEEPNESS, random)
    colourful = _between(0, 0.5, random) if number % 4 else 0.0  # every fourth is grey
    noise = _noise(1, steepness, random) + colourful * _noise(3, steepness, random)
    level = torch.full((3, 1, 1), _between(68, 188, random))
    image = level + _between(10, 60, random) * noise
    for kind in range(number % 8):
        image = _with_shape(image, kind % 3, random)
    if number % 5 < 2:
        image = image + _between(10, 50, random) * _grating(random)
    grain = torch.randn(1, SIDE, SIDE, generator=random)
    image = image + _between(0, 8, random) * grain
    return image.clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()


def _noise(channels: int, steepness: float, random: torch.Generator) -> Tensor:
    """Return noise (channels, S, S) of mean 0 and variance 1."""
    rows, columns = torch.fft.fftfreq(SIDE)[:, None], torch.fft.rfftfreq(SIDE)[None]
    frequency = torch.hypot(rows, columns).clamp_min(1 / SIDE)
    white = torch.fft.rfft2(torch.randn(channels, SIDE, SIDE, generator=random))
    noise: Tensor = torch.fft.irfft2(white / frequency**steepness, s=(SIDE, SIDE))
    noise = noise - noise.mean((1, 2), keepdim=True)
    return noise / noise.std((1, 2), keepdim=True)


def _with_shape(image: Tensor, kind: int, random: torch.Generator) -> Tensor:
    """Lay a disc, a bar or a square of one colour over an image that shows through a little."""
    across, along = _turned(random)
    width = _between(4, SIDE / 3, random)
    disc = across**2 + along**2 < width**2
    square = (across.abs() < width) & (along.abs() < width)
    inside = (disc, across.abs() < width / 4, square)[kind]
    colour = 255 * torch.rand(3, 1, 1, generator=random)
    return torch.where(inside, 0.3 * image + 0.7 * colour, image)


def _grating(random: torch.Generator) -> Tensor:
    across, _ = _turned(random)
    return torch.sin(across * (2 * math.pi / _between(3, 40, random))).sign()


def _turned(random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return each pixel's place (S, S) in a frame that is turned and shifted at random."""
    places = torch.arange(SIDE, dtype=torch.float32)
    y = places[:, None] - _between(0, SIDE, random)
    x = places[None] - _between(0, SIDE, random)
    angle = _between(0, math.pi, random)
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


def _between(low: float, high: float, random: torch.Generator) -> float:
    return low + (high - low) * torch.rand((), generator=random).item()
