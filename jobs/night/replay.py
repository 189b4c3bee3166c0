"""Score past nights with other detectors, into a place of its own, and compare.

A replayed night is a night like any other: exactly once, and gone on with where it was cut off.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobs.cluster.join import cluster
from jobs.night.score import score
from pipeline import storage
from pipeline.catalogue.rename_table import read_renames
from pipeline.labels.label import labels_of
from pipeline.labels.label_table import LabelTable
from pipeline.night.fleet import hold
from pipeline.night.fleet.fleet import Fleet, champions_so_far, stored_fleet
from pipeline.night.fleet.resolve import resolve_fleet
from pipeline.night.fleet.stand_ins import with_stand_ins
from pipeline.night.folder import NightFolder
from pipeline.night.record import is_reported
from pipeline.night.results import read_night, stored_shards
from pipeline.registry import connection, models
from pipeline.registry.aliases import CHALLENGER
from pipeline.replay.difference import CategoryDifference, ReplayedNight, differences
from pipeline.replay.past_nights import ReplayError, begin, past_nights
from pipeline.replay.replay_page import write_replay

CHALLENGERS = "challenger"


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """What is replayed, and with what."""

    out: str  # folder of the results of the nights
    nights: str  # ``A..B``
    fleet: str = CHALLENGERS  # or the first digits of a fleet's digest
    only: Collection[str] = ()  # categories; none: all
    place: str | None = None  # by default OUT/replay; each fleet has a folder of its own there


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What a replay came to."""

    nights: Sequence[str]
    fleet: str  # its digest
    place: str
    page: str
    num_scored: int  # by this call
    unusable: dict[str, str]  # why a category's version could not be used
    found: Sequence[CategoryDifference]

    def to_json(self) -> dict[str, Any]:
        """All of it in plain JSON types."""
        return {**vars(self), "found": [each.to_json() for each in self.found]}


def replay(options: ReplayOptions) -> Replayed:
    """Score the images of past nights with other detectors, and write what would be otherwise.

    Raises:
        ReplayError, NightError, FleetError: there is nothing to replay, or nothing to replay with.
        ServiceAway: MLflow or a storage is away.
    """
    out = storage.absolute(options.out)
    nights = past_nights(out, options.nights)
    fleet = _with_earlier_names(_fleet(out, options), nights)
    places = storage.absolute(options.place or storage.join(out, "replay"))
    place = storage.join(places, fleet.digest[:16])
    hold.hold(place, fleet.store(place))
    replayed = [(night, NightFolder(place, night.night)) for night in nights]
    begun = [pair for pair in replayed if begin(*pair, fleet)]
    if not begun:
        raise ReplayError(
            f"{options.nights}: no image was scored by another version than the one to replay "
            f"with, of {', '.join(sorted(fleet.champions)) or 'no category'}."
        )
    num_scored = _score([now for _, now in begun])
    found = differences(_compared(out, begun))
    dates = [now.night for _, now in begun]
    told = {
        "nights": dates,
        "fleet": fleet.digest,
        "with": "the challengers" if options.fleet == CHALLENGERS else "a stored fleet",
        "unusable": dict(fleet.unusable),
    }
    reading = {name: champion.preprocessing for name, champion in fleet.champions.items()}
    page = write_replay(place, told, found, reading)
    return Replayed(
        nights=dates,
        fleet=fleet.digest,
        place=place,
        page=page,
        num_scored=num_scored,
        unusable=dict(fleet.unusable),
        found=found,
    )


def _fleet(out: str, options: ReplayOptions) -> Fleet:
    """Return what the nights are replayed with; its packages lie beside the results."""
    if options.fleet != CHALLENGERS:
        stored = Fleet.read(stored_fleet(out, hold.full_digest(out, options.fleet)))
        return _only(stored, options.only)
    connection.connect()
    versions = models.with_alias(CHALLENGER)
    wanted = versions.keys() & set(options.only) if options.only else versions.keys()
    if not wanted:
        whose = f"of {', '.join(sorted(options.only))}" if options.only else "of any category"
        raise ReplayError(f"no version {whose} is challenger; onboard with --no-promote first.")
    return _only(resolve_fleet(out, versions, wanted, models.download), wanted)


def _only(fleet: Fleet, names: Collection[str]) -> Fleet:
    """The same fleet with these categories alone; no names: with all."""
    kept = {name: one for name, one in fleet.champions.items() if not names or name in names}
    unusable = {name: why for name, why in fleet.unusable.items() if not names or name in names}
    if not kept:
        why = next(iter(unusable.values()), "it has no such category")
        raise ReplayError(f"there is nothing to replay with: {why}")
    return Fleet(champions=kept, unusable=unusable)


def _with_earlier_names(fleet: Fleet, nights: Sequence[NightFolder]) -> Fleet:
    """The same fleet, for what the nights have under names that its categories had then, too."""
    then = {name for night in nights for name in champions_so_far(night)}
    champions = with_stand_ins(fleet.champions, then, read_renames(nights[0].out))
    return replace(fleet, champions=champions)


def _score(nights: Sequence[NightFolder]) -> int:
    """Score what is left of each night; return how many images were scored now."""
    left = [night for night in nights if not is_reported(night, stored_shards(night))]
    if not left:
        return 0
    with cluster():  # one for all nights
        return sum(score(night.manifest, night, audit_images=0).num_scored for night in left)


def _compared(
    out: str, nights: Sequence[tuple[NightFolder, NightFolder]]
) -> Iterator[ReplayedNight]:
    table = LabelTable(out)
    for then, now in nights:
        rows = read_night(now)
        etags = dict(zip(*(rows[n].to_pylist() for n in ("image_uri", "image_etag")), strict=True))
        categories = rows["category"].unique().to_pylist()
        labels = labels_of(table.of_night(then.night, categories), etags)
        yield ReplayedNight(night=then.night, then=read_night(then), now=rows, labels=labels)
