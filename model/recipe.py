"""A recipe: how all heads of a detector are trained. A preset is a recipe with a name.

Shapes: B images, C channels of a level, H x W its grid.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from model.feature_bank import FeatureBank
from model.folding import FoldedHeads, fold
from model.rows import ImageRows, PatchRows
from model.simplenet import HeadConfig
from model.training import HeadTrainer, PassReport, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Training of the head over patches and, unless None, of the head over images."""

    patch: TrainingConfig = field(default_factory=TrainingConfig)
    image: TrainingConfig | None = None


# What the paper and its released code share: one wide head on whole images, a fixed absolute
# sigma, constant learning rates. Sections 4.1 and 4.3; run.sh of the release for "official".
_AS_PUBLISHED = TrainingConfig(
    head=HeadConfig(hidden=1024, members=1, adaptor="linear", momentum=0.1),
    sigma=(0.015, 0.015),
    sigma_unit="absolute",
    passes=160,
    coreset=0,
    batch_images=4,
    optimisers=("adam", "adam"),
    learning_rate=2e-4,
    adaptor_learning_rate=1e-4,
    weight_decay=(1e-5, 1e-5),
    warm_up_steps=0,
    decay=False,
)
PRESETS = {
    "default": Recipe(
        image=TrainingConfig(
            head=HeadConfig(hidden=512, members=1),
            sigma=(0.1, 1.0),
            sigma_unit="channel_std",
            passes=10,
            steps_per_pass=150,
            batch_rows=256,
        )
    ),
    "paper": Recipe(patch=_AS_PUBLISHED),
    "official": Recipe(
        patch=replace(
            _AS_PUBLISHED,
            batch_images=8,
            optimisers=("adam", "adamw"),
            weight_decay=(1e-5, 1e-2),
        )
    ),
}


class RecipeTrainer:
    """Trains a recipe's heads one after the other on the same bank."""

    def __init__(self, bank: FeatureBank, images: Tensor, recipe: Recipe) -> None:
        """Train on the images of ``bank`` that ``images`` names, an index of shape (N,)."""
        self.bank, self.recipe = bank, recipe
        rows = PatchRows(bank, images, recipe.patch)
        self.trainers = {"patch": HeadTrainer(rows, recipe.patch, bank.device)}
        if recipe.image is not None:
            whole = ImageRows(bank, images)
            self.trainers["image"] = HeadTrainer(whole, recipe.image, bank.device)

    @property
    def num_passes(self) -> int:
        """Passes of a whole training, all heads together."""
        return sum(trainer.config.passes for trainer in self.trainers.values())

    @property
    def reports(self) -> list[tuple[str, PassReport]]:
        """Every finished pass as (head, report), in the order they ran."""
        return [
            (name, report) for name, trainer in self.trainers.items() for report in trainer.reports
        ]

    def run(self) -> Iterator[PassReport]:
        """Train the passes that are left; may be stopped between any two of them."""
        for trainer in self.trainers.values():
            yield from trainer.run()

    def folded(self) -> FoldedHeads:
        """Return the heads as they stand, folded for scoring, each still on its own scale."""
        channels = [level.shape[2] for level in self.bank.levels]
        heads = {
            name: fold(trainer.head.eval(), trainer.mean_C, trainer.std_C, channels)
            for name, trainer in self.trainers.items()
        }
        return FoldedHeads(heads["patch"], heads.get("image"))

    def state_dict(self) -> dict[str, Any]:
        """Return everything a restart needs."""
        return {name: trainer.state_dict() for name, trainer in self.trainers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a ``state_dict`` of a trainer with the same bank, images and recipe."""
        for name, trainer in self.trainers.items():
            trainer.load_state_dict(state[name])
