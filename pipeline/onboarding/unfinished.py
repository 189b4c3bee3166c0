"""What an onboarding under way has stored: the state of its training, then its package.

DIR/trainer.pt          the trainer's state; gone once there is a package
DIR/package-ID/...      what ``pipeline/package.py`` lays out
DIR/complete            written last: the name of the package's folder
DIR/registering         whoever makes this file registers the package

Two commands may onboard the same category at once. Each of their workers writes a package of its
own, of which the first that is complete counts, and one of them registers it.
"""

import io
import logging
import uuid
from pathlib import Path
from typing import Any

import torch

from pipeline import storage

STATE_FILE, COMPLETE_FILE, CLAIM_FILE = "trainer.pt", "complete", "registering"

logger = logging.getLogger(__name__)


class UnfinishedOnboarding:
    """The files of one onboarding, in a folder or below an S3 prefix that every node reaches."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._state = storage.join(place, STATE_FILE)
        self._complete = storage.join(place, COMPLETE_FILE)
        self._claim = storage.join(place, CLAIM_FILE)

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
        content = storage.read_if_there(self._state)
        if content is None:
            return None
        try:
            state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
        except Exception as error:  # noqa: BLE001  torch raises several kinds
            logger.warning("%s is damaged, the training begins again: %s", self._state, error)
            return None
        return state

    def save_package(self, folder: Path) -> None:
        """Store a package that was written into a local folder, unless there is one already."""
        name = f"package-{uuid.uuid4().hex[:12]}"
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        uris = {storage.join(self.place, name, p.relative_to(folder).as_posix()): p for p in paths}
        for uri, path in uris.items():
            storage.write_file(uri, path)
        if not storage.write_new(self._complete, name.encode()):
            for uri in uris:
                storage.delete(uri)
        storage.delete(self._state)

    def fetch_package(self, folder: Path) -> None:
        """Write the package into a local folder.

        Raises:
            ObjectMissing: it is not complete, or was registered and removed meanwhile.
        """
        package = storage.join(self.place, storage.read_bytes(self._complete).decode())
        for item in storage.list_objects(package):
            path = folder / item.uri.removeprefix(package).lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(storage.read_bytes(item.uri))

    def claim(self) -> bool:
        """Whether nobody else is registering the package; from now on the caller is."""
        return storage.write_new(self._claim, b"")

    def release(self) -> None:
        """Let somebody else register the package."""
        storage.delete(self._claim)

    def remove(self) -> None:
        """Remove everything: what was made of it is elsewhere."""
        storage.delete(self._complete)  # first: nobody takes half a package for a whole one
        storage.remove_below(self.place)
