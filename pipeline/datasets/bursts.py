"""Images that belong together: frames of one burst, shots of one part.

What a pattern's groups match in an image's address names its burst, or what a column of its
manifest says. Images of one burst are too much alike to be on both sides of training and
calibration.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from pipeline import storage
from pipeline.datasets.image_lists import read_columns, resolve_uris


class BurstColumn(BaseModel):
    """A column of a manifest: images with the same value in it belong together."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    column: str


def _as_group(given: Any) -> Any:
    """Say in one line what is expected, where each part of a union would say its own."""
    if isinstance(given, str):
        return _as_pattern(given)
    if given is None or isinstance(given, BurstColumn):
        return given
    try:
        found = BurstColumn.model_validate(given)
    except ValidationError:
        found = BurstColumn(column="")
    if not found.column.strip():
        raise ValueError(
            "expected a regular expression with a group in parentheses, or `{column: NAME}` with "
            "the name of a manifest's column"
        )
    return found


def _as_pattern(given: str) -> str:
    try:
        pattern = re.compile(given)
    except re.error as error:
        raise ValueError(f"{given!r} is no regular expression: {error}") from error
    if not pattern.groups:
        raise ValueError(
            f"{given!r} has no group in parentheses; what it matches there names the burst, as in "
            r"'/([^/]+)_\d+\.png$'"
        )
    return given


GroupSetting = Annotated[str | BurstColumn | None, BeforeValidator(_as_group)]


def column_of(group: str | BurstColumn | None, layout: str) -> str | None:
    """Return the column that names bursts, where one does.

    Raises:
        ValueError: the layout has no columns.
    """
    if not isinstance(group, BurstColumn):
        return None
    if layout != "manifest":
        raise ValueError(
            f"group: layout {layout} has no columns; give a regular expression over addresses, or "
            f"set `layout: manifest`"
        )
    return group.column


def bursts(pattern: str | None, uris: Sequence[str], hashes: Sequence[str]) -> list[str]:
    """Return a digest of what each image stays together with: hex sha256.

    The pattern is searched for in addresses. One that does not match is a burst of its own, known
    by the digest of its content; so is each without a pattern.
    """
    if pattern is None:
        return list(hashes)
    found = (re.search(pattern, uri) for uri in uris)
    return _named([None if match is None else match.groups() for match in found], hashes)


def bursts_of_column(
    values: Mapping[str, str], uris: Sequence[str], hashes: Sequence[str]
) -> list[str]:
    """Return a digest of what each image stays together with: hex sha256.

    An image without a value is a burst of its own, known by the digest of its content.
    """
    found = (values.get(uri) for uri in uris)
    return _named([None if value is None else (value,) for value in found], hashes)


def read_column(manifest: str, column: BurstColumn) -> dict[str, str]:
    """Return what a manifest's column says of each image, by address; empty values are left out.

    Raises:
        StorageError, ManifestError: the manifest cannot be read.
    """
    manifest = storage.absolute(manifest)
    names = {"image_uri": ("image_uri", "source-ref"), "group": (column.column,)}
    table = read_columns(manifest, names)
    uris = resolve_uris(table["image_uri"], manifest).to_pylist()
    values = zip(uris, table["group"].to_pylist(), strict=True)
    return {uri: value.strip() for uri, value in values if value and value.strip()}


def _named(names: Sequence[Sequence[str | None] | None], hashes: Sequence[str]) -> list[str]:
    return [
        content if name is None else _digest(name)
        for name, content in zip(names, hashes, strict=True)
    ]


def _digest(names: Sequence[str | None]) -> str:
    return hashlib.sha256(repr(tuple(names)).encode(errors="surrogatepass")).hexdigest()
