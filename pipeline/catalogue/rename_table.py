"""What categories were called before, beside the results: for readers of nights without a registry.

``<out>/fleet/renames.json`` is a copy of what the registry knows. ``score`` brings it up to
date when it asks the registry for champions, and so does the rename itself where it is told of the
results.
"""

import datetime as dt
import json
import logging
from collections.abc import Iterable
from operator import attrgetter

from model.errors import NightshiftError
from pipeline import storage
from pipeline.catalogue.renames import Rename

logger = logging.getLogger(__name__)

PLACE = ("fleet", "renames.json")  # where whoever scores nights may read and write


class RenamesError(NightshiftError):
    """The table of renames is damaged."""


def read_renames(out: str) -> list[Rename]:
    """Return every rename that the results below ``out`` know of, the latest last.

    Raises:
        RenamesError: the file is damaged.
        StorageError: it cannot be read.
    """
    uri = storage.join(out, *PLACE)
    content = storage.read_if_there(uri)
    if content is None:
        return []
    try:
        entries = json.loads(content)["renames"]
        return [
            Rename(old=e["old"], new=e["new"], when=dt.datetime.fromisoformat(e["when"]))
            for e in entries
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise RenamesError(
            f"{uri} is damaged ({error!r}); delete it: the next night that takes the champions of "
            f"the registry writes it anew"
        ) from error


def note_renames(out: str, renames: Iterable[Rename]) -> bool:
    """Add renames to the table below ``out``; return whether there was anything to add.

    They are all that the registry has, and replace a damaged table.

    Raises:
        StorageError: it cannot be read or written.
    """
    renames = list(renames)
    if not renames:
        return False
    try:
        known = read_renames(out)
    except RenamesError as error:
        logger.warning("%s", error)
        known = []
    together = sorted(dict.fromkeys([*known, *renames]), key=attrgetter("when"))
    if len(together) == len(known):
        return False
    entries = [{"old": r.old, "new": r.new, "when": r.when.isoformat()} for r in together]
    content = json.dumps({"renames": entries}, indent=1).encode()
    storage.write_bytes(storage.join(out, *PLACE), content)
    return True
