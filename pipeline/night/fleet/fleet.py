"""The fleet: the champions of all categories, resolved once and pinned for one run.

The packages are copied beside the results under their digests, so that workers need nothing but
object storage and any row can be traced to the very files that made it.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from model.detector import DetectorHeader, load_detector
from model.errors import NightshiftError
from model.folding import FoldedHeads
from model.preprocessing import Preprocessing
from pipeline import storage
from pipeline.calibration import Calibration
from pipeline.images.image_statistics import Values
from pipeline.package import (
    HEAD_FILE,
    MapScale,
    read_decision,
)

FORMAT_VERSION = 1


class FleetError(NightshiftError):
    """No champion can be used, or a fleet file is missing or damaged."""


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
    statistics: Values = field(default_factory=dict)  # of the calibration images

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; ``from_json`` gives back an equal champion."""
        return {
            "model_name": self.model_name,
            "model_version": self.model_version,
            "model_digest": self.model_digest,
            "package": self.package,
            "map_scale": asdict(self.map_scale),
            "preprocessing": asdict(self.preprocessing),
            "image_statistics": dict(self.statistics),
            **self.calibration.to_json(),
        }

    @classmethod
    def from_json(cls, category: str, data: Mapping[str, Any]) -> "Champion":
        """Read what ``to_json`` wrote."""
        calibration, map_scale, statistics = read_decision(data)
        return cls(
            category=category,
            model_name=data["model_name"],
            model_version=data["model_version"],
            model_digest=data["model_digest"],
            package=data["package"],
            calibration=calibration,
            map_scale=map_scale,
            preprocessing=Preprocessing(**data["preprocessing"]),
            statistics=statistics,
        )

    def load_heads(self) -> tuple[DetectorHeader, FoldedHeads]:
        """Fetch and load the folded heads."""
        with TemporaryDirectory(prefix="nightshift-head-") as folder:
            path = Path(folder) / HEAD_FILE
            path.write_bytes(storage.read_bytes(storage.join(self.package, HEAD_FILE)))
            return load_detector(path)


Fleet = Mapping[str, Champion]  # by category


def write_fleet(
    out: str,
    fleet: Fleet,
    night: str | None = None,
    *,
    silent: Collection[str] = (),
    broken: Mapping[str, str] | None = None,
) -> str:
    """Store a fleet under its digest and, with ``night``, as that night's; return the digest.

    What lies under a digest never changes.

    Args:
        out: where results go.
        fleet: the champions by category.
        night: the date of the night that is scored with them.
        silent: categories with a champion of which the night has no image.
        broken: why the champions of further categories cannot be used.
    """
    champions = {name: champion.to_json() for name, champion in sorted(fleet.items())}
    document: dict[str, Any] = {"format": FORMAT_VERSION, "champions": champions}
    if silent:
        document["silent"] = sorted(silent)
    if broken:
        document["broken"] = dict(broken)
    content = json.dumps(document, sort_keys=True).encode()
    digest = hashlib.sha256(content).hexdigest()
    if not storage.exists(stored_fleet_uri(out, digest)):
        storage.write_bytes(stored_fleet_uri(out, digest), content)
    if night is not None:
        storage.write_bytes(fleet_uri(out, night), content)
    return digest


def read_fleet(out: str, night: str) -> dict[str, Champion]:
    """Return the fleet that a night was scored with.

    Raises:
        FleetError: its file is damaged or of another format.
        ObjectMissing: the night has not been scored.
    """
    return _read(fleet_uri(out, night))


def silent_categories(out: str, night: str) -> list[str]:
    """Return the categories that have a champion, but no image in the night's dump."""
    silent: list[str] = json.loads(storage.read_bytes(fleet_uri(out, night))).get("silent", [])
    return silent


def broken_champions(out: str, night: str) -> dict[str, str]:
    """Return why champions cannot be used, by category; of categories in the night's dump."""
    broken: dict[str, str] = json.loads(storage.read_bytes(fleet_uri(out, night))).get("broken", {})
    return broken


def read_stored_fleet(out: str, digest: str) -> dict[str, Champion]:
    """Return the fleet of a digest.

    Raises:
        FleetError: its file is damaged or of another format.
        ObjectMissing: no fleet of this digest was pinned here.
    """
    return _read(stored_fleet_uri(out, digest))


def left_out(out: str, digest: str) -> list[str]:
    """Return categories that had a champion when a stored fleet was made, and are not in it.

    The night had no image of them, or their champion could not be used.
    """
    document = json.loads(storage.read_bytes(stored_fleet_uri(out, digest)))
    return sorted({*document.get("silent", ()), *document.get("broken", ())})


def fleet_digest(out: str, night: str) -> str:
    """Return the digest of a night's fleet."""
    return hashlib.sha256(storage.read_bytes(fleet_uri(out, night))).hexdigest()


def _read(uri: str) -> dict[str, Champion]:
    content = storage.read_bytes(uri)
    try:
        document = json.loads(content)
        if document["format"] != FORMAT_VERSION:
            raise FleetError(
                f"{uri} has format {document['format']}, this Nightshift reads {FORMAT_VERSION}. "
                f"Score the night again, or use the release that wrote it."
            )
        champions = document["champions"].items()
        return {name: Champion.from_json(name, entry) for name, entry in champions}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FleetError(f"{uri} is damaged ({error!r}). Score the night again.") from error


def fleet_uri(out: str, night: str) -> str:
    """Where a night's fleet file is."""
    return storage.join(out, "fleet", f"night={night}", "fleet.json")


def stored_fleet_uri(out: str, digest: str) -> str:
    """Where the fleet of a digest is."""
    return storage.join(out, "fleet", f"{digest}.json")
