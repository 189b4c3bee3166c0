"""Train a diffusion model on a category's good images, and draw a bank from it.

Every image of a bank depends on its number and the seed alone, so a bank that was cut off is
completed with the very images that are missing.

Shapes: B images, K steps of sampling.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.diffusion.denoiser_trainer import DenoiserTrainer, Workers, as_pixels, as_signed
from model.diffusion.noise_schedule import ReverseSteps
from model.diffusion.sampler import denoising_error, sample
from pipeline.synthesis.bank_folder import BankFolder
from pipeline.synthesis.bank_order import BankOrder, SynthesisError
from pipeline.synthesis.training_images import TrainingImages
from pipeline.version import version

SAMPLING_STEPS = 20  # of all 1,000, as RealNet's release takes
BATCH_IMAGES = 8  # drawn at a time
ERROR_IMAGES = 64  # on which the error of the network's estimate is measured
NOTE = (
    "Synthetic images, made by a diffusion model from good images. They show no real part and no "
    "real defect."
)

Progress = Callable[[int, int], None]  # done, in all


@dataclass(frozen=True, kw_only=True)
class Artist:
    """A trained denoiser and the steps by which images are drawn with it."""

    denoise: Callable[[Tensor, Tensor], Tensor]
    steps: ReverseSteps
    size: int
    seed: int
    device: torch.device

    @classmethod
    def of(cls, trainer: DenoiserTrainer) -> "Artist":
        """Take a trained model's average, and measure how far its estimates are off."""
        device, seed = trainer.images.device, trainer.config.seed
        chosen = torch.randperm(len(trainer.images), generator=_generator(seed, "error"))
        images = as_signed(trainer.images[chosen[:ERROR_IMAGES].to(device)])
        steps = ReverseSteps.evenly(SAMPLING_STEPS)
        noise = torch.Generator(device).manual_seed(seed)
        error = denoising_error(trainer.average, steps, images, noise)
        return cls(
            denoise=trainer.average,
            steps=steps.with_error(error),
            size=trainer.config.size,
            seed=seed,
            device=device,
        )

    def draw(self, numbers: Sequence[int], strength_B: Tensor) -> Tensor:
        """Return the images of these numbers as uint8 pixels (B, size, size, 3)."""
        generators = [_generator(self.seed, f"image {number}") for number in numbers]
        shape = (3, self.size, self.size)
        noise = [
            torch.stack([torch.randn(shape, generator=each) for each in generators]).to(self.device)
            for _ in range(len(self.steps.times))
        ]
        drawn = sample(self.denoise, self.steps, strength_B.to(self.device), noise)
        return as_pixels(drawn).cpu()


def strength_of(order: BankOrder) -> list[float]:
    """Return the strength of each image, drawn evenly from the range."""
    low, high = order.strength
    draws = [
        torch.rand((), generator=_generator(order.training.seed, f"strength {number}"))
        for number in range(order.count)
    ]
    return [low + (high - low) * float(draw) for draw in draws]


def make_trainer(
    order: BankOrder, images: TrainingImages, device: str, workers: Workers | None = None
) -> DenoiserTrainer:
    """Return a trainer that has not begun."""
    return DenoiserTrainer(images.pixels, order.training, device, workers)


def fill(order: BankOrder, trainer: DenoiserTrainer, progress: Progress | None = None) -> None:
    """Draw this worker's share of the images that are missing, and write them.

    Batches are the same however many workers there are, and whatever is there already.
    """
    folder, strengths, workers = BankFolder.of(order), strength_of(order), trainer.workers
    missing, artist = set(folder.missing()), Artist.of(trainer)
    own = list(_batches(order.count))[workers.rank :: workers.size]
    own = [batch for batch in own if missing & set(batch)]
    for index, batch in enumerate(own):
        pixels = artist.draw(batch, torch.tensor([strengths[number] for number in batch]))
        for number, each in zip(batch, pixels, strict=True):
            folder.write_image(number, each.numpy())
        if progress:
            progress(index + 1, len(own))


def facts_of(trainer: DenoiserTrainer, images: TrainingImages) -> dict[str, Any]:
    """Return what a bank's provenance says of a finished training."""
    return {
        "dataset_digest": images.dataset_digest,
        "num_training_images": len(images.pixels),
        "loss": trainer.loss,
    }


def finish(order: BankOrder, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write what the images are, once all of them are there; return it.

    Raises:
        SynthesisError: some are not.
    """
    folder, training = BankFolder.of(order), order.training
    if missing := folder.missing():
        raise SynthesisError(
            f"{len(missing)} of {order.count} images of the bank {order.out} were not written; run "
            f"the same command again, which goes on where it stopped."
        )
    names = zip(folder.names, strength_of(order), strict=True)
    return folder.finish(
        {
            "synthetic": True,
            "note": NOTE,
            "category": order.category.name,
            "settings": order.category.model_dump(mode="json"),
            **{name: facts[name] for name in ("dataset_digest", "num_training_images", "loss")},
            "strength": list(order.strength),
            "count": order.count,
            "size": training.size,
            "seed": training.seed,
            "training_steps": training.num_steps,
            "sampling_steps": SAMPLING_STEPS,
            "nightshift": version(),
            "images": [{"name": name, "strength": round(s, 6)} for name, s in names],
        }
    )


def _batches(count: int) -> Iterator[list[int]]:
    for first in range(0, count, BATCH_IMAGES):
        yield list(range(first, min(first + BATCH_IMAGES, count)))


def _generator(seed: int, purpose: str) -> torch.Generator:
    """Return a generator whose draws no other purpose shares."""
    digest = hashlib.sha256(f"{seed} {purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
