"""Where everything of one night lies, below the folder that all nights' results go to.

<out>/manifest/night=<N>/manifest.parquet   the images, with their dumps
     /fleet/night=<N>/fleet.json            the champions they were scored with
     /results/night=<N>/<shard>.parquet     their rows
     /maps, /thumbnails/night=<N>/...       their pictures
     /drift/night=<N>/drift.parquet         how far each category has shifted
     /summary/night=<N>/summary.json        the night counted
     /report/night=<N>/index.html           the morning page
     /promotion/category=<C>/version=<V>/   what the gate said of a challenger (pipeline/promotion)
     /labels/category=<C>/<N>-<digest>.parquet  what people said of the images (pipeline/labels)
     /summary/labels/week=<monday>.copy     copies of these for reports (pipeline/labels)
     /replay/<fleet>/...                    nights scored again with another fleet (pipeline/replay)
     /fleet/renames.json                    what categories were called before
     /inspections/<dump>/index.html         what a dump looked like before it was scored
"""

import datetime as dt
import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from model.errors import NightshiftError
from pipeline import storage

NIGHT_PATTERN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
PREFIX = "night="
SUFFIX = ".parquet"  # of a shard
PictureKind = Literal["maps", "thumbnails"]
PICTURE_SUFFIXES: dict[PictureKind, str] = {"maps": ".png", "thumbnails": ".jpg"}


class NightError(NightshiftError):
    """A night is not named by a date, or has not been scored."""


@dataclass(frozen=True)
class NightFolder:
    """One night's addresses.

    Raises:
        NightError: ``night`` is no real date written YYYY-MM-DD.
    """

    out: str  # folder or S3 prefix of all nights; absolute once it is here
    night: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", storage.absolute(self.out).rstrip("/"))
        object.__setattr__(self, "night", _real_date(self.night))

    @property
    def manifest(self) -> str:
        """File of the images that the night consists of."""
        return self._join("manifest", "manifest.parquet")

    @property
    def fleet(self) -> str:
        """File of the champions that the night is scored with."""
        return self._join("fleet", "fleet.json")

    @property
    def results(self) -> str:
        """Folder of the result shards."""
        return self._join("results")

    def shard(self, name: str) -> str:
        """File of one shard's rows."""
        return self._join("results", name + SUFFIX)

    def picture(self, category: str, image_uri: str, kind: PictureKind) -> str:
        """File of an image's picture, whether or not it is there."""
        return self._join(kind, category, picture_name(image_uri) + PICTURE_SUFFIXES[kind])

    @property
    def drift(self) -> str:
        """File of the comparisons with the calibration."""
        return self._join("drift", "drift.parquet")

    @property
    def summary(self) -> str:
        """File of the night's counts."""
        return self._join("summary", "summary.json")

    @property
    def settled(self) -> str:
        """File that says what was there when all was done."""
        return self._join("summary", "settled.json")

    @property
    def report(self) -> str:
        """The morning page."""
        return self._join("report", "index.html")

    def folder(self, kind: str) -> str:
        """Folder of one kind of the night's files, such as ``results`` or ``maps``."""
        return self._join(kind)

    def _join(self, kind: str, *parts: str) -> str:
        return storage.join(self.out, kind, f"{PREFIX}{self.night}", *parts)


def nights_below(out: str, *kinds: str) -> list[NightFolder]:
    """Return the nights that have a folder of one of these kinds, the oldest first.

    What people put beside them is nobody's night. Kinds are such as ``manifest``, ``fleet`` or
    ``results``.
    """
    names: set[str] = set()
    for kind in kinds:
        names |= {*storage.names_below(storage.join(storage.absolute(out), kind))}
    found = []
    for name in sorted(names):
        if name.startswith(PREFIX):
            with suppress(NightError):
                found.append(NightFolder(out, name.removeprefix(PREFIX)))
    return found


def picture_name(image_uri: str) -> str:
    """Name of an image's pictures, without a suffix: any address becomes 32 hex digits."""
    return hashlib.sha256(image_uri.encode(errors="surrogatepass")).hexdigest()[:32]


def _real_date(night: str) -> str:
    with suppress(ValueError):
        if NIGHT_PATTERN.fullmatch(night):
            return dt.date.fromisoformat(night).isoformat()
    raise NightError(
        f"a night is named by its date as YYYY-MM-DD, got {night!r}; "
        f"pass for example --night 2026-03-12"
    )
