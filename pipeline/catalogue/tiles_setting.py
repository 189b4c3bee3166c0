"""How a catalogue says that images are cut into tiles: ``tiles``."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, InstanceOf, PlainSerializer

from model.tiles import Tiles

EXPECTED = "expected {size: 256, overlap: 0.25, scale: 1.0, thumbnail: true, share: all | position}"
FOUND = "image"  # is found in the good images


def _as_tiles(given: Any) -> Any:
    """Say in one line what is wrong with any of the settings."""
    if given is None or isinstance(given, Tiles):
        return given
    known = {name: type(value) for name, value in vars(Tiles()).items() if name != FOUND}
    if not isinstance(given, Mapping) or not given.keys() <= known.keys():
        raise ValueError(EXPECTED)
    for name, value in given.items():
        is_number = known[name] is float and isinstance(value, int) and not isinstance(value, bool)
        if type(value) is not known[name] and not is_number:
            raise ValueError(f"{EXPECTED}; {name} is {value!r}")
    return Tiles(**given)


def _plain(tiles: Tiles | None) -> dict[str, Any] | None:
    """Return what was asked for as plain values: what keys and records are made of."""
    if tiles is None:
        return None
    return {name: value for name, value in vars(tiles).items() if name != FOUND}


TilesSetting = Annotated[
    InstanceOf[Tiles] | None, BeforeValidator(_as_tiles), PlainSerializer(_plain)
]
