"""One image's features as the bytes of a file: safetensors, with a record and a digest of it all.

A file that was cut off, damaged, or put under another name is told by its digest.

Shapes: H x W positions of a level, C channels.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor


class DamagedEntry(ValueError):
    """Bytes that are no entry, or not the one that was asked for."""


@dataclass(frozen=True, kw_only=True)
class EntryRecord:
    """What is known of an image beside its features, so that it need not be decoded again."""

    content: str  # names the image by what is in it
    statistics: Mapping[str, float] = field(default_factory=dict)  # none of a made image
    mode: str | None = None  # of the file's pixels
    size: tuple[int, int] | None = None  # height and width in the file; None in older entries
    fingerprint: str = ""  # of what the image shows; likewise empty


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One image's features."""

    record: EntryRecord
    planes: Mapping[str, Tensor]  # half precision, (H, W, C) as a bank holds them


def to_bytes(entry: Entry) -> bytes:
    """Return an entry as a file's content."""
    from safetensors.torch import save  # noqa: PLC0415  only files need it

    planes = {name: plane.cpu().contiguous() for name, plane in entry.planes.items()}
    record = json.dumps(asdict(entry.record), sort_keys=True)
    return save(planes, {"record": record, "sha256": _digest(record, planes)})


def from_bytes(data: bytes, content: str, wanted: Sequence[str]) -> Entry:
    """Return what ``to_bytes`` was given, of its planes only those that are wanted.

    Raises:
        DamagedEntry: it is not that, or of another image.
    """
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.torch import load  # noqa: PLC0415

    try:
        planes = load(data)
        metadata = _metadata(data)
        if metadata["sha256"] != _digest(metadata["record"], planes):
            raise DamagedEntry("its digest is another")
        record = _read_record(json.loads(metadata["record"]))
        found = {name: planes[name] for name in wanted}
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DamagedEntry(str(error)) from error
    if record.content != content:
        raise DamagedEntry(f"it is of another image, {record.content}")
    return Entry(record=record, planes=found)


def _read_record(values: dict[str, Any]) -> EntryRecord:
    size = values.get("size")
    return EntryRecord(**{**values, "size": None if size is None else (size[0], size[1])})


def _metadata(data: bytes) -> dict[str, Any]:
    """Return the texts in the header of a safetensors file, which ``load`` leaves out."""
    end = 8 + int.from_bytes(data[:8], "little")
    metadata: dict[str, Any] = json.loads(data[8:end])["__metadata__"]
    return metadata


def _digest(record: str, planes: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256(record.encode())
    for name, plane in sorted(planes.items()):
        assert plane.dtype == torch.float16
        total.update(f"{name} {tuple(plane.shape)}".encode())
        total.update(plane.numpy().data)
    return total.hexdigest()
