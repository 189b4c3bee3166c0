"""Addresses in a catalogue: `{name}` is the category's name, a relative path starts at the file."""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, StringConstraints, ValidationInfo

from model.weights import RANDOM
from pipeline import storage
from pipeline.catalogue.strict_yaml import shown

BRACES = re.compile(r"\{name\}|\{\{|\}\}|[{}]")


@dataclass(frozen=True, kw_only=True)
class Context:
    """What addresses are resolved by while a file is read; elsewhere they are resolved already."""

    folder: str  # of the file
    name: str | None = None  # of the category, where there is one


def _resolved(given: str, info: ValidationInfo) -> str:
    if not isinstance(info.context, Context):
        return given
    name = info.context.name
    if name is not None:
        given = BRACES.sub(lambda found: _filled(found[0], name, given), given)
    try:
        return storage.absolute(given, info.context.folder)
    except storage.StorageError as error:
        raise ValueError(str(error)) from error


def _filled(braces: str, name: str, text: str) -> str:
    if braces == "{name}":
        return name
    if len(braces) == 1:
        raise ValueError(
            f"expected nothing but {{name}} in braces, found {shown(text)}; "
            f"a brace of the address itself is written twice"
        )
    return braces[0]


def _resolved_weights(given: str, info: ValidationInfo) -> str:
    return given if given == RANDOM else _resolved(given, info)


ImagesAddress = Annotated[str, StringConstraints(min_length=1), AfterValidator(_resolved)]
WeightsAddress = Annotated[str, AfterValidator(_resolved_weights)]


def _as_excluded(given: Any) -> Any:
    """Say in one line what is expected, where each part of a union would say its own."""
    is_list = isinstance(given, list) and all(isinstance(each, str) and each for each in given)
    if given is None or is_list or (isinstance(given, str) and given):
        return given
    raise ValueError("expected a list of image addresses, or a file with one on each line")


def _as_places(given: Any) -> Any:
    places = [given] if isinstance(given, str) else given or []
    if isinstance(places, list | tuple) and all(isinstance(each, str) and each for each in places):
        return tuple(places)
    raise ValueError("expected the folder of results that score --out names, or a list of them")


# Folders of results, beside which the labels lie.
LabelsSetting = Annotated[tuple[ImagesAddress, ...], BeforeValidator(_as_places)]
# Images to leave out: their addresses, or a file that has one on each line.
ExcludeSetting = Annotated[
    list[ImagesAddress] | ImagesAddress | None, BeforeValidator(_as_excluded)
]
