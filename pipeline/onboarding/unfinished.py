"""What an onboarding under way has stored: the state of its training, then its package.

DIR/trainer.pt          the trainer's state; gone once there is a package
DIR/package/...         what ``pipeline/package.py`` lays out
DIR/complete            written last
"""

import io
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from pipeline import storage

STATE_FILE, PACKAGE_FOLDER, COMPLETE_FILE = "trainer.pt", "package", "complete"

logger = logging.getLogger(__name__)


class UnfinishedOnboarding:
    """The files of one onboarding, in a folder or below an S3 prefix that every node reaches."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._state = storage.join(place, STATE_FILE)
        self._package = storage.join(place, PACKAGE_FOLDER)
        self._complete = storage.join(place, COMPLETE_FILE)

    @property
    def is_complete(self) -> bool:
        """Whether the whole package is there."""
        return storage.exists(self._complete)

    @property
    def is_begun(self) -> bool:
        """Whether something is there to go on from."""
        return storage.exists(self._state) or self.is_complete

    def save(self, state: dict[str, Any]) -> None:
        """Store the state of the training in place of the one before."""
        content = io.BytesIO()
        torch.save(state, content)
        storage.write_bytes(self._state, content.getvalue())

    def load(self) -> dict[str, Any] | None:
        """Return the last state, or None to start anew; a damaged one is none."""
        try:
            content = storage.read_bytes(self._state)
        except storage.ObjectMissing:
            return None
        try:
            state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
        except Exception as error:  # noqa: BLE001  torch raises several kinds
            logger.warning("%s is damaged, the training begins again: %s", self._state, error)
            return None
        return state

    def save_package(self, folder: Path) -> None:
        """Store a package that was written into a local folder."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = path.relative_to(folder).as_posix()
                storage.write_file(storage.join(self._package, name), path)
        storage.write_bytes(self._complete, b"")
        storage.delete(self._state)

    def fetch_package(self, folder: Path) -> None:
        """Write the package into a local folder."""
        for item in storage.list_objects(self._package):
            path = folder / item.uri.removeprefix(self._package).lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(storage.read_bytes(item.uri))

    def remove(self) -> None:
        """Remove everything: what was made of it is elsewhere."""
        storage.delete(self._complete)  # first: nobody takes half a package for a whole one
        with suppress(storage.ObjectMissing):  # nothing else is there
            for item in list(storage.list_objects(self.place)):
                storage.delete(item.uri)
