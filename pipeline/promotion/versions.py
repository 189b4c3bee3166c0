"""Registered versions of a category: its champion and challenger with their packages."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.package import Package, PackageError, package_digest
from pipeline.promotion.recalibration import (
    Recalibrated,
    RecalibrationError,
    labelled_good,
    recalibrate,
    write,
)
from pipeline.registry import aliases, models
from pipeline.registry.aliases import CHALLENGER, CHAMPION, AliasError, AliasHistory, Reason
from pipeline.registry.models import RegisteredVersion


@dataclass(frozen=True, kw_only=True)
class VersionFiles:
    """A registered version and what it holds."""

    version: RegisteredVersion
    package: Package
    folder: Path
    digest: str


@dataclass(frozen=True, kw_only=True)
class RecalibratedVersion:
    """What became of recalibrating a category."""

    version: RegisteredVersion
    is_new: bool  # False: an earlier call registered the same
    base: RegisteredVersion
    done: Recalibrated
    challenger: str | None  # version that waits as challenger; None: none but this one
    took_place: bool  # whether this version is challenger instead of that one


def version_of(known: AliasHistory, alias: str) -> RegisteredVersion:
    """Return the version that an alias stands for.

    Raises:
        AliasError: the alias stands nowhere, or for a version that is no more.
    """
    number = known.aliases.get(alias)
    version = models.find_version(known.category, int(number)) if number else None
    if version is None:
        raise AliasError(
            f"{known.category}: no version is {alias}. Onboard the category, or name a version."
        )
    return version


@contextmanager
def fetched(version: RegisteredVersion) -> Iterator[VersionFiles]:
    """Fetch a version's package for as long as it is needed.

    Raises:
        PackageError: it is not there, damaged, or not what was registered.
        CategoryFault: it could not be fetched or read this time, or is of another release.
        RegistryError: MLflow is away.
    """
    with tempfile.TemporaryDirectory(prefix="nightshift-package-") as scratch:
        folder = models.download(version, Path(scratch))
        digest = package_digest(folder)
        if version.digest not in ("", digest):
            raise PackageError(
                f"{version.name} version {version.version} was registered with digest "
                f"{version.digest[:12]}, its files have {digest[:12]}. Onboard the category again."
            )
        package = Package.read(folder)  # whole: what is wrong with it now is another release's
        yield VersionFiles(version=version, package=package, folder=folder, digest=digest)


def recalibrate_champion(
    category: str, rate: float | None, outs: Sequence[str], *, promote: bool
) -> RecalibratedVersion:
    """Register a version of the champion's heads with another threshold.

    A version that waits as challenger stays it, unless the new one is not promoted.

    Args:
        category: its name.
        rate: share of good images flagged; the champion's own when None.
        outs: folders of results whose labels join the calibration; none by default.
        promote: make it the champion.

    Raises:
        AliasError: the category has no champion, or has another by now.
        TooFewImages, RecalibrationError: the threshold cannot be set so.
        CategoryFault: the champion's package cannot be used.
    """
    known = aliases.history(category)
    base, waiting = version_of(known, CHAMPION), _waiting(known)
    with fetched(base) as files, tempfile.TemporaryDirectory(prefix="nightshift-new-") as scratch:
        labelled = labelled_good(category, outs) if outs else None
        done = recalibrate(files.package, files.digest, rate, labelled)
        if done.package.reference.calibration == done.before:
            raise RecalibrationError(
                f"{category}: nothing changes. Version {base.version} has this rate and these "
                f"{len(done.before.scores)} scores; give another --false-alarm-rate, or "
                f"--with-labels with labels that were chosen whatever their score."
            )
        version = models.find(category, done.key)
        is_new = version is None
        if version is None:
            write(done, Path(scratch), files.folder)
            is_challenger = waiting is None or not promote
            version = models.register(
                category, done.key, Path(scratch), as_challenger=is_challenger
            )
    if promote and not version.is_champion:
        version = models.promote(version, _reason(base, done), instead_of=base.version)
    return RecalibratedVersion(
        version=version,
        is_new=is_new,
        base=base,
        done=done,
        challenger=waiting if waiting != version.version else None,
        took_place=is_new and not promote,
    )


def _waiting(known: AliasHistory) -> str | None:
    """The challenger that nobody has decided about yet."""
    challenger = known.aliases.get(CHALLENGER)
    return challenger if challenger != known.aliases.get(CHAMPION) else None


def _reason(base: RegisteredVersion, done: Recalibrated) -> Reason:
    now, before = done.package.reference.calibration, done.before
    return Reason(
        by="recalibrate",
        because=f"heads of version {base.version} with another threshold",
        evidence=(
            f"threshold {now.threshold:.6g}, was {before.threshold:.6g}; false-alarm rate "
            f"{now.false_alarm_rate:g}, was {before.false_alarm_rate:g}; {len(now.scores)} good "
            f"images, was {len(before.scores)}"
        ),
    )
