"""The catalogue: the YAML file that lists categories and their settings.

Unknown keys are refused, a message names file, key and what was expected. A relative path is
relative to the file. Every setting has a default; ``defaults:`` changes it for all categories,
a category's own entry for that category.
"""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from model.backbone import BACKBONES, BackboneConfig
from model.errors import NightshiftError
from model.preprocessing import Preprocessing
from model.simplenet import HeadConfig
from model.training import TrainingConfig
from model.weights import RANDOM
from pipeline import storage
from pipeline.calibration import CalibrationConfig
from pipeline.layouts import LAYOUTS

SLUG = r"^[a-z0-9][a-z0-9_-]{0,56}$"


class CatalogueError(NightshiftError):
    """The catalogue cannot be read or does not say what it must."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WeightsFile(_Strict):
    """A backbone's weights with the sha256 they must have."""

    uri: str
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$")] | None = None


class Training(_Strict):
    """What of the preset's head training to change; see ``model/training.py`` for the meaning."""

    sigma: float | None = Field(None, gt=0)
    sigma_unit: Literal["std", "absolute"] | None = None
    margins: tuple[float, float] | None = None
    passes: int | None = Field(None, ge=1)
    steps_per_pass: int | None = Field(None, ge=1)
    batch_patches: int | None = Field(None, ge=2)
    hidden: int | None = Field(None, ge=1)
    members: int | None = Field(None, ge=1)
    adaptor: bool | None = None
    seed: int | None = Field(None, ge=0)


class Settings(_Strict):
    """What ``defaults:`` and every category may set."""

    backbone: str = "wide_resnet50_2"
    weights: str | WeightsFile | None = None
    layers: list[int] = [2, 3]
    patch_size: Literal[1, 3, 5, 7] = 3
    resize: int = 256
    crop: int = 224
    false_alarm_rate: float = Field(0.01, gt=0, lt=1)
    calibration_share: float = Field(0.2, gt=0, le=0.5)
    preset: Literal["default"] = "default"
    training: Training = Training()


class Category(Settings):
    """One product: its name, where its images are, and its settings."""

    name: Annotated[str, StringConstraints(pattern=SLUG)]
    images: str
    layout: str = "mvtec"

    @property
    def weights_uri(self) -> str | None:
        """Where the weights are, whichever way they were written."""
        return self.weights.uri if isinstance(self.weights, WeightsFile) else self.weights

    @property
    def weights_sha256(self) -> str | None:
        """The sha256 they must have, if one was given."""
        return self.weights.sha256 if isinstance(self.weights, WeightsFile) else None

    @property
    def preprocessing(self) -> Preprocessing:
        """Resize and crop."""
        return Preprocessing(resize=self.resize, crop=self.crop)

    @property
    def calibration_config(self) -> CalibrationConfig:
        """False-alarm rate and share of held-out images."""
        return CalibrationConfig(
            false_alarm_rate=self.false_alarm_rate, share=self.calibration_share
        )

    @property
    def training_config(self) -> TrainingConfig:
        """The preset with this category's changes."""
        changes = self.training.model_dump(exclude_none=True)
        head = {key: changes.pop(key) for key in ("hidden", "members", "adaptor") if key in changes}
        return TrainingConfig(head=HeadConfig(**head), **changes)

    @property
    def backbone_config(self) -> BackboneConfig:
        """Backbone, its weights and the levels read."""
        return BackboneConfig(
            name=self.backbone,
            layers=tuple(self.layers),
            weights=self.weights_uri,
            sha256=self.weights_sha256,
        )


def load_catalogue(uri: str) -> list[Category]:
    """Read, check and resolve a catalogue.

    Raises:
        CatalogueError: anything in it is not as it must be; all findings in one message.
    """
    place = storage.absolute(uri)
    try:
        document = yaml.load(storage.read_bytes(place), Loader=_UniqueKeyLoader)  # noqa: S506  a SafeLoader
    except storage.ObjectMissing as error:
        raise CatalogueError(f"catalogue {uri} does not exist.") from error
    except yaml.YAMLError as error:
        raise CatalogueError(f"{uri} is not valid YAML: {error}") from error
    return _resolve(uri, document, folder=place.rsplit("/", 1)[0])


def select(categories: list[Category], only: list[str]) -> list[Category]:
    """Keep the categories named; all when none is.

    Raises:
        CatalogueError: a name is not in the catalogue.
    """
    known = [category.name for category in categories]
    for name in only:
        if name not in known:
            raise CatalogueError(f"--only {name}: no such category{_nearest(name, known)}.")
    return [category for category in categories if not only or category.name in only]


def _resolve(uri: str, document: Any, folder: str) -> list[Category]:
    if not isinstance(document, Mapping) or not isinstance(document.get("categories"), list):
        raise CatalogueError(f"{uri}: expected a mapping with the key `categories`, a list.")
    findings = [
        f"{key}: unknown key{_nearest(str(key), ['defaults', 'categories'])}"
        for key in document.keys() - {"defaults", "categories"}
    ]
    defaults = document.get("defaults") or {}
    findings += _check(Settings, defaults, "defaults")
    categories = []
    for index, entry in enumerate(document["categories"]):
        where = f"categories[{index}]"
        found = _check(Category, entry, where)
        findings += found
        if not found and not findings:
            category = Category.model_validate({**defaults, **entry})
            findings += _check_settings(category, where)
            categories.append(_with_absolute_paths(category, folder))
    names = [category.name for category in categories]
    findings += [
        f"categories: name `{name}` is there {names.count(name)} times; names must be unique"
        for name in sorted(set(names))
        if names.count(name) > 1
    ]
    if not document["categories"]:
        findings.append("categories: expected at least one category, found none")
    if findings:
        raise CatalogueError("\n".join(f"{uri}: {finding}" for finding in findings))
    return categories


def _check(schema: type[BaseModel], entry: Any, where: str) -> list[str]:
    """Return one line per fault of shape or type."""
    if not isinstance(entry, Mapping):
        return [f"{where}: expected a mapping of settings, found {entry!r}"]
    try:
        schema.model_validate(entry)
    except ValidationError as error:
        return [_finding(fault, schema, where) for fault in error.errors()]
    return []


def _finding(fault: Any, schema: type[BaseModel], where: str) -> str:
    key = ".".join(str(part) for part in (where, *fault["loc"]))
    if fault["type"] == "extra_forbidden":
        known = list(Training.model_fields if "training" in fault["loc"] else schema.model_fields)
        return f"{key}: unknown key{_nearest(str(fault['loc'][-1]), known)}"
    if fault["loc"] and fault["loc"][-1] == "name":
        return (
            f"{key}: expected a slug of a-z, 0-9, `_`, `-` that starts with a letter or digit, "
            f"57 characters at most; found {fault['input']!r}"
        )
    return f"{key}: {fault['msg']}; found {fault['input']!r}"


def _check_settings(category: Category, where: str) -> list[str]:
    """Return one line per setting that another module's config refuses."""
    findings = []
    if category.layout not in LAYOUTS:
        known = sorted(LAYOUTS)
        findings.append(f"{where}.layout: expected one of {', '.join(known)}")
    if category.backbone not in BACKBONES:
        nearest = _nearest(category.backbone, list(BACKBONES))
        findings.append(f"{where}.backbone: no backbone `{category.backbone}`{nearest}")
        return findings
    checks = (
        lambda: category.backbone_config,
        lambda: category.preprocessing,
        lambda: category.calibration_config,
        lambda: category.training_config,
    )
    for check in checks:
        try:
            check()
        except ValueError as error:
            findings.append(f"{where}: {error}")
    return findings


def _with_absolute_paths(category: Category, folder: str) -> Category:
    changes: dict[str, Any] = {"images": storage.absolute(category.images, folder)}
    uri = category.weights_uri
    if uri not in (None, RANDOM):
        changes["weights"] = WeightsFile(
            uri=storage.absolute(str(uri), folder), sha256=category.weights_sha256
        )
    return category.model_copy(update=changes)


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean `{close[0]}`?" if close else f"; known: {', '.join(known)}"


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, where YAML would keep the last in silence."""


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is given twice", node.start_mark
            )
    return loader.construct_mapping(node, deep=True)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
