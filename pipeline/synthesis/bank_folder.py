"""A bank where it is stored: PNG files, and what they are in ``provenance.json``.

A bank is whole when its provenance is there, which is written last. Until then another file says
that it is unfinished, and of which order: what reads a bank refuses it, and the same order goes on.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from pipeline import storage
from pipeline.datasets.bank_files import PROVENANCE_FILE, UNFINISHED_FILE
from pipeline.synthesis.bank_order import BankOrder, SynthesisError


@dataclass(frozen=True, kw_only=True)
class BankFolder:
    """The folder of one order."""

    out: str
    key: str  # of the order
    count: int

    @classmethod
    def of(cls, order: BankOrder) -> "BankFolder":
        """Return the folder that an order asks for."""
        return cls(out=order.out, key=order.key, count=order.count)

    @property
    def names(self) -> list[str]:
        """The names of all images, in order."""
        return [f"{number:06d}.png" for number in range(self.count)]

    def provenance(self) -> dict[str, Any] | None:
        """Return the provenance where the bank is whole, else None.

        Raises:
            SynthesisError: the folder holds something else.
        """
        found = self._read(PROVENANCE_FILE)
        if found is not None and found.get("key") != self.key:
            raise SynthesisError(
                f"--out {self.out} holds another bank: {_in_words(found)}. Name another folder, or "
                f"remove that one."
            )
        return found

    def begin(self) -> None:
        """Mark the folder as this order's, unless it is already.

        Raises:
            SynthesisError: the folder holds something else.
        """
        marker, others = self._read(UNFINISHED_FILE), self._others()
        if marker is not None and marker.get("key") == self.key:
            return
        if marker is not None and others:
            raise SynthesisError(
                f"--out {self.out} holds an unfinished bank of other settings or other images; "
                f"start it again as it was, name another folder, or remove that one."
            )
        if others:
            raise SynthesisError(
                f"--out {self.out} holds {len(others)} other files or folders, such as "
                f"{others[0]}; name a folder that is empty or not there yet."
            )
        content = {"key": self.key, "note": "not all images of this bank are there yet"}
        self._write(UNFINISHED_FILE, json.dumps(content).encode())

    def missing(self) -> list[int]:
        """Return the numbers of the images that are not there yet."""
        there = set(storage.list_names(self.out))
        return [number for number, name in enumerate(self.names) if name not in there]

    def write_image(self, number: int, pixels: NDArray[Any]) -> None:
        """Write one image, (H, W, 3) uint8.

        Always PNG: a detector might learn the traces of JPEG instead of what the image shows.
        """
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        self._write(self.names[number], buffer.getvalue())

    def finish(self, provenance: Mapping[str, Any]) -> dict[str, Any]:
        """Write the provenance, from where on the bank is whole, and return it."""
        document = {"key": self.key, **provenance}
        self._write(PROVENANCE_FILE, json.dumps(document, indent=1).encode())
        storage.delete(storage.join(self.out, UNFINISHED_FILE))
        return document

    def _others(self) -> list[str]:
        """Return what lies in the folder beside the file that says that it is unfinished."""
        return [name for name in storage.names_below(self.out) if name != UNFINISHED_FILE]

    def _read(self, name: str) -> dict[str, Any] | None:
        content = storage.read_if_there(storage.join(self.out, name))
        if content is None:
            return None
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise SynthesisError(
                f"--out {self.out}: its {name} is not Nightshift's; name another folder."
            )
        return found

    def _write(self, name: str, content: bytes) -> None:
        storage.write_bytes(storage.join(self.out, name), content)


def _in_words(provenance: Mapping[str, Any]) -> str:
    """Say which bank this is, as far as it says itself."""
    known = {name: provenance.get(name) for name in ("category", "count", "strength", "size")}
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in known.items())
