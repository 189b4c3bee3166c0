"""How far banks of synthetic images lie from the good images, by strength; and a picture of them.

    nightshift synthesise catalogue.yaml --only bottle --strength 0-0 --count 16 --out banks/0
    nightshift synthesise catalogue.yaml --only bottle --strength 0.5-0.5 --count 16 --out banks/0.5
    python -m tests.bench.strengths catalogue.yaml banks/0 banks/0.5 --only bottle --picture FILE

The distance is the root of the mean squared difference of pixels in [-1, 1] to the nearest training
image; that of training images to their nearest other one stands beside it.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from model.diffusion.denoiser_trainer import as_signed
from pipeline.catalogue.catalogue import load_catalogue, select
from pipeline.datasets.bank_files import PROVENANCE_FILE
from pipeline.synthesis.training_images import read_training_images

SHOWN, ENLARGED = 8, 2  # images of a row, times as large


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.strengths", description=__doc__)
    parser.add_argument("catalogue")
    parser.add_argument("banks", nargs="+", type=Path, help="folders of banks of one size")
    parser.add_argument("--only", required=True, help="the category")
    parser.add_argument("--picture", type=Path, help="training images, then a row for each bank")
    arguments = parser.parse_args()
    provenances = [json.loads((bank / PROVENANCE_FILE).read_text()) for bank in arguments.banks]
    (category,) = select(load_catalogue(arguments.catalogue), [arguments.only])
    known = read_training_images(category, provenances[0]["size"]).pixels
    others = distances(known, known)
    others.fill_diagonal_(math.inf)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"training images to the nearest other: {float(others.min(1).values.mean()):.3f}")
    rows = [known[:SHOWN].numpy()]
    for bank, provenance in zip(arguments.banks, provenances, strict=True):
        pixels = read(bank)
        nearest = float(distances(torch.from_numpy(pixels), known).min(1).values.mean())
        low, high = provenance["strength"]
        console.print(f"strength {low:g} to {high:g}, {len(pixels)} images: {nearest:.3f}")
        rows.append(pixels[:SHOWN])
    if arguments.picture:
        draw(rows).save(arguments.picture)


def read(bank: Path) -> NDArray[np.uint8]:
    return np.stack([np.array(Image.open(path)) for path in sorted(bank.glob("*.png"))])


def distances(pixels_NHWC: torch.Tensor, known_NHWC: torch.Tensor) -> torch.Tensor:
    """Root mean squared difference of every image to every known one."""
    each, known = as_signed(pixels_NHWC).flatten(1), as_signed(known_NHWC).flatten(1)
    return torch.cdist(each, known) / math.sqrt(known.shape[1])


def draw(rows: list[NDArray[np.uint8]]) -> Image.Image:
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    image = Image.fromarray(sheet)
    return image.resize((image.width * ENLARGED, image.height * ENLARGED), Image.Resampling.NEAREST)


if __name__ == "__main__":
    main()
