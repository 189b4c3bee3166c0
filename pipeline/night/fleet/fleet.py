"""The fleet: the champions of all categories, resolved once and the same for a whole night.

The packages are copied beside the results under their digests, so that workers need nothing but
object storage and any row can be traced to the very files that made it.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.detector import DetectorHeader
from model.errors import NightshiftError
from model.kind import Heads
from model.preprocessing import Preprocessing
from pipeline import storage
from pipeline.engine_check import CHECK_FILE, from_png
from pipeline.inspection.training_summary import TrainingImages
from pipeline.night.folder import NightFolder
from pipeline.package import Reference, package_errors, read_heads, read_training_images

FORMAT_VERSION = 1
PLAIN_FIELDS = ("model_name", "model_version", "model_digest", "package")  # of a champion


class FleetError(NightshiftError):
    """No champion can be used, or a fleet file is missing or damaged."""


@dataclass(frozen=True, kw_only=True)
class Champion:
    """One category's model and what it takes to decide with it."""

    category: str
    model_name: str
    model_version: str
    model_digest: str
    package: str  # folder that holds its files
    reference: Reference
    preprocessing: Preprocessing

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; ``from_json`` gives back an equal champion."""
        return {
            **{name: getattr(self, name) for name in PLAIN_FIELDS},
            "preprocessing": self.preprocessing.to_json(),
            **self.reference.to_json(),
        }

    @classmethod
    def from_json(cls, category: str, data: Mapping[str, Any]) -> "Champion":
        """Read what ``to_json`` wrote."""
        return cls(
            category=category,
            **{name: data[name] for name in PLAIN_FIELDS},
            reference=Reference.from_json(data),
            preprocessing=Preprocessing.from_json(data["preprocessing"]),
        )

    def load_heads(self) -> tuple[DetectorHeader, Heads]:
        """Fetch and load the folded heads."""
        return read_heads(self.package)

    def load_check_images(self) -> NDArray[np.uint8] | None:
        """Fetch the images by which another engine is checked; None where there are none.

        Raises:
            PackageError: they are damaged.
        """
        uri = storage.join(self.package, CHECK_FILE)
        if self.reference.check is None or not storage.exists(uri):
            return None
        content = storage.read_bytes(uri)
        with package_errors(self.package):
            return from_png(content, self.reference.check, self.preprocessing.view)

    def load_training_images(self) -> TrainingImages | None:
        """Fetch what ``read_training_images`` says of the package, and raise what it raises."""
        return read_training_images(self.package)


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """The champions that a night is scored with, and the categories for which it has none.

    What is stored under a digest never changes.
    """

    champions: Mapping[str, Champion]  # by category
    without_images: frozenset[str] = frozenset()  # they have a champion, the dump no image
    unusable: Mapping[str, str] = field(
        default_factory=dict
    )  # why a category's champion is no good

    @classmethod
    def read(cls, uri: str) -> "Fleet":
        """Read what ``write`` or ``store`` wrote.

        Raises:
            FleetError: the file is damaged or of another format.
            ObjectMissing: there is none.
        """
        content = storage.read_bytes(uri)
        try:
            return cls._from_bytes(content, uri)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FleetError(
                f"{uri} is damaged ({error!r}). Score the night again with --replace."
            ) from error

    @classmethod
    def _from_bytes(cls, content: bytes, uri: str) -> "Fleet":
        document = json.loads(content)
        if document["format"] != FORMAT_VERSION:
            raise FleetError(
                f"{uri} has format {document['format']}, this Nightshift reads {FORMAT_VERSION}. "
                f"Score the night again with --replace, or use the release that wrote it."
            )
        champions = document["champions"].items()
        return cls(
            champions={name: Champion.from_json(name, entry) for name, entry in champions},
            without_images=frozenset(document.get("silent", ())),
            unusable=dict(document.get("broken", {})),
        )

    def to_bytes(self) -> bytes:
        """The file: the same fleet has the same bytes."""
        champions = {name: champion.to_json() for name, champion in self.champions.items()}
        document: dict[str, Any] = {"format": FORMAT_VERSION, "champions": champions}
        if self.without_images:
            document["silent"] = sorted(self.without_images)
        if self.unusable:
            document["broken"] = dict(self.unusable)
        return json.dumps(document, sort_keys=True).encode()

    @property
    def digest(self) -> str:
        """What the fleet is known by."""
        return content_digest(self.to_bytes())

    @property
    def not_held(self) -> list[str]:
        """Categories that had a champion when the fleet was made, and have none in it."""
        return sorted({*self.without_images, *self.unusable})

    @property
    def without_regions(self) -> list[str]:
        """Categories whose champions were onboarded before there were regions."""
        return sorted(n for n, each in self.champions.items() if each.reference.regions is None)

    def of_night(self, categories: Collection[str], so_far: Mapping[str, Champion]) -> "Fleet":
        """Return what a night of these categories needs; champions it has had so far stay."""
        champions = {**self.champions, **so_far}
        needed = {name: c for name, c in champions.items() if name in categories}
        return Fleet(
            champions=needed, without_images=frozenset(self.champions.keys() - needed.keys())
        )

    def store(self, out: str) -> str:
        """Store the fleet under its digest, beside the results in ``out``; return the digest."""
        digest = self.digest
        if not storage.exists(stored_fleet(out, digest)):
            storage.write_bytes(stored_fleet(out, digest), self.to_bytes())
        return digest

    def write(self, folder: NightFolder) -> None:
        """Store the fleet under its digest and as the night's."""
        self.store(folder.out)
        storage.write_bytes(folder.fleet, self.to_bytes())


def champions_so_far(folder: NightFolder) -> Mapping[str, Champion]:
    """Return the champions that a night has been scored with; none before it is begun.

    Raises:
        FleetError: the night's fleet file is damaged or of another format.
    """
    try:
        return Fleet.read(folder.fleet).champions
    except storage.ObjectMissing:
        return {}


def content_digest(content: bytes) -> str:
    """Return the digest of a fleet file."""
    return hashlib.sha256(content).hexdigest()


def stored_fleet(out: str, digest: str) -> str:
    """Where the fleet of a digest is."""
    return storage.join(out, "fleet", f"{digest}.json")
