"""The groups of a feature store: what is in it, how large each is, and which were used last.

A group is what one category has under one identity. A listing of its markers tells everything
about it, so that no feature file has to be looked at, however many there are.

images/<group>/<content>.safetensors
groups/<group>/<last used>-<images>-<bytes>.json    the marker, with what identifies the group
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline import storage
from pipeline.images.prefetch import read_ahead

IMAGES, GROUPS = "images", "groups"
STAMP = "%Y%m%dT%H%M%S.%fZ"
MARKER = re.compile(r"(?P<stamp>\d{8}T\d{6}\.\d{6}Z)-(?P<images>\d+)-(?P<size>\d+)\.json")


@dataclass(frozen=True, kw_only=True)
class StoredGroup:
    """A group as its newest marker has it."""

    path: str  # <category>/<identity>/<planes>
    last_used: datetime
    num_images: int
    size_bytes: int
    markers: tuple[str, ...]  # addresses, the newest last

    @property
    def category(self) -> str:
        """Whose images they are."""
        return self.path.partition("/")[0]

    def about(self) -> dict[str, Any]:
        """Return what identifies the group; nothing where that has gone."""
        try:
            values: dict[str, Any] = json.loads(storage.read_bytes(self.markers[-1]))
        except (storage.ObjectMissing, ValueError):
            return {}
        return values


def stored_groups(root: str) -> list[StoredGroup]:
    """Return the groups of a store, those first that were used least recently."""
    markers: dict[str, list[str]] = {}
    prefix = storage.join(root, GROUPS)
    for item in storage.objects_below(prefix):
        path, _, name = item.uri[len(prefix) :].strip("/").rpartition("/")
        if MARKER.fullmatch(name):
            markers.setdefault(path, []).append(item.uri)
    found = [_group(path, sorted(uris)) for path, uris in markers.items()]
    return sorted(found, key=lambda group: group.last_used)


def mark(
    root: str, path: str, counts: tuple[int, int], about: Mapping[str, Any], now: datetime
) -> None:
    """Note that a group is used now, and how many images and bytes it has."""
    stamp = now.astimezone(UTC).strftime(STAMP)
    name = f"{stamp}-{counts[0]}-{counts[1]}.json"
    folder = storage.join(root, GROUPS, path)
    storage.write_bytes(storage.join(folder, name), json.dumps(about, sort_keys=True).encode())
    for earlier in storage.names_below(folder):
        if earlier < name:
            storage.delete(storage.join(folder, earlier))


def trim(root: str, max_bytes: int, keep: str | None = None) -> list[StoredGroup]:
    """Remove groups, the least recently used first, until the rest fits; return the removed.

    The group ``keep`` stays in any case.
    """
    groups = stored_groups(root)
    size, removed = sum(group.size_bytes for group in groups), []
    for group in groups:
        if size <= max_bytes:
            break
        if group.path != keep:
            remove(root, group.path)
            size -= group.size_bytes
            removed.append(group)
    return removed


def remove_unmarked(root: str) -> int:
    """Remove features of groups without a marker, which a killed command left; return how many."""
    prefix = storage.join(root, IMAGES)
    marked = {group.path for group in stored_groups(root)}
    listed = [item.uri for item in storage.objects_below(prefix)]
    lost = [u for u in listed if u[len(prefix) :].strip("/").rpartition("/")[0] not in marked]
    return sum(1 for _ in read_ahead(storage.delete, lost))


def remove(root: str, path: str) -> None:
    """Remove a group, its markers last: what is interrupted is found and goes on."""
    for part in (IMAGES, GROUPS):
        uris = [item.uri for item in storage.objects_below(storage.join(root, part, path))]
        for _ in read_ahead(storage.delete, uris):
            pass


def _group(path: str, markers: list[str]) -> StoredGroup:
    newest = MARKER.fullmatch(markers[-1].rpartition("/")[2])
    assert newest is not None, "others were left out"
    return StoredGroup(
        path=path,
        last_used=datetime.strptime(newest["stamp"], STAMP).replace(tzinfo=UTC),
        num_images=int(newest["images"]),
        size_bytes=int(newest["size"]),
        markers=tuple(markers),
    )
