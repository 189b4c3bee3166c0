"""Which sizes of made defects are found, in a few words: for tables and lines."""

from collections.abc import Mapping, Sequence
from typing import Any


def sizes_in_words(found: Sequence[Mapping[str, Any]]) -> str:
    """Say which sizes were found; each is the values of a ``SizeFound``."""
    if not found:
        return ""
    sizes, shares = (
        "/".join(f"{factor * each[name]:.0f}" for each in found)
        for name, factor in (("size", 1), ("share", 100))
    )
    return f"{shares} % of {sizes} pixels"
