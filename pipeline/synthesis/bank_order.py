"""What a bank is to be: checked before anything is read or trained."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from model.diffusion.denoiser_trainer import DenoiserConfig
from model.errors import NightshiftError
from pipeline import storage
from pipeline.catalogue.catalogue import Category
from pipeline.onboarding.key import files_of

RANGE = re.compile(r"\s*(\d*\.?\d+)\s*-\s*(\d*\.?\d+)\s*")
KEY_VERSION = 1  # raised where the same order makes another bank


class SynthesisError(NightshiftError):
    """A bank cannot be made as it was asked for."""


@dataclass(frozen=True, kw_only=True)
class BankOrder:
    """A bank of ``count`` images of a category, and what makes them."""

    category: Category
    out: str  # folder or S3 prefix
    strength: tuple[float, float]  # each image's is drawn evenly between these
    count: int
    training: DenoiserConfig

    def __post_init__(self) -> None:
        if self.count < 1:
            raise SynthesisError(f"--count {self.count}: a bank needs at least one image.")
        if storage.join(self.out, "").startswith(storage.join(self.category.images, "")):
            raise SynthesisError(
                f"--out {self.out} lies within the images of {self.category.name}, which would "
                f"take the synthetic ones for its own; name another folder."
            )

    def to_plain(self) -> dict[str, Any]:
        """Return plain values, which a worker makes the same order of."""
        training = {name: getattr(self.training, name) for name in ("size", "steps", "seed")}
        plain = {"out": self.out, "strength": self.strength, "count": self.count, **training}
        return {"category": self.category.model_dump(), **plain}

    @classmethod
    def of_plain(cls, values: Mapping[str, Any]) -> "BankOrder":
        """Return the order that ``to_plain`` gave the values of."""
        return cls(
            category=Category.model_validate(values["category"]),
            out=values["out"],
            strength=values["strength"],
            count=values["count"],
            training=read_training(values["size"], values["steps"], values["seed"]),
        )

    @cached_property
    def training_key(self) -> str:
        """The same for the same training on the same files: hex sha256."""
        category, split = self.category, self.category.calibration_config
        settings = {
            "name": category.name,
            "layout": category.layout,
            "max_images": category.max_images,
            "preprocessing": category.preprocessing_settings,
            "held_out": [split.method, split.share, split.min_images],
            "training": [self.training.size, self.training.num_steps, self.training.seed],
        }
        text = json.dumps([KEY_VERSION, settings], sort_keys=True)
        total = hashlib.sha256(text.encode())
        for part in files_of(self.category).parts:
            total.update(part)
        return total.hexdigest()

    @property
    def key(self) -> str:
        """The same for the same bank, wherever it lies: hex sha256."""
        asked = [self.training_key, *self.strength, self.count]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def read_strength(text: str) -> tuple[float, float]:
    """Return the ends of a range that is written LOW-HIGH.

    Raises:
        SynthesisError: it is no range of numbers from 0.
    """
    found = RANGE.fullmatch(text)
    low, high = map(float, found.groups()) if found else (math.nan, math.nan)
    if not low <= high:
        raise SynthesisError(
            f"--strength {text}: expected LOW-HIGH, two numbers of at least 0, the smaller one "
            f"first, such as 0.1-0.5; 0 gives good images."
        )
    return low, high


def read_training(size: int, steps: int | None, seed: int) -> DenoiserConfig:
    """Return how the model is trained.

    Raises:
        SynthesisError: there is no model of that size, or no step.
    """
    try:
        return DenoiserConfig(size=size, steps=steps, seed=seed)
    except ValueError as error:
        raise SynthesisError(f"--{error}.") from error
