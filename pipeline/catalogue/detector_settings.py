"""The settings of each kind of detector, and the recipe that they make of a preset's."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from model.kind import Preset
from model.kinds import KINDS
from model.realnet.realnet_recipe import Residuals, Selection
from model.recipe import Recipe
from model.simplenet import Adaptor, Loss
from model.training import SigmaUnit

HEAD_SETTINGS = ("hidden", "members", "adaptor")
OF_EVERY_KIND = frozenset({"seed", "health"})  # settings of `training` that hold for every kind


class Strict(BaseModel):
    """Settings of which unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Section(Strict):
    """Settings of one kind of detector, in a section of their own of a category."""

    detector: ClassVar[str]  # the kind, a key of ``KINDS``
    for_cross: ClassVar[str] = "take split"  # what to do where a recipe has a single member

    def change(self, recipe: Any) -> Any:
        """Return a recipe of the kind with these changes; what is None stays as it is.

        Raises:
            ValueError: they do not go together.
        """
        return replace(recipe, **self.model_dump(exclude_none=True))


class Training(Section):
    """What of the preset's training to change; ``model/training.py`` says what each means.

    All of it concerns SimpleNet's head over patches, but for ``seed``, ``image_head``, which leaves
    the head over whole images out, and ``health``, which may register a head that is not sound.
    """

    detector = "simplenet"
    for_cross = "set training.members to 2 or more"

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
        patch = replace(recipe.patch, head=head, **changes)
        if recipe.image is None or not self.image_head:
            return Recipe(patch=patch)
        whole = replace(recipe.image.head, members=head.members)
        return Recipe(patch=patch, image=replace(recipe.image, head=whole))


class MemoryBankSettings(Section):
    """What of the preset's memory bank to change; ``model/memory_bank.py`` says what each means."""

    detector = "memory_bank"

    size: PositiveInt | None = None
    share: float | None = Field(default=None, gt=0, le=1)
    variance: float | None = Field(default=None, gt=0, le=1)
    whitening: float | None = Field(default=None, ge=0, le=1)
    neighbours: int | None = Field(default=None, ge=0)


class RealNetSettings(Section):
    """What of the preset to change; ``model/realnet/realnet_recipe.py`` says what each means."""

    detector = "realnet"

    channels: tuple[PositiveInt, ...] | None = Field(default=None, min_length=1)
    selection: Selection | None = None
    residuals: Residuals | None = None
    pairs: PositiveInt | None = None
    passes: PositiveInt | None = None
    steps_per_pass: PositiveInt | None = None
    batch_images: int | None = Field(default=None, ge=2, multiple_of=2)


# By name. A new kind adds its class here and a field to the catalogue's ``Settings``.
DETECTOR_SECTIONS: dict[str, type[Section]] = {
    "training": Training,
    "memory_bank": MemoryBankSettings,
    "realnet": RealNetSettings,
}


def make_recipe(detector: str, preset: str, sections: Mapping[str, Section]) -> Any:
    """Return a preset's recipe of a kind with a category's changes.

    ``sections`` are those of ``DETECTOR_SECTIONS``, by name.

    Raises:
        ValueError: the preset is another kind's, settings are another kind's, or they do not go
            together.
    """
    recipe = find_preset(detector, preset).recipe
    for name, section in sections.items():
        given = section.model_dump(exclude_defaults=True)
        foreign = sorted(given.keys() - of_kind(name, given, detector).keys())
        if foreign:
            raise ValueError(
                f"{name}: {', '.join(foreign)} belong to `detector: {section.detector}`, "
                f"the category has {detector}; leave them out"
            )
        if section.detector == detector:
            recipe = section.change(recipe)
        elif section.detector in KINDS[detector].parts:
            part = section.change(getattr(recipe, section.detector))
            recipe = recipe.with_part(section.detector, part)
    return recipe.with_seed(sections["training"].model_dump()["seed"])


def takes_anomalies(detector: str, recipe: Any) -> bool:
    """Whether a kind learns from anomalous images."""
    return KINDS[detector].num_pairs(recipe) > 0


def advice_for_cross(detector: str) -> str:
    """Return what to do where a recipe of a kind has no members that leave images out."""
    return next(each.for_cross for each in DETECTOR_SECTIONS.values() if each.detector == detector)


def of_kind(name: str, settings: Mapping[str, Any], detector: str) -> dict[str, Any]:
    """Return those settings of a section that concern a kind of detector."""
    is_own = DETECTOR_SECTIONS[name].detector in (detector, *KINDS[detector].parts)
    return {each: value for each, value in settings.items() if is_own or each in OF_EVERY_KIND}


def find_preset(detector: str, preset: str) -> Preset:
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
