"""A category gets another name, or leaves the nights: in the registry, and where else it is named.

The registry comes first; what follows is done again by a second call, so that one that was killed
is finished by the next. What past nights need lies beside their results under the name that it had,
and is left alone.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from model.errors import NightshiftError
from pipeline import storage
from pipeline.catalogue.category_name import PATTERN, is_category_name
from pipeline.catalogue.rename_table import note_renames
from pipeline.night.fleet.hold import held_fleet
from pipeline.onboarding.overview import (
    is_in_overview,
    rename_in_overview,
    take_out_of_overview,
)
from pipeline.registry import category_names
from pipeline.registry.aliases import model_name
from pipeline.registry.category_names import RegisteredCategory, find_category


class CategoryChangeError(NightshiftError):
    """A category cannot be renamed or removed as asked."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where else than in the registry a category is named."""

    outs: Sequence[str] = ()  # results of nights, as of ``NightFolder``
    runs: str | None = None  # of ``nightshift onboard``


@dataclass(frozen=True, kw_only=True)
class CategoryChange:
    """What was done, or would be."""

    category: str  # the name before
    new_name: str | None  # None: it was removed
    num_versions: int
    aliases: Mapping[str, str]  # version by alias, before; they go with a new name
    in_registry: bool  # whether the registry is changed; else it was before
    noted: Sequence[str]  # results whose table of renames was added to
    in_overview: bool  # whether its line in the overview was changed

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def rename_category(
    old: str, new: str, places: Places, now: dt.datetime, *, dry_run: bool = False
) -> CategoryChange:
    """Give a category another name; once more where that was cut off.

    A dry run only sees whether it can be done.

    Raises:
        CategoryChangeError: there is no such category, the new name is taken or is none, or nights
            are pinned to a fleet with the old one.
        RegistryError, StorageError: a service is away.
    """
    if not is_category_name(new) or new == old:
        raise CategoryChangeError(
            f"{new!r} cannot be the new name of {old!r}: needed is another one that matches "
            f"{PATTERN}."
        )
    before, taken = find_category(old), find_category(new)
    earlier_names = {rename.old for rename in taken.renames} if taken else set()
    is_done = before is None and old in earlier_names
    if not is_done:
        _refuse_rename(old, new, before, taken)
    found = taken if is_done else before
    assert found is not None, "else it was refused"
    _refuse_pinned(places.outs, old)
    noted: list[str] = []
    in_overview = False
    if not dry_run:
        _ = category_names.finish_rename(new) if is_done else category_names.rename(old, new, now)
        renames = category_names.all_renames()
        noted = [out for out in places.outs if note_renames(out, renames)]
        in_overview = places.runs is not None and rename_in_overview(places.runs, old, new, now)
    return CategoryChange(
        category=old,
        new_name=new,
        num_versions=found.num_versions,
        aliases=found.aliases,
        in_registry=not is_done,
        noted=noted,
        in_overview=in_overview,
    )


def remove_category(
    category: str, places: Places, now: dt.datetime, *, dry_run: bool = False
) -> CategoryChange:
    """Take a category out of the nights to come; its versions stay.

    One that was never registered, as it failed, leaves the overview. A dry run only sees whether
    it can be done.

    Raises:
        CategoryChangeError: there is no such category, or nights are pinned to a fleet with it.
        RegistryError, StorageError: a service is away.
    """
    found = find_category(category)
    in_overview = places.runs is not None and is_in_overview(places.runs, category)
    if found is None and not in_overview:
        raise CategoryChangeError(_unknown(category))
    _refuse_pinned(places.outs, category)
    if not dry_run:
        if found is not None:
            category_names.remove(category)
        if places.runs is not None:
            take_out_of_overview(places.runs, category, now)
    return CategoryChange(
        category=category,
        new_name=None,
        num_versions=found.num_versions if found else 0,
        aliases=found.aliases if found else {},
        in_registry=found is not None and found.takes_part,
        noted=(),
        in_overview=in_overview,
    )


def _refuse_rename(
    old: str, new: str, before: RegisteredCategory | None, taken: RegisteredCategory | None
) -> None:
    if before is None:
        raise CategoryChangeError(_unknown(old))
    if taken is not None:
        state = "is there already" if taken.takes_part else "was removed, and keeps its name"
        raise CategoryChangeError(
            f"{old} cannot be called {new}: {model_name(new)} {state}, with {taken.num_versions} "
            f"versions. Choose another name, or rename that one first."
        )


def _unknown(category: str) -> str:
    return (
        f"no model {model_name(category)} is registered, so there is no category {category!r}. "
        f"Check the name and MLFLOW_TRACKING_URI."
    )


def _refuse_pinned(outs: Sequence[str], category: str) -> None:
    """Refuse what nights would not notice: a pinned fleet keeps the models that it has, by name."""
    for out in outs:
        _refuse_strange(out)
        held = held_fleet(out)
        models = {} if held is None else {c.model_name: c for c in held.champions.values()}
        if pinned := models.get(model_name(category)):
            raise CategoryChangeError(
                f"the fleet that is pinned under {out} has {category} version "
                f"{pinned.model_version}, and nights would go on with it. "
                f"`nightshift fleet release {out}` first, or pin a fleet without it."
            )


def _refuse_strange(out: str) -> None:
    """Refuse a folder without results: nothing should be written where nobody looks."""
    if not {"results", "summary", "fleet"} & {*storage.names_below(out)}:
        raise CategoryChangeError(
            f"{out} has no nights; name the folder or prefix that `score --out` was given."
        )
