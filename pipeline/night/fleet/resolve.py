"""Resolve champions into a fleet: whole packages, copied beside the results once.

A champion whose files are no good costs its own category's images a score, and nobody else's.
"""

import json
import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from model.errors import CategoryFault
from pipeline import storage
from pipeline.engine_check import CHECK_FILE
from pipeline.images.prefetch import read_ahead
from pipeline.inspection.training_summary import TRAINING_IMAGES_FILE
from pipeline.night.fleet.fleet import Champion, Fleet, FleetError
from pipeline.night.folder import NightFolder
from pipeline.package import (
    CALIBRATION_FILE,
    DECIDING_FILES,
    Package,
    PackageError,
    Reference,
    package_digest,
    read_heads,
)
from pipeline.registry.models import RegisteredVersion

logger = logging.getLogger(__name__)

Download = Callable[[RegisteredVersion, Path], Path]


def snapshot_fleet(
    folder: NightFolder,
    versions: Mapping[str, RegisteredVersion],
    categories: Collection[str],
    download: Download,
    so_far: Mapping[str, Champion] = MappingProxyType({}),
) -> Fleet:
    """Copy the champions that the night needs beside its results and write the fleet file.

    A champion whose package is damaged is left out, and the file says why. The champions
    ``so_far`` of the night stay.

    Raises:
        FleetError: all the packages are damaged.
    """
    stay = {
        name: champion
        for name, champion in so_far.items()
        if name in categories and not _is_of(champion, versions.get(name))
    }
    taken = resolve_fleet(folder.out, versions, set(categories) - stay.keys(), download)
    fleet = Fleet(
        champions={**taken.champions, **stay},
        without_images=taken.without_images - stay.keys(),
        unusable=taken.unusable,
    )
    if fleet.unusable and not fleet.champions:
        why = next(iter(fleet.unusable.values()))
        raise FleetError(f"none of {len(fleet.unusable)} champions can be used: {why}")
    fleet.write(folder)
    return fleet


def resolve_fleet(
    out: str,
    versions: Mapping[str, RegisteredVersion],
    categories: Collection[str],
    download: Download,
) -> Fleet:
    """Copy the champions of ``categories`` to where results go, once each; see ``snapshot_fleet``.

    Nothing is written but the packages; the fleet may hold no champion at all.
    """
    needed = [versions[name] for name in sorted(categories) if name in versions]
    champions, unusable = {}, {}
    copied = read_ahead(lambda version: _copy_or_say_why(out, version, download), needed)
    for version, champion in zip(needed, copied, strict=True):
        if isinstance(champion, Champion):
            champions[version.category] = champion
        else:
            logger.warning("%s", champion)
            unusable[version.category] = champion
    without_images = frozenset(versions.keys() - set(categories))
    return Fleet(champions=champions, without_images=without_images, unusable=unusable)


def _is_of(champion: Champion, version: RegisteredVersion | None) -> bool:
    """Whether a champion is this version; then its copied files are seen to be whole, as always."""
    known = (champion.model_name, champion.model_version, champion.model_digest)
    return version is not None and known == (version.name, version.version, version.digest)


def _copy_or_say_why(out: str, version: RegisteredVersion, download: Download) -> Champion | str:
    try:
        return _copy_champion(out, version, download)
    except CategoryFault as error:
        return f"{version.name} version {version.version} cannot be used: {error}"


def _copy_champion(out: str, version: RegisteredVersion, download: Download) -> Champion:
    package = storage.join(out, "fleet", "packages", version.digest)
    if not all(storage.exists(storage.join(package, name)) for name in DECIDING_FILES):
        with TemporaryDirectory(prefix="nightshift-package-") as scratch:
            _copy(version, download(version, Path(scratch)), package)
    reference = json.loads(storage.read_bytes(storage.join(package, CALIBRATION_FILE)))
    return Champion(
        category=version.category,
        model_name=version.name,
        model_version=version.version,
        model_digest=version.digest,
        package=package,
        reference=Reference.from_json(reference),
        preprocessing=read_heads(package)[0].preprocessing,
    )


def _copy(version: RegisteredVersion, folder: Path, package: str) -> None:
    Package.read(folder)  # refuse a damaged package
    digest = package_digest(folder)
    if digest != version.digest:
        raise PackageError(
            f"{version.name} version {version.version} was registered with digest "
            f"{version.digest[:12] or '(none)'}, its files have {digest[:12]}. Move the champion "
            f"alias to a version that Nightshift registered, or onboard the category again."
        )
    beside = (CHECK_FILE, TRAINING_IMAGES_FILE)  # earlier releases had neither
    for name in (*beside, *DECIDING_FILES):  # the calibration last: it marks the copy as whole
        if (folder / name).exists():
            storage.write_bytes(storage.join(package, name), (folder / name).read_bytes())
