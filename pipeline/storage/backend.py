# ruff: noqa: D102  objects.py says what each function promises
"""What a storage must be able to do; ``local.py`` and ``s3.py`` are the two that can."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.storage.errors import ObjectChanged

S3_SCHEME = "s3://"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a listing says about one object; ``etag`` changes when the content does."""

    uri: str
    etag: str  # "" for a link to nothing
    size_bytes: int


class Backend(Protocol):
    """The functions of a backend's module."""

    def below(self, folder: str, path: str) -> str: ...
    def list_objects(self, prefix: str, hidden: bool) -> Iterator[StoredObject]: ...
    def look_up(self, uris: Collection[str]) -> dict[str, StoredObject]: ...
    def list_names(self, prefix: str) -> set[str]: ...
    def read_bytes(self, uri: str, etag: str | None) -> bytes: ...
    def write_bytes(self, uri: str, data: bytes) -> None: ...
    def write_file(self, uri: str, path: Path) -> None: ...
    def write_new(self, uri: str, data: bytes) -> bool: ...
    def exists(self, uri: str) -> bool: ...
    def delete(self, uri: str) -> None: ...


def refuse_changed(uri: str, expected: str | None, current: str, kind: re.Pattern[str]) -> None:
    """Refuse another etag than the expected one, if both are of the kind this storage writes."""
    if expected and current != expected and kind.fullmatch(expected) and kind.fullmatch(current):
        raise ObjectChanged(
            f"{uri} was replaced since the dump was listed: its etag is {current}, was {expected}; "
            f"score the night again to take the new one"
        )
