"""Room in the folder of all nights: what is large of old nights goes, what they came to stays.

The rows, pictures, listing and page of a night are removed. Its summary, the fleet that it was
scored with and what people said of its images stay: they are small, and nothing else has them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from model.errors import NightshiftError
from pipeline import storage
from pipeline.night.folder import nights_below

REMOVED = ("report", "thumbnails", "maps", "drift", "results", "manifest")


class PruneError(NightshiftError):
    """There are no nights in the folder, or too few are to be kept."""


@dataclass(frozen=True, kw_only=True)
class PrunedNight:
    """What is removed of one night, or would be."""

    night: str
    num_files: int
    size_bytes: int


def prune(out: str, keep_nights: int, *, dry_run: bool = False) -> Iterator[PrunedNight]:
    """Remove what is large of all nights but the last ones; yield each, the oldest first.

    One that is cut off is gone on with by the next call. A dry run only says what would go.

    Raises:
        PruneError: no night is to be kept, or ``out`` has none at all: it may be another folder.
        StorageError: something cannot be listed or removed.
    """
    if keep_nights < 1:
        raise PruneError(f"--keep-nights must be at least 1, got {keep_nights}.")
    nights = nights_below(out, *REMOVED, "summary")
    if not nights:
        raise PruneError(f"{out} has no nights; name the folder that `score --out` was given.")
    for night in nights[:-keep_nights]:
        folders = [night.folder(kind) for kind in REMOVED]
        files = [file for each in folders for file in storage.objects_below(each, hidden=True)]
        if not dry_run:
            for folder in folders:
                storage.remove_below(folder)
        if files:
            size = sum(file.size_bytes for file in files)
            yield PrunedNight(night=night.night, num_files=len(files), size_bytes=size)
