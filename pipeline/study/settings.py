"""The `study:` section of a catalogue: what is searched, for how long, and by what it is scored."""

import hashlib
import json
import math
import posixpath
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, PositiveFloat, PositiveInt

from model.kinds import KINDS
from pipeline import storage
from pipeline.catalogue.addresses import Context, ImagesAddress
from pipeline.catalogue.catalogue import CatalogueError, Category, read_document
from pipeline.catalogue.detector_settings import Strict
from pipeline.catalogue.findings import read_settings
from pipeline.catalogue.known_names import BackboneName, LayoutName
from pipeline.catalogue.weights_file import WeightsFile, as_weights_file
from pipeline.feature_store.place import StorePlace
from pipeline.study.space import (
    DEFAULT_SPACE,
    Configuration,
    Domain,
    apply,
    findings_of_values,
    label,
    read_space,
)

# Settings of a category that came after studies: while they change nothing they are no part of what
# makes a study this one, so that one that was begun before them goes on.
LATER = ("tiles", "region_rate", "labels", "promote", "results", "zones")
Objective = Literal["balanced", "image_auroc", "pixel_ap", "aupro"]


class LabelledSet(Strict):
    """Labelled images to judge by instead of synthetic anomalies; never the test images."""

    images: ImagesAddress
    layout: LayoutName = "mvtec"


class StudySettings(Strict):
    """How a study runs; every setting has a default."""

    trials: PositiveInt = 60
    seed: int = Field(default=0, ge=0)  # of the sampler and of every trial's training
    seeds: PositiveInt = 3  # with which the finalists are trained again
    finalists: PositiveInt = 2  # best settings for all categories that are trained again
    objective: Objective = "balanced"  # the mean of image AUROC and pixel average precision
    members: PositiveInt = 1  # of a trial's head; those of the recipe differ in their start only
    validation_share: float = Field(default=0.25, gt=0, le=0.5)  # good images held out of training
    anomalies: int = Field(default=96, ge=12)  # synthetic ones that a trial is scored by
    early_stopping: bool = True
    concurrency: PositiveInt | None = None  # trials at a time; None: as many as there is room for
    gpus_per_trial: PositiveFloat | None = None  # None: a whole one where there are GPUs
    space: dict[str, Any] = Field(default_factory=lambda: dict(DEFAULT_SPACE))
    weights: dict[BackboneName, Annotated[WeightsFile, BeforeValidator(as_weights_file)]] = Field(
        default_factory=dict
    )  # of backbones that are not the category's own
    validation: dict[str, LabelledSet] = Field(default_factory=dict)  # by category

    @property
    def num_folds(self) -> int:
        """Folds of the good images, of which a training leaves one out."""
        return max(round(1 / self.validation_share), 2)


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study of some categories, everything about it checked."""

    name: str
    settings: StudySettings
    space: Mapping[str, Domain]
    categories: Sequence[Category]
    key: str = ""  # its own, whatever becomes of its categories
    store: StorePlace | None = None  # of features that were computed before

    def at(self, uri: str) -> "Study":
        """Return the study with the key that it has in this folder."""
        text = json.dumps([uri, self.identity], sort_keys=True, default=str)
        return replace(self, key=hashlib.sha256(text.encode()).hexdigest())

    def without(self, names: Container[str]) -> "Study":
        """Return the study of its other categories."""
        return replace(self, categories=[c for c in self.categories if c.name not in names])

    def apply(self, configuration: Configuration, category: Category) -> Category:
        """Return the category with the settings of a configuration."""
        return apply(configuration, category, self.settings.weights)

    @property
    def num_combinations(self) -> int | None:
        """Combinations of the grids in the space; None without a grid."""
        grids = [len(d.arguments) for d in self.space.values() if d.kind == "grid"]
        return math.prod(grids) if grids else None

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What makes it this study and no other, as flat JSON values by dotted name."""
        settings = self.settings.model_dump(mode="json", exclude={"space", "concurrency"})
        found = {f"study.{name}": value for name, value in settings.items()}
        found |= {f"space.{name}": domain.to_json() for name, domain in self.space.items()}
        for category in self.categories:
            fields = Category.model_fields
            unset = {n for n in LATER if getattr(category, n) == fields[n].default}
            settings = category.model_dump(mode="json", exclude={"name", *unset})
            found |= {f"{category.name}.{name}": value for name, value in settings.items()}
        return found


def load_study(
    uri: str, name: str, categories: Sequence[Category], changes: Mapping[str, Any]
) -> Study:
    """Read and check the study section of a catalogue; ``changes`` take precedence over it.

    Raises:
        CatalogueError: anything in it is not as it must be; all findings in one message.
    """
    section = (read_document(uri) or {}).get("study")
    section = {} if section is None else section
    nested: dict[str, type[BaseModel]] = {"validation": LabelledSet, "weights": WeightsFile}
    given = {**section, **changes} if isinstance(section, Mapping) else section
    context = Context(folder=posixpath.dirname(storage.absolute(uri)))
    settings, findings = read_settings(StudySettings, given, "study", nested, context)
    if settings is None:
        raise _refusal(uri, findings)
    space, faults = read_space(settings.space)
    findings = [
        f"study.space.{fault}" if not fault.startswith("the") else f"study: {fault}"
        for fault in faults
    ]
    studied = [name for name, kind in KINDS.items() if kind.is_studied]
    findings += [
        f"study: {category.name} has detector: {category.detector}, a study searches the settings "
        f"of {' and '.join(studied)}; leave it out with --only"
        for category in categories
        if category.detector not in studied
    ]
    findings += [
        f"study: {category.name} has tiles, and a study searches heads of whole crops; leave it "
        f"out with --only"
        for category in categories
        if category.tiles is not None
    ]
    for category in categories if not findings else ():
        findings += [
            f"study.space.{f} ({category.name})" for f in findings_of_values(space, category)
        ]
    if findings:
        raise _refusal(uri, findings)
    return Study(name=name, settings=settings, space=space, categories=categories)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return one line for every entry in which two identities differ."""
    lines = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old != new:
            lines.append(f"{name}: {_said(old)} -> {_said(new)}")
    return lines


def _said(value: Any) -> str:
    return "(not there)" if value is None else json.dumps(value, default=label)


def _refusal(uri: str, findings: Sequence[str]) -> CatalogueError:
    return CatalogueError("\n".join(f"{uri}: {finding}" for finding in findings))
