"""The catalogue: the YAML file that lists categories and their settings.

Unknown keys are refused, a message names file, key and what was expected. A relative path is
relative to the file. Every setting has a default; ``defaults:`` changes it for all categories,
a category's own entry for that category.
"""

import posixpath
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
)

from model.backbone import BACKBONES, BackboneConfig
from model.embedding import Embedding, EmbeddingKind
from model.errors import NightshiftError
from model.precision import PrecisionSetting
from model.preprocessing import Fit, Preprocessing
from model.recipe import PRESETS, Recipe
from model.simplenet import Adaptor, Loss
from model.training import SigmaUnit
from model.weights import RANDOM
from pipeline import storage
from pipeline.calibration import DEFAULT_FDR, CalibrationConfig, Method
from pipeline.catalogue import strict_yaml
from pipeline.catalogue.category_name import PATTERN
from pipeline.catalogue.findings import findings_of_names, findings_of_shape, nearest
from pipeline.datasets.layouts import LAYOUTS

HEAD_SETTINGS = ("hidden", "members", "adaptor")
SECTIONS = ("defaults", "categories", "study")  # the last is read by pipeline/study/settings.py
MOST_FINDINGS = 40  # lines of one message


class CatalogueError(NightshiftError):
    """The catalogue cannot be read or does not say what it must."""


class Strict(BaseModel):
    """Settings of which unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class WeightsFile(Strict):
    """A backbone's weights with the sha256 they must have."""

    uri: str
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$")] | None = None


def as_weights_file(given: Any) -> Any:
    """Let a plain URI stand for a weights file."""
    return {"uri": given} if isinstance(given, str) else given


class Training(Strict):
    """What of the preset's training to change; ``model/training.py`` says what each means.

    All of it concerns the head over patches, but for ``seed``, ``image_head``, which leaves the
    head over whole images out, and ``health``, which may register a head that is not sound.
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


class Settings(Strict):
    """What ``defaults:`` and every category may set."""

    backbone: str = "wide_resnet50_2"
    weights: Annotated[WeightsFile | None, BeforeValidator(as_weights_file)] = None
    layers: list[int] = [2, 3]
    precision: PrecisionSetting = "float32"
    patch_size: Literal[1, 3, 5, 7] = 3
    embedding_kind: EmbeddingKind | None = None
    resize: int | None = None
    crop: int | None = None
    fit: Fit | None = None
    false_alarm_rate: float = Field(0.01, gt=0, lt=1)
    calibration_share: float = Field(0.2, gt=0, le=0.5)
    calibration: Method = "split"
    fdr: float = Field(DEFAULT_FDR, gt=0, lt=1)  # share of good images on the night's list
    max_images: PositiveInt | None = None  # good images to learn from, chosen at random; None: all
    cache_gb: float = Field(4.0, gt=0, allow_inf_nan=False)  # memory for features, 10^9 bytes
    cache_disk_gb: float = Field(64.0, gt=0, allow_inf_nan=False)  # beyond it, in a temporary file
    preset: Literal["default", "paper", "official"] = "default"
    training: Training = Training()


class Category(Settings):
    """One product: its name, where its images are, and its settings."""

    name: Annotated[str, StringConstraints(pattern=f"^{PATTERN}$")]
    images: Annotated[str, StringConstraints(min_length=1)]
    layout: str = "mvtec"

    @property
    def weights_uri(self) -> str | None:
        """Where the weights are; None: the backbone's own source."""
        return self.weights.uri if self.weights else None

    @property
    def weights_sha256(self) -> str | None:
        """The sha256 they must have, if one was given."""
        return self.weights.sha256 if self.weights else None

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become squares; what is not given is the preset's."""
        preset = PRESETS[self.preset].preprocessing
        return Preprocessing(
            resize=self.resize or preset.resize,
            crop=self.crop or preset.crop,
            fit=self.fit or preset.fit,
        )

    @property
    def calibration_config(self) -> CalibrationConfig:
        """False-alarm rate, share of held-out images, and the level of the night's list."""
        return CalibrationConfig(
            false_alarm_rate=self.false_alarm_rate,
            share=self.calibration_share,
            method=self.calibration,
            fdr=self.fdr,
        )

    @property
    def embedding(self) -> Embedding:
        """How levels become patch features."""
        kind = self.embedding_kind or PRESETS[self.preset].embedding_kind
        return Embedding(kind=kind, patch_size=self.patch_size)

    @property
    def recipe(self) -> Recipe:
        """The preset with this category's changes."""
        recipe = self.training.change(PRESETS[self.preset].recipe)
        if self.calibration == "cross" and recipe.members == 1:
            raise ValueError(
                "calibration: cross needs members that leave images out; "
                "set training.members to 2 or more"
            )
        return recipe

    @property
    def backbone_config(self) -> BackboneConfig:
        """Backbone, its weights and the levels read; in float32 while the mode is to be chosen."""
        return BackboneConfig(
            name=self.backbone,
            precision="float32" if self.precision == "auto" else self.precision,
            layers=tuple(self.layers),
            weights=self.weights_uri,
            sha256=self.weights_sha256,
        )


NESTED: dict[str, type[BaseModel]] = {"training": Training, "weights": WeightsFile}


def load_catalogue(uri: str) -> list[Category]:
    """Read, check and resolve a catalogue.

    Raises:
        CatalogueError: anything in it is not as it must be; all findings in one message.
    """
    folder = posixpath.dirname(storage.absolute(uri))
    return _resolve(uri, read_document(uri), folder)


def read_document(uri: str) -> Any:
    """Return the plain values of a catalogue file, none of them checked."""
    try:
        return strict_yaml.load(storage.read_bytes(storage.absolute(uri)))
    except storage.ObjectMissing as error:
        raise CatalogueError(f"catalogue {error}.") from error
    except strict_yaml.InvalidYaml as error:
        raise CatalogueError(f"{uri} is not valid YAML: {error}.") from error


def select(categories: list[Category], only: list[str]) -> list[Category]:
    """Keep the categories named; all when none is.

    Raises:
        CatalogueError: a name is not in the catalogue.
    """
    known = [category.name for category in categories]
    for name in only:
        if name not in known:
            raise CatalogueError(f"--only {name}: no such category{nearest(name, known)}.")
    return [category for category in categories if not only or category.name in only]


def _resolve(uri: str, document: Any, folder: str) -> list[Category]:
    if not isinstance(document, Mapping) or not isinstance(document.get("categories"), list):
        raise CatalogueError(f"{uri}: expected a mapping with the key `categories`, a list.")
    findings = [
        f"{key}: unknown key{nearest(str(key), SECTIONS)}"
        for key in document
        if key not in SECTIONS
    ]
    given = document.get("defaults")
    defaults = {} if given is None else given
    wrong_defaults = findings_of_shape(Settings, defaults, "defaults", NESTED)
    findings += wrong_defaults
    categories = []
    for index, entry in enumerate(document["categories"]):
        where = f"categories[{index}]"
        found = findings_of_shape(Category, entry, where, NESTED)
        if not found:
            merged = entry if wrong_defaults else _merge(defaults, entry)
            category, found = _finish(Category.model_validate(merged), where, folder)
            categories.append(category)
        findings += found
    findings += findings_of_names(document["categories"])
    if findings:
        lines = [f"{uri}: {finding}" for finding in findings[:MOST_FINDINGS]]
        if len(findings) > MOST_FINDINGS:  # a wrong default is wrong in a thousand categories
            lines.append(f"{uri}: and {len(findings) - MOST_FINDINGS} more")
        raise CatalogueError("\n".join(lines))
    return categories


def _merge(defaults: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """Put a category's settings over the defaults, and those of its training likewise."""
    training = {**(defaults.get("training") or {}), **(entry.get("training") or {})}
    return {**defaults, **entry, "training": training}


def _finish(category: Category, where: str, folder: str) -> tuple[Category, list[str]]:
    """Return the category with absolute paths, and one line per setting that is refused."""
    findings = []
    if category.layout not in LAYOUTS:
        known = nearest(category.layout, sorted(LAYOUTS))
        findings.append(f"{where}.layout: no layout `{category.layout}`{known}")
    checks: list[Callable[[], object]] = [
        lambda: category.preprocessing,
        lambda: category.calibration_config,
        lambda: category.recipe,
    ]
    if category.backbone in BACKBONES:
        checks.append(lambda: category.backbone_config)
    else:
        known = nearest(category.backbone, list(BACKBONES))
        findings.append(f"{where}.backbone: no backbone `{category.backbone}`{known}")
    for check in checks:
        try:
            check()
        except ValueError as error:
            findings.append(f"{where}: {error}")
    try:
        return _with_absolute_paths(category, folder), findings
    except storage.StorageError as error:
        return category, [*findings, f"{where}: {error}"]


def _with_absolute_paths(category: Category, folder: str) -> Category:
    changes: dict[str, Any] = {"images": storage.absolute(category.images, folder)}
    weights = category.weights
    if weights is not None and weights.uri != RANDOM:
        uri = storage.absolute(weights.uri, folder)
        changes["weights"] = weights.model_copy(update={"uri": uri})
    return category.model_copy(update=changes)
