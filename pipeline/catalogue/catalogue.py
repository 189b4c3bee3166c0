"""The catalogue: the YAML file that lists categories and their settings.

Unknown keys are refused, a message names file, key and what was expected. A relative path is
relative to the file. Every setting has a default; ``defaults:`` changes it for all categories,
a category's own entry for that category. A category that changes nothing is its name alone::

    defaults: {images: "s3://factory/{name}", layout: mvtec}
    categories: [bottle, gear, {name: cable, images: "s3://elsewhere/cable"}]
"""

import posixpath
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    PositiveInt,
    StringConstraints,
    model_validator,
)

from model.backbone import BackboneConfig
from model.embedding import Embedding, EmbeddingKind
from model.errors import NightshiftError
from model.kinds import KINDS
from model.precision import Precision, PrecisionSetting
from model.preprocessing import MAX_PIXELS, Pages, Preprocessing
from pipeline import storage
from pipeline.calibration import DEFAULT_FDR, CalibrationConfig, Method
from pipeline.catalogue import strict_yaml
from pipeline.catalogue.addresses import Context, ExcludeSetting, ImagesAddress, LabelsSetting
from pipeline.catalogue.category_name import PATTERN
from pipeline.catalogue.detector_settings import (
    DETECTOR_SECTIONS,
    MemoryBankSettings,
    RealNetSettings,
    Strict,
    Training,
    advice_for_cross,
    find_preset,
    make_recipe,
    of_kind,
    takes_anomalies,
)
from pipeline.catalogue.findings import findings_of_names, nearest, read_settings
from pipeline.catalogue.image_size import CropSetting, FitSetting, make_preprocessing
from pipeline.catalogue.known_names import BackboneName, DetectorName, LayoutName, PatchSize
from pipeline.catalogue.strict_yaml import shown
from pipeline.catalogue.tiles_setting import TilesSetting
from pipeline.catalogue.weights_file import WeightsFile, as_weights_file
from pipeline.catalogue.zone_settings import ZoneSettings
from pipeline.datasets.bursts import GroupSetting, column_of

SECTIONS = ("defaults", "categories", "study")  # the last is read by pipeline/study/settings.py
DETECTOR, PRESET = "simplenet", "default"  # of a category that names none
MOST_FINDINGS = 40  # lines of one message


class CatalogueError(NightshiftError):
    """The catalogue cannot be read or does not say what it must."""


class Settings(Strict):
    """What ``defaults:`` and every category may set."""

    images: ImagesAddress | None = None
    layout: LayoutName = "mvtec"
    backbone: BackboneName = "wide_resnet50_2"
    weights: Annotated[WeightsFile | None, BeforeValidator(as_weights_file)] = None
    layers: list[int] = Field(default_factory=lambda: [2, 3])
    precision: PrecisionSetting = "float32"
    patch_size: PatchSize = 3
    embedding_kind: EmbeddingKind | None = None
    resize: int | None = None
    crop: CropSetting = None
    # "keep": the rectangle of the good images' own proportions with crop x crop pixels.
    fit: FitSetting | None = None
    tiles: TilesSetting = None
    # The number that is white in files of more than 8 bits; None: found in the good images.
    pixel_range: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    pages: Pages = "one"  # of a file with several, "first" takes the first
    max_pixels: PositiveInt = MAX_PIXELS
    false_alarm_rate: float = Field(0.01, gt=0, lt=1)
    calibration_share: float = Field(0.2, gt=0, le=0.5)
    calibration: Method = "split"
    fdr: float = Field(DEFAULT_FDR, gt=0, lt=1)  # share of good images on the night's list
    # Share of good images that show any region, at most; None: the false-alarm rate.
    region_rate: float | None = Field(default=None, gt=0, lt=1)
    max_images: PositiveInt | None = None  # good images to learn from, chosen at random; None: all
    exclude: ExcludeSetting = None
    labels: LabelsSetting = ()  # results whose labels are learned from
    promote: Literal["always", "gate"] = "always"  # new versions go live, or ask the gate
    results: ImagesAddress | None = None  # by whose nights and labels the gate judges
    group: GroupSetting = None  # what is shot together stays together
    contamination: Literal["report", "drop", "refuse"] = "report"  # of suspected defects
    cache_gb: float = Field(4.0, gt=0, allow_inf_nan=False)  # memory for features, 10^9 bytes
    cache_disk_gb: float = Field(64.0, gt=0, allow_inf_nan=False)  # beyond it, in a temporary file
    detector: DetectorName = DETECTOR
    preset: str = PRESET
    anomalies: ImagesAddress | None = None  # images that a kind learns from; None: made ones
    training: Training = Training()
    memory_bank: MemoryBankSettings = MemoryBankSettings()
    realnet: RealNetSettings = RealNetSettings()
    zones: ZoneSettings = ZoneSettings()


class Category(Settings):
    """One product: its name, where its images are, and its settings."""

    name: Annotated[str, StringConstraints(pattern=f"^{PATTERN}$")]
    images: ImagesAddress

    @model_validator(mode="before")
    @classmethod
    def _with_features_of_preset(cls, given: Any) -> Any:
        """Fill in the features that the preset is meant for, where the category names none."""
        if not isinstance(given, Mapping):
            return given
        try:
            preset = find_preset(given.get("detector", DETECTOR), given.get("preset", PRESET))
        except (KeyError, TypeError, ValueError):  # told by the fields' own checks
            return given
        return {**preset.features, **given}

    @model_validator(mode="after")
    def _fits_together(self) -> "Category":
        """Refuse settings that are right one by one and not together, all of them at once."""
        findings = []
        parts = ("preprocessing", "calibration_config", "recipe", "backbone_config", "precisions")
        for part in (*parts, "group_column"):
            try:
                getattr(self, part)
            except ValueError as error:
                findings.append(str(error))
        if findings:
            raise ValueError("\n".join(findings))
        return self

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
        return make_preprocessing(self, find_preset(self.detector, self.preset).preprocessing)

    @property
    def finds_crop(self) -> bool:
        """Whether ``preprocessing`` has a stand-in for the rectangle of the images themselves."""
        return self.fit == "keep"

    @property
    def preprocessing_settings(self) -> dict[str, Any]:
        """What tells ``preprocessing`` from another before the images were looked at."""
        found = self.preprocessing.to_json()
        return found | {"fit": self.fit} if self.finds_crop else found

    @property
    def group_column(self) -> str | None:
        """The column of the manifest that says what was shot together, where one does."""
        return column_of(self.group, self.layout)

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
        preset = find_preset(self.detector, self.preset)
        kind = self.embedding_kind or preset.embedding_kind
        return Embedding(kind=kind, patch_size=self.patch_size)

    @property
    def recipe(self) -> Any:
        """The preset's recipe of this kind of detector, with the category's changes."""
        sections = {name: getattr(self, name) for name in DETECTOR_SECTIONS}
        recipe = make_recipe(self.detector, self.preset, sections)
        if self.calibration == "cross" and recipe.members == 1:
            raise ValueError(
                f"calibration: cross needs members that leave images out; "
                f"{advice_for_cross(self.detector)}"
            )
        if self.tiles is not None and takes_anomalies(self.detector, recipe):
            raise ValueError(
                f"tiles: {self.detector} learns from anomalies made on whole crops; leave tiles "
                f"out, or take another `detector`"
            )
        if self.anomalies is not None and not takes_anomalies(self.detector, recipe):
            raise ValueError(
                f"anomalies: {self.detector} learns from good images alone; leave it out, or take "
                f"a `detector` that learns from anomalies"
            )
        return recipe

    @property
    def precisions(self) -> Collection[Precision]:
        """The backbone's numeric modes that may be used, one or those to choose from."""
        allowed = KINDS[self.detector].precisions
        if self.precision == "auto":
            return allowed
        if self.precision not in allowed:
            raise ValueError(
                f"precision: {self.precision} moves the scores of {self.detector} too far; take "
                f"{' or '.join(sorted(allowed))}"
            )
        return [self.precision]

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


NESTED: dict[str, type[BaseModel]] = {
    **DETECTOR_SECTIONS,
    "weights": WeightsFile,
    "zones": ZoneSettings,
}


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
    defaults, wrong_defaults = _read_defaults(document.get("defaults"), folder)
    findings += [line for lines in wrong_defaults.values() for line in lines]
    told_already = tuple(f".{key}: is required" for key in wrong_defaults)
    entries = [{"name": e} if isinstance(e, str) else e for e in document["categories"]]
    categories = []
    for index, entry in enumerate(entries):
        category, found = _read_entry(f"categories[{index}]", entry, defaults, folder)
        findings += [line for line in found if not line.endswith(told_already)]
        categories += [category] if category else []
    findings += findings_of_names(entries)
    if findings:
        lines = [f"{uri}: {finding}" for finding in findings[:MOST_FINDINGS]]
        if len(findings) > MOST_FINDINGS:  # a wrong default is wrong in a thousand categories
            lines.append(f"{uri}: and {len(findings) - MOST_FINDINGS} more")
        raise CatalogueError("\n".join(lines))
    return categories


def _read_defaults(given: Any, folder: str) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return the defaults that are right by themselves, and what is wrong with each other one."""
    context = Context(folder=folder, name="name")
    if given is None:
        return {}, {}
    if not isinstance(given, Mapping):
        return {}, {"": read_settings(Settings, given, "defaults", NESTED)[1]}
    found = {
        key: read_settings(Settings, {key: value}, "defaults", NESTED, context)[1]
        for key, value in given.items()
    }
    right = {key: value for key, value in given.items() if not found[key]}
    return right, {key: lines for key, lines in found.items() if lines}


def _read_entry(
    where: str, entry: Any, defaults: Mapping[str, Any], folder: str
) -> tuple[Category | None, list[str]]:
    if not isinstance(entry, Mapping):
        return None, [f"{where}: expected a name or a mapping of settings, found {shown(entry)}"]
    name = entry.get("name")
    context = Context(folder=folder, name=name if isinstance(name, str) else None)
    return read_settings(Category, _merge(defaults, entry), where, NESTED, context)


def _merge(defaults: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """Put a category's settings over the defaults, and those of its kind of detector likewise."""
    detector = entry.get("detector", defaults.get("detector", DETECTOR))
    merged = {**defaults, **entry}
    for section in DETECTOR_SECTIONS:
        general, own = defaults.get(section), entry.get(section, {})
        if isinstance(general, Mapping) and isinstance(own, Mapping):
            merged[section] = {**of_kind(section, general, detector), **own}
    return merged
