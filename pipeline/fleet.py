"""The fleet: the champions of all categories, resolved once and pinned for one run.

The packages are copied beside the results under their digests, so that workers need nothing but
object storage and any row can be traced to the very files that made it.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from model.detector import DetectorHeader, load_detector
from model.folding import FoldedHead
from model.preprocessing import Preprocessing
from pipeline import storage
from pipeline.calibration import Calibration
from pipeline.package import (
    CALIBRATION_FILE,
    DECIDING_FILES,
    HEAD_FILE,
    MapScale,
    Package,
)
from pipeline.reading import read_ahead
from pipeline.registry import RegisteredVersion

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Champion:
    """One category's pinned model and what it takes to decide with it."""

    category: str
    model_name: str
    model_version: str
    model_digest: str
    package: str  # folder that holds its files
    calibration: Calibration
    map_scale: MapScale
    preprocessing: Preprocessing

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; ``from_json`` gives back an equal champion."""
        return {
            "model_name": self.model_name,
            "model_version": self.model_version,
            "model_digest": self.model_digest,
            "package": self.package,
            "map_scale": asdict(self.map_scale),
            "preprocessing": asdict(self.preprocessing),
            **self.calibration.to_json(),
        }

    @classmethod
    def from_json(cls, category: str, data: Mapping[str, Any]) -> "Champion":
        """Read what ``to_json`` wrote."""
        return cls(
            category=category,
            model_name=data["model_name"],
            model_version=data["model_version"],
            model_digest=data["model_digest"],
            package=data["package"],
            calibration=Calibration.from_json(data),
            map_scale=MapScale(**data["map_scale"]),
            preprocessing=Preprocessing(**data["preprocessing"]),
        )

    def load_head(self) -> tuple[DetectorHeader, FoldedHead]:
        """Fetch and load the folded head."""
        with TemporaryDirectory(prefix="nightshift-head-") as folder:
            path = Path(folder) / HEAD_FILE
            path.write_bytes(storage.read_bytes(storage.join(self.package, HEAD_FILE)))
            return load_detector(path)


Fleet = Mapping[str, Champion]  # by category
Download = Callable[[RegisteredVersion, Path], Path]


def pin_fleet(
    out: str,
    night: str,
    versions: Mapping[str, RegisteredVersion],
    categories: Collection[str],
    download: Download,
) -> dict[str, Champion]:
    """Copy the champions that the night needs beside its results and write the fleet file.

    Args:
        out: where the night's results go.
        night: its date.
        versions: every category's champion.
        categories: categories of the dump; those without a champion are left out.
        download: fetches a version's package into a folder.
    """
    needed = [versions[name] for name in sorted(categories) if name in versions]
    pinned = read_ahead(lambda version: _pin(out, version, download), needed)
    fleet = {champion.category: champion for champion in pinned}
    document = {
        "format": FORMAT_VERSION,
        "champions": {name: champion.to_json() for name, champion in fleet.items()},
    }
    storage.write_bytes(fleet_uri(out, night), json.dumps(document, sort_keys=True).encode())
    return fleet


def read_fleet(out: str, night: str) -> dict[str, Champion]:
    """Return the fleet that a night was scored with."""
    document = json.loads(storage.read_bytes(fleet_uri(out, night)))
    return {name: Champion.from_json(name, entry) for name, entry in document["champions"].items()}


def fleet_uri(out: str, night: str) -> str:
    """Where a night's fleet file is."""
    return storage.join(out, "fleet", f"night={night}", "fleet.json")


def _pin(out: str, version: RegisteredVersion, download: Download) -> Champion:
    place = storage.join(out, "fleet", "packages", version.digest)
    with TemporaryDirectory(prefix="nightshift-package-") as scratch:
        if not storage.exists(storage.join(place, CALIBRATION_FILE)):
            _copy(download(version, Path(scratch)), place)
        header = _read_header(place, Path(scratch))
    calibration = json.loads(storage.read_bytes(storage.join(place, CALIBRATION_FILE)))
    return Champion(
        category=version.category,
        model_name=version.name,
        model_version=version.version,
        model_digest=version.digest,
        package=place,
        calibration=Calibration.from_json(calibration),
        map_scale=MapScale(**calibration["map_scale"]),
        preprocessing=header.preprocessing,
    )


def _copy(folder: Path, place: str) -> None:
    Package.read(folder)  # refuse a damaged package before the night starts
    for name in DECIDING_FILES:  # the calibration last: it marks the copy as whole
        storage.write_bytes(storage.join(place, name), (folder / name).read_bytes())


def _read_header(place: str, scratch: Path) -> DetectorHeader:
    path = scratch / HEAD_FILE
    path.write_bytes(storage.read_bytes(storage.join(place, HEAD_FILE)))
    return load_detector(path)[0]
