"""Which past nights are replayed, and which of their images another fleet would decide anew."""

import pyarrow as pa
import pyarrow.compute as pc

from model.errors import NightshiftError
from pipeline import storage
from pipeline.night.dumps import NightImages, store_images, take_in
from pipeline.night.fleet.fleet import Fleet, champions_so_far
from pipeline.night.folder import NightFolder, nights_below


class ReplayError(NightshiftError):
    """There is nothing to replay."""


def past_nights(out: str, span: str) -> list[NightFolder]:
    """Return the nights of ``A..B`` or of one date that have images on record, the oldest first.

    Raises:
        NightError: a date is none.
        ReplayError: no night lies between them.
    """
    first, separator, last = span.partition("..")
    first, last = (NightFolder(out, date).night for date in (first, last if separator else first))
    found = [at for at in nights_below(out, "manifest") if first <= at.night <= last]
    if not found:
        raise ReplayError(
            f"{out} has images of no night from {first} to {last}; "
            f"`nightshift fleet show {out}` lists the nights that were scored there."
        )
    return found


def begin(then: NightFolder, now: NightFolder, fleet: Fleet) -> int:
    """Store the images that are scored once more as those of a night of their own; say how many.

    They are the images of the categories that the fleet has another detector for than the one that
    scored them. What is begun stays as it is.

    Raises:
        ManifestError: the night's images are damaged.
    """
    used = {name: champion.model_digest for name, champion in champions_so_far(then).items()}
    others = [
        name
        for name, champion in fleet.champions.items()
        if name in used and used[name] != champion.model_digest
    ]
    images, _ = take_in(then.manifest, then)
    wanted = pc.is_in(images.rows["category"], value_set=pa.array(others, pa.string()))
    rows = images.rows.filter(wanted)
    if rows.num_rows and not storage.exists(now.manifest):
        store_images(NightImages(rows=rows), now)
    return int(rows.num_rows)
