"""What says that a night is settled: the shards that were there, and what is left to try again.

It is written when the summary is, and noted once more when the report is: who finds the same
shards need not read one of them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from pipeline import storage
from pipeline.night.folder import NightFolder

SETTLED_VERSION = 2  # of what settling does with the same rows


@dataclass(frozen=True, kw_only=True)
class SettledRecord:
    """A night as it was settled."""

    fingerprint: str  # of its shards
    with_failures: tuple[str, ...]  # shards that hold rows worth trying again
    is_reported: bool = False


def fingerprint(shards: Mapping[str, str]) -> str:
    """Return what shards are known by as they lie there, from etags by name."""
    identity = json.dumps([SETTLED_VERSION, sorted(shards.items())])
    return hashlib.sha256(identity.encode()).hexdigest()


def read_record(folder: NightFolder, shards: Mapping[str, str]) -> SettledRecord | None:
    """Return the record of exactly these shards; None when they have not been settled.

    That of an earlier release counts as none: the night is settled once more, nothing is scored.
    """
    try:
        record = SettledRecord(**json.loads(storage.read_bytes(folder.settled)))
    except (storage.ObjectMissing, ValueError, TypeError):  # none, or not a whole one
        return None
    return record if record.fingerprint == fingerprint(shards) else None


def write_record(folder: NightFolder, record: SettledRecord) -> None:
    """Note that a night is settled."""
    storage.write_bytes(folder.settled, json.dumps(asdict(record)).encode())


def is_reported(folder: NightFolder, shards: Mapping[str, str]) -> bool:
    """Say whether the report tells of exactly these shards."""
    record = read_record(folder, shards)
    return record is not None and record.is_reported


def note_reported(folder: NightFolder, shards: Mapping[str, str]) -> None:
    """Note that the report of a settled night is written."""
    if record := read_record(folder, shards):
        write_record(folder, replace(record, is_reported=True))
