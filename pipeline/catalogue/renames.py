"""Categories that were renamed: what a name on an older night is called today, and the reverse.

A name may be given again to another category later. So a rename speaks only of the nights up to its
own day; of that day itself a name means what it meant before.
"""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter


@dataclass(frozen=True, kw_only=True)
class Rename:
    """A category was called otherwise from some moment on."""

    old: str
    new: str
    when: dt.datetime  # with its time zone

    @property
    def last_night(self) -> str:
        """The last night on which the old name may mean this category, YYYY-MM-DD."""
        return self.when.astimezone(dt.UTC).date().isoformat()


def name_now(category: str, night: str, renames: Iterable[Rename]) -> str:
    """Return what a category of some night is called today.

    An empty date takes the name to be as old as any.
    """
    for rename in _in_order(renames):
        if rename.old == category and night <= rename.last_night:
            category = rename.new
    return category


def earlier_names(category: str, renames: Iterable[Rename]) -> list[tuple[str, str]]:
    """Return the names that a category of today had, and the last night of each, latest first."""
    found, name = [], category
    for rename in reversed(_in_order(renames)):
        if rename.old == name:  # it was given away, and whoever has it now came later
            break
        if rename.new == name:
            name = rename.old
            found.append((name, rename.last_night))
    return [entry for entry in found if entry[0] != category]


def names_on(night: str, category: str, renames: Iterable[Rename]) -> list[str]:
    """Return the names by which a category of today may be found in a night's rows."""
    renames = list(renames)
    names = [category, *(name for name, _ in earlier_names(category, renames))]
    return [name for name in names if name_now(name, night, renames) == category]


def _in_order(renames: Iterable[Rename]) -> list[Rename]:
    return sorted(renames, key=attrgetter("when"))
