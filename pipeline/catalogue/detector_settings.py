"""The settings of each kind of detector, and the recipe that they make of a preset's."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from model.kinds import KINDS
from model.memory_bank import MemoryBankRecipe
from model.recipe import Recipe
from model.simplenet import Adaptor, Loss
from model.training import SigmaUnit

HEAD_SETTINGS = ("hidden", "members", "adaptor")
SECTION_KINDS = {"training": "simplenet", "memory_bank": "memory_bank"}  # whose settings they hold
OF_EVERY_KIND = frozenset({"seed", "health"})  # settings of `training` that hold for every kind


class Strict(BaseModel):
    """Settings of which unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Training(Strict):
    """What of the preset's training to change; ``model/training.py`` says what each means.

    All of it concerns SimpleNet's head over patches, but for ``seed``, ``image_head``, which leaves
    the head over whole images out, and ``health``, which may register a head that is not sound.
    """

    sigma: PositiveFloat | tuple[PositiveFloat, PositiveFloat] | None = None
    sigma_unit: SigmaUnit | None = None
    margins: tuple[float, float] | None = None
    loss: Loss | None = None
    passes: PositiveInt | None = None
    steps_per_pass: PositiveInt | None = None
    batch_rows: int | None = Field(default=None, ge=2)
    hidden: PositiveInt | None = None
    members: PositiveInt | None = None
    adaptor: Adaptor | None = None
    seed: int = Field(default=0, ge=0)
    image_head: bool = True
    health: Literal["refuse", "warn"] = "refuse"  # a head that did not train or collapsed

    def change(self, recipe: Recipe) -> Recipe:
        """Return the recipe with these changes."""
        apart = {"seed", "image_head", "health"}
        changes = self.model_dump(exclude_none=True, exclude=apart)
        shape = {name: changes.pop(name) for name in HEAD_SETTINGS if name in changes}
        if "sigma" in changes and isinstance(self.sigma, float):
            changes["sigma"] = (self.sigma, self.sigma)
        head = replace(recipe.patch.head, **shape)
        patch = replace(recipe.patch, head=head, seed=self.seed, **changes)
        if recipe.image is None or not self.image_head:
            return Recipe(patch=patch)
        whole = replace(recipe.image.head, members=head.members)
        return Recipe(patch=patch, image=replace(recipe.image, head=whole, seed=self.seed))


class MemoryBankSettings(Strict):
    """What of the preset's memory bank to change; ``model/memory_bank.py`` says what each means."""

    size: PositiveInt | None = None
    share: float | None = Field(default=None, gt=0, le=1)
    variance: float | None = Field(default=None, gt=0, le=1)
    whitening: float | None = Field(default=None, ge=0, le=1)
    neighbours: int | None = Field(default=None, ge=0)

    def change(self, recipe: MemoryBankRecipe) -> MemoryBankRecipe:
        """Return the recipe with these changes."""
        return replace(recipe, **self.model_dump(exclude_none=True))


def make_recipe(
    detector: str, preset: str, training: Training, memory_bank: MemoryBankSettings
) -> Any:
    """Return a preset's recipe of a kind with a category's changes.

    Raises:
        ValueError: the preset is another kind's, settings are another kind's, or they do not go
            together.
    """
    recipe = find_preset(detector, preset).recipe
    for section, settings in {"training": training, "memory_bank": memory_bank}.items():
        given = settings.model_dump(exclude_defaults=True)
        foreign = sorted(given.keys() - of_kind(section, given, detector).keys())
        if foreign:
            raise ValueError(
                f"{section}: {', '.join(foreign)} belong to `detector: {SECTION_KINDS[section]}`, "
                f"the category has {detector}; leave them out"
            )
    if detector == "simplenet":
        return training.change(recipe)
    return memory_bank.change(recipe).with_seed(training.seed)


def of_kind(section: str, settings: Mapping[str, Any], detector: str) -> dict[str, Any]:
    """Return those settings of a section that concern a kind of detector."""
    is_own = SECTION_KINDS[section] == detector
    return {name: value for name, value in settings.items() if is_own or name in OF_EVERY_KIND}


def find_preset(detector: str, preset: str) -> Any:
    """Return a preset of a kind.

    Raises:
        ValueError: the kind has none of this name.
    """
    presets = KINDS[detector].presets
    if preset in presets:
        return presets[preset]
    having = [name for name, kind in KINDS.items() if preset in kind.presets]
    raise ValueError(
        f"preset: `{preset}` belongs to `detector: {' or '.join(having) or 'none'}`; {detector} "
        f"has {', '.join(presets)}"
    )
