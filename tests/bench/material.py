"""Made-up pictures of factory-like size and a category to score them with."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from scipy import ndimage

from model.precision import Precision
from pipeline.catalogue.catalogue import Category
from pipeline.night.fleet.fleet import Fleet
from pipeline.night.fleet.resolve import snapshot_fleet
from pipeline.night.folder import NightFolder
from pipeline.night.listing import list_dump
from pipeline.onboarding.finish import write_package
from pipeline.onboarding.prepare import prepare
from pipeline.package import package_digest
from pipeline.registry.models import RegisteredVersion

NIGHT = "2026-01-31"
SIDES = {"png": 300, "jpg": 1000}  # pixels


def write_pictures(folder: Path, count: int, suffix: str, side: int | None = None) -> Path:
    """Grainy colour textures: they take as long to decode as photographs do."""
    folder.mkdir(parents=True)
    side = side or SIDES[suffix]
    for seed in range(count):
        random = np.random.default_rng(seed)
        coarse = random.normal(size=(-(-side // 10), -(-side // 10), 3))
        grain = ndimage.zoom(coarse, (10, 10, 1), order=1)[:side, :side]
        pixels = 128 + 30 * grain + random.normal(scale=4, size=(side, side, 1))
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        image.save(folder / f"{seed:05d}.{suffix}", quality=90)
    return folder


def category(
    images: Path, backbone: str, precision: Precision = "float32", **training: Any
) -> Category:
    """The default preset but for training and precision, on random weights."""
    settings = {"backbone": backbone, "weights": "random", "layout": "folder"}
    settings["precision"] = precision  # not what the machine happens to be fast in
    return Category.model_validate(
        {
            **{"name": "texture", "images": str(images), **settings},
            **{"false_alarm_rate": 0.1, "calibration_share": 0.3},
            "training": {"health": "warn"} | training,  # trained for a moment
        }
    )


def onboard(folder: Path, images: Path, backbone: str, precision: Precision = "float32") -> Fleet:
    """Pin a fleet of one category of the default preset."""
    return pin(folder, category(images, backbone, precision, passes=1, steps_per_pass=2))


def pin(folder: Path, category: Category) -> Fleet:
    """Pin a fleet of one category, trained for a moment: its shape counts, not its worth."""
    prepared = prepare(category)
    for _ in prepared.trainer.run():
        pass
    package = folder / "package"
    package.mkdir(parents=True)
    write_package(prepared, package)
    version = RegisteredVersion(
        category="texture",
        name="nightshift.texture",
        version="1",
        digest=package_digest(package),
        is_champion=True,
    )
    place = NightFolder(str(folder / "out"), NIGHT)
    return snapshot_fleet(place, {"texture": version}, ["texture"], lambda *_: package)


def dump_of(pictures: Path, dump: Path, count: int) -> pa.Table:
    """List a dump of ``count`` images: hard links to fewer pictures."""
    sources = sorted(pictures.iterdir())
    folder = dump / "texture"
    folder.mkdir(parents=True)
    for index in range(count):
        source = sources[index % len(sources)]
        (folder / f"{index:06d}{source.suffix}").hardlink_to(source)
    return list_dump(str(dump)).images
