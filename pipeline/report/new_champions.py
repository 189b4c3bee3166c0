"""New champions whose nights are out of the ordinary, with the command that takes them back.

A promotion promises a false-alarm rate on images like those it was judged by. Its first nights show
whether that held: a category that shifted or is flagged beyond chance then stands on top of the
report, since the new version may be the reason. A version that came back, as after a rollback, is
not new. Nothing is taken back by itself.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from pipeline import storage
from pipeline.night.fleet.fleet import Champion, Fleet, FleetError, stored_fleet
from pipeline.night.fleet.hold import read_hold
from pipeline.night.folder import NightFolder, nights_below
from pipeline.report.verdict import Assessment, Attention

WATCHED = 3  # first nights of a version
LOOKED_BACK = 60  # nights in which a version that came back may have scored before
OUT_OF_THE_ORDINARY = {
    Attention.SHIFTED: "has shifted as a whole",
    Attention.BEYOND_CHANCE: "is flagged more often than false alarms can explain",
}


@dataclass(frozen=True, kw_only=True)
class NewChampion:
    """A category whose night is out of the ordinary, scored by a version that is new to it."""

    category: str
    version: str
    version_before: str
    since: str  # its first night
    what: str  # is out of the ordinary
    command: str


def new_champions(
    folder: NightFolder, champions: Mapping[str, Champion], assessments: Sequence[Assessment]
) -> list[NewChampion]:
    """Return those of a night, in the order of the page.

    Earlier nights are looked at only if a category is out of the ordinary.

    Args:
        folder: the night.
        champions: that scored it, by category.
        assessments: of its categories.
    """
    watched = [a for a in assessments if a.attention in OUT_OF_THE_ORDINARY]
    watched = [a for a in watched if a.category in champions]
    stored = nights_below(folder.out, "fleet") if watched else []
    nights = [at for at in reversed(stored) if at.night < folder.night][:LOOKED_BACK]
    fleet_of = cache(lambda at: _champions(at.fleet))
    found = []
    for each in watched:
        before = _before(champions[each.category], ((at.night, fleet_of(at)) for at in nights))
        if before is not None:
            found.append(_told(folder, champions[each.category], each, before))
    return found


@dataclass(frozen=True, kw_only=True)
class _Before:
    """What scored a category before its new champion."""

    since: str | None  # first of the earlier nights of the new one; None: this night is
    night: str  # last night of the other
    version: str


def _before(
    champion: Champion, nights: Iterable[tuple[str, Mapping[str, Champion]]]
) -> _Before | None:
    """Return what a new champion has followed; None: it is not new.

    Args:
        champion: of a category.
        nights: the fleets of the nights before, the last first.
    """
    own = ((n, fleet[champion.category]) for n, fleet in nights if champion.category in fleet)
    since, found = None, None
    for number, (night, earlier) in enumerate(own):
        is_same = earlier.model_digest == champion.model_digest
        if number == WATCHED if found is None else is_same:
            return None  # it has scored long enough, or has scored before and came back
        if found is None and not is_same:
            found = _Before(since=since, night=night, version=earlier.model_version)
        since = night
    return found


def _told(
    folder: NightFolder, champion: Champion, assessment: Assessment, before: _Before
) -> NewChampion:
    return NewChampion(
        category=assessment.category,
        version=champion.model_version,
        version_before=before.version,
        since=before.since or folder.night,
        what=OUT_OF_THE_ORDINARY[assessment.attention],
        command=shlex.join(["nightshift", *_way_back(folder, assessment, before)]),
    )


def _way_back(folder: NightFolder, assessment: Assessment, before: _Before) -> list[str]:
    """The command that takes a new champion back; nights of a pinned fleet ask no registry."""
    category = assessment.category
    with suppress(FleetError):
        held = read_hold(folder.out)
        last = _champions(stored_fleet(folder.out, held.earlier[-1])) if held.earlier else {}
        if held.digest and category in last and last[category].model_version == before.version:
            return ["fleet", "rollback", folder.out]
        if held.digest:
            return ["fleet", "pin", folder.out, "--night", before.night]
    because = f"{category} {OUT_OF_THE_ORDINARY[assessment.attention]}, {folder.night}"
    return ["rollback", category, "--to", before.version, "--because", because]


def _champions(uri: str) -> Mapping[str, Champion]:
    """Champions of a stored fleet; one that is gone or damaged has none."""
    with suppress(FleetError, storage.ObjectMissing):
        return Fleet.read(uri).champions
    return {}
