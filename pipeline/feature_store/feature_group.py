"""The features of one category under one identity: read, written, kept within the store's bound.

Nothing that happens to a store stops a command: what cannot be read or written is said once, and
the backbone computes as it would without a store. Two commands may write the same group at once:
what they write under one name is the same.
"""

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from model.errors import ServiceAway
from pipeline import storage
from pipeline.feature_store.entry import DamagedEntry, Entry, from_bytes, to_bytes
from pipeline.feature_store.place import GB, StorePlace
from pipeline.feature_store.stored_groups import IMAGES, mark, trim
from pipeline.images.prefetch import read_ahead

SUFFIX = ".safetensors"
RESERVED_BYTES = 64 * 10**6  # room is made for so much at a time
SHARE = 16  # of a small store at most this part of it

logger = logging.getLogger(__name__)


class FeatureGroup:
    """One group, as one process reads and writes it."""

    def __init__(self, place: StorePlace, path: str, about: Mapping[str, Any]) -> None:
        """Look what is there; ``about`` is what identifies the group."""
        self.place, self.path, self.about = place, path, about
        self.is_used = False  # since it was last marked
        self.trouble: list[str] = []  # why it is not kept any more, in a line
        self._reading, self._writing = True, True
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        self._written_bytes = self._reserved_bytes = 0
        try:
            self._sizes = self._list()
        except (storage.StorageError, ServiceAway) as error:
            self._stop(error, reading=True)

    def get(self, content: str, planes: Sequence[str]) -> Entry | None:
        """Return an image's features; None where there are none, or damaged ones."""
        if not self._reading or content not in self._sizes:
            return None
        try:
            data = storage.read_if_there(self._uri(content))
        except (storage.StorageError, ServiceAway) as error:
            self._stop(error, reading=True)
            return None
        if data is None:  # evicted since it was listed
            return None
        try:
            entry = from_bytes(data, content, planes)
        except DamagedEntry as error:
            self._drop(content, error)
            return None
        self.is_used = True
        return entry

    def put(self, entries: Iterable[Entry]) -> None:
        """Keep features, as far as there is room."""
        files = [(entry.record.content, to_bytes(entry)) for entry in entries if self._writing]
        if not files or not self._has_room(sum(len(data) for _, data in files)):
            return
        try:
            for _ in read_ahead(self._write, files):
                pass
        except (storage.StorageError, ServiceAway) as error:
            self._stop(error)

    def flush(self) -> None:
        """Note what is there now, and that it has been used."""
        if not (self.is_used and self._writing):
            return
        self.is_used = False
        try:
            self._sizes = self._list()
            self._written_bytes = self._reserved_bytes = 0
            self._mark(sum(self._sizes.values()))
        except (storage.StorageError, ServiceAway) as error:
            self._stop(error)

    def _write(self, file: tuple[str, bytes]) -> None:
        content, data = file
        storage.write_bytes(self._uri(content), data)

    def _has_room(self, num_bytes: int) -> bool:
        """Reserve room, which evicts other groups; whether there is enough."""
        self.is_used = True
        self._written_bytes += num_bytes
        if self._written_bytes <= self._reserved_bytes:
            return True
        step = min(RESERVED_BYTES, self.place.max_bytes // SHARE)
        self._reserved_bytes = self._written_bytes + step
        size = sum(self._sizes.values())
        if size + self._written_bytes > self.place.max_bytes:
            self._say(f"{self.place.max_gb:g} GB are full of this category's own images")
            self._writing = False
            return False
        try:
            self._mark(min(size + self._reserved_bytes, self.place.max_bytes))
            trim(self.place.uri, self.place.max_bytes, keep=self.path)
        except (storage.StorageError, ServiceAway) as error:
            self._stop(error)
        return self._writing

    def _mark(self, size: int) -> None:
        counts = len(self._sizes), size
        mark(self.place.uri, self.path, counts, self.about, datetime.now(UTC))

    def _list(self) -> dict[str, int]:
        listed = storage.objects_below(storage.join(self.place.uri, IMAGES, self.path))
        names = ((item.uri.rpartition("/")[2], item.size_bytes) for item in listed)
        return {name.removesuffix(SUFFIX): size for name, size in names if name.endswith(SUFFIX)}

    def _drop(self, content: str, error: DamagedEntry) -> None:
        logger.warning(
            "%s is damaged (%s); its features are computed again", self._uri(content), error
        )
        try:
            storage.delete(self._uri(content))
        except (storage.StorageError, ServiceAway) as denied:
            self._stop(denied)

    def _stop(self, error: Exception, *, reading: bool = False) -> None:
        """Go on without the store, or without writing to it."""
        with self._lock:
            if self._writing or (reading and self._reading):
                self._say(str(error))
            self._writing, self._reading = False, self._reading and not reading

    def _say(self, why: str) -> None:
        size = sum(self._sizes.values()) / GB
        self.trouble.append(
            f"the feature store keeps nothing more of {self.path.partition('/')[0]} "
            f"({len(self._sizes):,} images, {size:.3g} GB there): {why}"
        )
        logger.warning("%s", self.trouble[-1])

    def _uri(self, content: str) -> str:
        return storage.join(self.place.uri, IMAGES, self.path, f"{content}{SUFFIX}")
