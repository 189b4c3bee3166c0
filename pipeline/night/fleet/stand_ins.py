"""Images that lie under a name that a category had before are scored by that category still.

A dump names categories by its folders, and whoever fills them learns of a new name later. The rows
have the name of the folder; which category scored them says ``model_name``.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from pipeline.catalogue.renames import Rename, name_now
from pipeline.night.fleet.fleet import Champion
from pipeline.registry.models import RegisteredVersion

Model = TypeVar("Model", Champion, RegisteredVersion)


def with_stand_ins(
    champions: Mapping[str, Model], categories: Collection[str], renames: Iterable[Rename]
) -> dict[str, Model]:
    """Return champions by today's name, and by each earlier one that no category has any more.

    Only ``categories``, those that have images, get a stand-in.
    """
    renames = list(renames)
    unknown = {name: name_now(name, "", renames) for name in categories if name not in champions}
    return {
        **champions,
        **{
            name: dataclasses.replace(champions[now], category=name)
            for name, now in unknown.items()
            if now in champions
        },
    }
