"""Holding a fleet: nights are scored with the pinned one until it is released or rolled back.

Without a pin every night takes what are champions when it begins. A pin is one small file beside
the results; what it points to, a fleet under its digest and the packages under theirs, never
changes. So rolling back is one write.
"""

import json
from dataclasses import dataclass

from pipeline import storage
from pipeline.night.fleet.fleet import Champion, FleetError, fleet_digest, read_stored_fleet


@dataclass(frozen=True, kw_only=True)
class Pin:
    """The pinned fleet and those before it, by digest."""

    digest: str | None  # None: nights take the champions of the registry
    earlier: tuple[str, ...] = ()  # the last one last


def read_pin(out: str) -> Pin:
    """Return what is pinned below ``out``.

    Raises:
        FleetError: the pin's file is damaged.
    """
    try:
        document = json.loads(storage.read_bytes(_pin_uri(out)))
        return Pin(digest=document["digest"], earlier=tuple(document["earlier"]))
    except storage.ObjectMissing:
        return Pin(digest=None)
    except (ValueError, KeyError, TypeError) as error:
        raise FleetError(
            f"{_pin_uri(out)} is damaged ({error!r}); pin a fleet again with `nightshift fleet pin`"
        ) from error


def pinned_fleet(out: str) -> dict[str, Champion] | None:
    """Return the pinned fleet; None when nights take the champions of the registry."""
    digest = read_pin(out).digest
    return None if digest is None else read_stored_fleet(out, digest)


def pin(out: str, digest: str) -> Pin:
    """Score the coming nights with the fleet of this digest."""
    read_stored_fleet(out, digest)  # it is there and whole
    now = read_pin(out)
    if now.digest == digest:
        return now
    return _write(out, Pin(digest=digest, earlier=_with(now)))


def release(out: str) -> Pin:
    """Let nights take the champions of the registry again."""
    return _write(out, Pin(digest=None, earlier=_with(read_pin(out))))


def rollback(out: str) -> Pin:
    """Pin the fleet before the pinned one.

    Raises:
        FleetError: there is none.
    """
    now = read_pin(out)
    if not now.earlier:
        raise FleetError(
            f"no fleet was pinned under {out} before; pin the fleet of a good night instead: "
            f"`nightshift fleet pin {out} --night YYYY-MM-DD`"
        )
    return _write(out, Pin(digest=now.earlier[-1], earlier=now.earlier[:-1]))


def digest_of_night(out: str, night: str) -> str:
    """Return the digest of the fleet that scored a night.

    Raises:
        FleetError: the night was not scored here.
    """
    try:
        return fleet_digest(out, night)
    except storage.ObjectMissing as error:
        raise FleetError(
            f"night {night} was not scored under {out}; `nightshift fleet show {out}` lists the "
            f"fleets that are there"
        ) from error


def full_digest(out: str, start: str) -> str:
    """Return the one stored fleet whose digest starts like this.

    Raises:
        FleetError: there is none, or several.
    """
    found = [digest for digest in stored_digests(out) if digest.startswith(start)]
    if len(found) != 1:
        raise FleetError(
            f"{len(found)} fleets under {out} have a digest that starts with {start!r}; "
            f"`nightshift fleet show {out}` lists them"
        )
    return found[0]


def stored_digests(out: str) -> list[str]:
    """Return the digests of all fleets that were used or pinned here."""
    try:
        names = storage.list_names(storage.join(out, "fleet"))
    except storage.ObjectMissing:
        return []
    ends = [name.removesuffix(".json") for name in names if name.endswith(".json")]
    return [name for name in ends if len(name) == 64]


def digests_of_nights(out: str, newest: int = 14) -> dict[str, str]:
    """Return the fleet digest of the newest nights that were scored here, by night."""
    try:
        names = storage.list_names(storage.join(out, "fleet"))
    except storage.ObjectMissing:
        return {}
    nights = [name.removeprefix("night=") for name in names if name.startswith("night=")]
    return {night: fleet_digest(out, night) for night in sorted(nights)[-newest:]}


def _with(now: Pin) -> tuple[str, ...]:
    return now.earlier if now.digest is None else (*now.earlier, now.digest)


def _write(out: str, changed: Pin) -> Pin:
    document = {"digest": changed.digest, "earlier": list(changed.earlier)}
    storage.write_bytes(_pin_uri(out), json.dumps(document).encode())
    return changed


def _pin_uri(out: str) -> str:
    return storage.join(out, "fleet", "pinned.json")
