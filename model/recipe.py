"""The kind SimpleNet: how all heads of a detector are trained, and its presets.

Shapes: B images, C channels of a level, H x W its grid.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from model.folding import FoldedHeads, read_heads
from model.kind import Heads, Kind, Preset, TrainingSet
from model.preprocessing import Preprocessing
from model.rows import ImageRows, PatchRows
from model.simplenet import HeadConfig
from model.training import HeadTrainer, PassReport, TrainingConfig

BLOCK_IMAGES = 16  # images scored at a time
NO_MEMBER = -1  # leaves an image out


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Training of the head over patches and, unless None, of the head over images."""

    patch: TrainingConfig = field(default_factory=TrainingConfig)
    image: TrainingConfig | None = None

    def __post_init__(self) -> None:
        if self.image is None:
            return
        if self.members == 1:
            raise ValueError(
                "training.members: 1 leaves no member that has not seen an image, by which the "
                "two heads would compare; take 2 or more, or image_head: false"
            )
        if self.image.head.members != self.members:
            raise ValueError("both heads need the same number of members")

    @property
    def members(self) -> int:
        """Members of every head."""
        return self.patch.head.members

    def with_seed(self, seed: int) -> "Recipe":
        """Return the recipe with another seed in every head."""
        image = None if self.image is None else replace(self.image, seed=seed)
        return Recipe(patch=replace(self.patch, seed=seed), image=image)


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


_DEFAULT = Recipe(
    patch=TrainingConfig(head=HeadConfig(hidden=256)),
    image=TrainingConfig(
        head=HeadConfig(hidden=128),
        sigma=(0.1, 1.0),
        sigma_unit="channel_std",
        passes=10,
        steps_per_pass=150,
        batch_rows=256,
    ),
)
_OFFICIAL = replace(
    _AS_PUBLISHED, batch_images=8, optimisers=("adam", "adamw"), weight_decay=(1e-5, 1e-2)
)
PRESETS = {
    "default": Preset(recipe=_DEFAULT, preprocessing=Preprocessing(fit="stretch")),
    "paper": Preset(recipe=Recipe(patch=_AS_PUBLISHED)),
    "official": Preset(
        recipe=Recipe(patch=_OFFICIAL),
        preprocessing=Preprocessing(resize=329, crop=288),
        embedding_kind="official",
    ),
}


class RecipeTrainer:
    """Trains a recipe's heads one after the other on the same bank."""

    def __init__(self, training_set: TrainingSet, recipe: Recipe) -> None:
        """Train on a set; each member leaves a fold of it out, a single one sees them all."""
        bank, images, folds = training_set.bank, training_set.images, training_set.folds
        self.bank, self.recipe, self.images = bank, recipe, images
        self.folds = folds if recipe.members > 1 else torch.full_like(folds, NO_MEMBER)
        rows = PatchRows(bank, images, self.folds, recipe.patch)
        self.trainers = {"patch": HeadTrainer(rows, recipe.patch, bank.device)}
        if recipe.image is not None:
            whole = ImageRows(bank, images, self.folds, recipe.members)
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
        """Return the heads as they stand, ready to be stored and to score.

        Folded, rounded to what is stored and then, if there are two, made comparable.
        """
        channels = self.bank.level_channels
        heads = {name: trainer.folded(channels) for name, trainer in self.trainers.items()}
        folded = FoldedHeads(heads["patch"], heads.get("image"))
        folded.with_zones(self.bank.zones).round_to_half()
        if self.recipe.members > 1:
            folded.set_scale(
                (member.with_zones(zones), self.bank.images(index[places]))
                for member, index in self.unseen(folded)
                for zones, places in self.bank.by_zones(index)
            )
        return folded

    def unseen(self, heads: Heads) -> Iterator[tuple[FoldedHeads, Tensor]]:
        """Yield each member of these heads with images that it has not seen, a few at a time.

        The images are indices into the bank; each comes once if there are several members, and none
        if there is only one.
        """
        assert isinstance(heads, FoldedHeads)
        if self.recipe.members == 1:
            return
        for number, member in enumerate(heads.split(self.recipe.members)):
            for index in self.images[self.folds == number].split(BLOCK_IMAGES):
                yield member, index

    def health(self) -> dict[str, float]:
        """Return, for every head, shares beyond the margins and feature spread over sigma."""
        measured = {}
        for name, head in self.trainers.items():
            last = head.reports[-1]
            measured[f"{name}_normal_beyond_margin"] = last.normal_beyond_margin
            measured[f"{name}_noisy_beyond_margin"] = last.noisy_beyond_margin
            measured[f"{name}_spread_over_sigma"] = head.spread_over_sigma()
        return measured

    def state_dict(self) -> dict[str, Any]:
        """Return everything a restart needs."""
        return {name: trainer.state_dict() for name, trainer in self.trainers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a ``state_dict`` of a trainer with the same bank, images and recipe."""
        for name, trainer in self.trainers.items():
            trainer.load_state_dict(state[name])


SIMPLENET = Kind(
    presets=PRESETS, make_trainer=RecipeTrainer, read_heads=read_heads, is_studied=True
)
