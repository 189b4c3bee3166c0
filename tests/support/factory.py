"""A tiny factory: textures, categories small enough to onboard in a second, their packages."""

import atexit
import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from model.backbone import Backbone, BackboneConfig
from model.detector import Detector
from model.recipe import Recipe
from model.simplenet import HeadConfig
from model.training import TrainingConfig
from pipeline.catalogue.catalogue import Category
from pipeline.night.dumps import take_in
from pipeline.night.fleet.fleet import Fleet
from pipeline.night.fleet.resolve import snapshot_fleet
from pipeline.night.folder import NightFolder
from pipeline.night.scoring.plan import plan_night
from pipeline.night.scoring.scorer import ShardScorer
from pipeline.onboarding.finish import write_package
from pipeline.onboarding.prepare import PreparedCategory, make_trainer, prepare
from pipeline.package import Package, package_digest
from pipeline.registry.models import RegisteredVersion

SIDE = 96  # pixels
SETTINGS: dict[str, Any] = {
    "backbone": "efficientnet_lite0",
    "resize": 64,
    "crop": 64,
    "precision": "float32",  # the same on every machine
    "false_alarm_rate": 0.1,
    "training": {
        "passes": 2,
        "steps_per_pass": 2,
        "batch_rows": 64,
        "hidden": 8,
        "members": 1,
        "image_head": False,
        "health": "warn",
    },
}
SMALL_REALNET = {"channels": [8, 8, 8], "pairs": 32, "passes": 2, "steps_per_pass": 4}


def texture(seed: int, *, scratched: bool = False) -> NDArray[np.uint8]:
    """Brushed metal; never the same twice, always of one kind."""
    random = np.random.default_rng(seed)
    grain = ndimage.gaussian_filter(random.normal(size=(SIDE, SIDE, 3)), (1, 6, 0))
    image = 140 + 150 * grain
    if scratched:
        image[40:52, 20:76] = random.uniform(0, 255, 3)
    return np.clip(image, 0, 255).astype(np.uint8)


def write_images(folder: Path, seeds: range, *, scratched: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        Image.fromarray(texture(seed, scratched=scratched)).save(folder / f"{seed:06d}.png")


def make_category(folder: Path, num_good: int = 40, num_test: int = 3, seed: int = 0) -> Path:
    """Images of one category in the mvtec layout, without masks."""
    first = seed * 10_000
    write_images(folder / "train/good", range(first, first + num_good))
    first += 5_000
    write_images(folder / "test/good", range(first, first + num_test))
    write_images(folder / "test/scratch", range(first, first + num_test), scratched=True)
    return folder


def category(images: Path | str, name: str = "steel", **changes: Any) -> Category:
    """A catalogue entry as it is after reading."""
    settings = SETTINGS | changes
    settings["training"] = SETTINGS["training"] | changes.get("training", {})
    return Category.model_validate({"name": name, "images": str(images), **settings})


def write_catalogue(
    path: Path, images: Mapping[str, Path | str], defaults: Mapping[str, Any] = SETTINGS
) -> Path:
    """A catalogue file of categories by name."""
    entries = [{"name": name, "images": str(place)} for name, place in images.items()]
    path.write_text(yaml.safe_dump({"defaults": dict(defaults), "categories": entries}))
    return path


def make_package(folder: Path, seed: int = 0, layers: tuple[int, ...] = (2, 3)) -> Package:
    """Write the package of a real, tiny onboarding into ``folder`` and return it.

    Two seeds give two categories whose images and heads differ.
    """
    shutil.copytree(_onboarded(seed, layers), folder, dirs_exist_ok=True)
    return Package.read(folder)


def version(category: str, folder: Path, number: str = "1") -> RegisteredVersion:
    """What the registry says of a package."""
    return RegisteredVersion(
        category=category,
        name=f"nightshift.{category}",
        version=number,
        digest=package_digest(folder),
        is_champion=True,
    )


def make_fleet(folder: NightFolder, packages: Mapping[str, Path]) -> Fleet:
    """Snapshot packages by category, as a night does with what the registry calls champions."""
    versions = {name: version(name, package) for name, package in packages.items()}
    return snapshot_fleet(folder, versions, packages, lambda asked, _: packages[asked.category])


def with_champion(fleet: Fleet, category: str, **changes: Any) -> Fleet:
    """The fleet with something changed about one champion."""
    champion = dataclasses.replace(fleet.champions[category], **changes)
    return dataclasses.replace(fleet, champions={**fleet.champions, category: champion})


def score_without_cluster(
    dump: Path | str, folder: NightFolder, packages: Mapping[str, Path]
) -> Fleet:
    """Score a night as the job does, but for settling and report; returns its fleet."""
    fleet, (images, _) = make_fleet(folder, packages), take_in(str(dump), folder)
    ShardScorer(fleet, folder).write(plan_night(images.manifest, fleet, folder).tasks)
    return fleet


@functools.cache
def backbone() -> Backbone:
    return Backbone(BackboneConfig(name="efficientnet_lite0"))


def detector(package: Package) -> Detector:
    return Detector(backbone(), package.heads, package.header)


@functools.cache
def _onboarded(seed: int, layers: tuple[int, ...]) -> Path:
    """One onboarding of its kind per test run."""
    root = Path(tempfile.mkdtemp(prefix="nightshift-factory-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    images = make_category(root / "images", seed=seed)
    prepared = _with_both_heads(prepare(category(images, layers=layers)), seed)
    for _ in prepared.trainer.run():
        pass
    write_package(prepared, root / "package")
    return root / "package"


def _with_both_heads(prepared: PreparedCategory, seed: int) -> PreparedCategory:
    """The catalogue can leave the head over images out, but not make it small."""
    shape = HeadConfig(hidden=4, members=2)
    config = TrainingConfig(head=shape, passes=1, steps_per_pass=2, batch_rows=64, seed=seed)
    recipe = Recipe(patch=config, image=config)
    trainer = make_trainer(prepared.good, prepared.parts, "simplenet", recipe)
    return dataclasses.replace(prepared, trainer=trainer)
