"""Holding a fleet: the coming nights are scored with it until it is released or rolled back.

Without a hold every night takes what are champions when it begins. A hold is one small file beside
the results; what it points to, a fleet under its digest and the packages under theirs, never
changes. So rolling back is one write. On the command line it is ``nightshift fleet pin``.
"""

import json
from dataclasses import dataclass

from pipeline import storage
from pipeline.night.fleet.fleet import Fleet, FleetError, content_digest, stored_fleet
from pipeline.night.folder import NightFolder, nights_below


@dataclass(frozen=True, kw_only=True)
class Hold:
    """The fleet that is held and those before it, by digest."""

    digest: str | None  # None: nights take the champions of the registry
    earlier: tuple[str, ...] = ()  # the last one last


def read_hold(out: str) -> Hold:
    """Return what is held for the nights below ``out``.

    Raises:
        FleetError: its file is damaged.
    """
    content = storage.read_if_there(_hold_uri(out))
    if content is None:
        return Hold(digest=None)
    try:
        document = json.loads(content)
        return Hold(digest=document["digest"], earlier=tuple(document["earlier"]))
    except (ValueError, KeyError, TypeError) as error:
        raise FleetError(
            f"{_hold_uri(out)} is damaged ({error!r}); "
            f"pin a fleet again with `nightshift fleet pin`"
        ) from error


def held_fleet(out: str) -> Fleet | None:
    """Return the fleet that is held; None when nights take the champions of the registry."""
    digest = read_hold(out).digest
    return None if digest is None else Fleet.read(stored_fleet(out, digest))


def hold(out: str, digest: str) -> Hold:
    """Score the coming nights with the fleet of this digest."""
    Fleet.read(stored_fleet(out, digest))  # it is there and whole
    now = read_hold(out)
    if now.digest == digest:
        return now
    return _write(out, Hold(digest=digest, earlier=_with(now)))


def release(out: str) -> Hold:
    """Let nights take the champions of the registry again."""
    return _write(out, Hold(digest=None, earlier=_with(read_hold(out))))


def rollback(out: str) -> Hold:
    """Hold the fleet before the one that is held.

    Raises:
        FleetError: there is none.
    """
    now = read_hold(out)
    if not now.earlier:
        raise FleetError(
            f"no fleet was pinned under {out} before; pin the fleet of a good night instead: "
            f"`nightshift fleet pin {out} --night YYYY-MM-DD`"
        )
    return _write(out, Hold(digest=now.earlier[-1], earlier=now.earlier[:-1]))


def digest_of_night(folder: NightFolder) -> str:
    """Return the digest of the fleet that scored a night.

    Raises:
        FleetError: the night was not scored here.
    """
    try:
        return content_digest(storage.read_bytes(folder.fleet))
    except storage.ObjectMissing as error:
        raise FleetError(
            f"night {folder.night} was not scored under {folder.out}; `nightshift fleet show "
            f"{folder.out}` lists the fleets that are there"
        ) from error


def full_digest(out: str, start: str) -> str:
    """Return the one stored fleet whose digest starts like this.

    Raises:
        FleetError: there is none, or several.
    """
    matching = [digest for digest in stored_digests(out) if digest.startswith(start)]
    if len(matching) != 1:
        raise FleetError(
            f"{len(matching)} fleets under {out} have a digest that starts with {start!r}; "
            f"`nightshift fleet show {out}` lists them"
        )
    return matching[0]


def stored_digests(out: str) -> list[str]:
    """Return the digests of all fleets that were used or held here."""
    names = storage.names_below(storage.join(out, "fleet"))
    ends = [name.removesuffix(".json") for name in names if name.endswith(".json")]
    return [name for name in ends if len(name) == 64]


def digests_of_nights(out: str, newest: int = 14) -> dict[str, str]:
    """Return the fleet digest of the newest nights that were scored here, by night."""
    return {at.night: digest_of_night(at) for at in nights_below(out, "fleet")[-newest:]}


def _with(now: Hold) -> tuple[str, ...]:
    return now.earlier if now.digest is None else (*now.earlier, now.digest)


def _write(out: str, changed: Hold) -> Hold:
    document = {"digest": changed.digest, "earlier": list(changed.earlier)}
    storage.write_bytes(_hold_uri(out), json.dumps(document).encode())
    return changed


def _hold_uri(out: str) -> str:
    return storage.join(out, "fleet", "pinned.json")
