"""New champions whose nights are out of the ordinary, with the command that takes them back.

A promotion promises a false-alarm rate on images like those it was judged by. Its first nights show
whether that held: a category that shifted or is flagged beyond chance then stands on top of the
report, since the new version may be the reason. Nothing is taken back by itself.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pipeline import storage
from pipeline.night.fleet.fleet import Champion, Fleet, FleetError
from pipeline.night.folder import NightFolder, nights_below
from pipeline.report.verdict import Assessment, Attention

WATCHED = 3  # first nights of a version
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
    before = list(_fleets_before(folder)) if watched else []
    found = (_judged(folder, champions[a.category], a, before) for a in watched)
    return [each for each in found if each is not None]


def _judged(
    folder: NightFolder,
    champion: Champion,
    assessment: Assessment,
    before: Sequence[tuple[str, Mapping[str, Champion]]],
) -> NewChampion | None:
    """Return what is to be said of a category; None: its champion is not new."""
    category, since = assessment.category, folder.night
    own = [(night, fleet[category]) for night, fleet in before if category in fleet]
    for night, earlier in own[:WATCHED]:
        if earlier.model_digest != champion.model_digest:
            because = f"{category} {OUT_OF_THE_ORDINARY[assessment.attention]}, {folder.night}"
            arguments = [category, "--to", earlier.model_version, "--because", because]
            return NewChampion(
                category=category,
                version=champion.model_version,
                version_before=earlier.model_version,
                since=since,
                what=OUT_OF_THE_ORDINARY[assessment.attention],
                command=shlex.join(["nightshift", "rollback", *arguments]),
            )
        since = night
    return None


def _fleets_before(folder: NightFolder) -> Iterator[tuple[str, Mapping[str, Champion]]]:
    """Yield the fleets of the nights before, the last first; one that is damaged is left out."""
    earlier = [at for at in nights_below(folder.out, "fleet") if at.night < folder.night]
    for at in reversed(earlier[-WATCHED:]):
        with suppress(FleetError, storage.ObjectMissing):
            yield at.night, Fleet.read(at.fleet).champions
