"""One image's features as a file: what was put in comes out, and whatever is wrong is noticed."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.feature_store.entry import DamagedEntry, Entry, EntryRecord, from_bytes, to_bytes

NAMES = ["paper-window3-layer2", "paper-window3-layer3"]


def entry(content: str = "a" * 64, seed: int = 0) -> Entry:
    generator = torch.Generator().manual_seed(seed)
    planes = {
        name: torch.randn(4 // n, 4 // n, 3 * n, generator=generator).half()
        for name, n in zip(NAMES, (1, 2), strict=True)
    }
    statistics = {"brightness": float(np.float32(140.1)), "contrast": float(np.float32(1 / 3))}
    record = EntryRecord(content=content, statistics=statistics, mode="L;uint16")
    return Entry(record=record, planes=planes)


def test_what_was_put_in_comes_out_to_the_bit() -> None:
    kept = entry()
    found = from_bytes(to_bytes(kept), "a" * 64, NAMES)
    assert found.record == kept.record
    assert list(found.planes) == NAMES
    assert all(torch.equal(found.planes[name], kept.planes[name]) for name in NAMES)


def test_of_many_planes_those_that_are_wanted_come_out() -> None:
    found = from_bytes(to_bytes(entry()), "a" * 64, NAMES[1:])
    assert list(found.planes) == NAMES[1:]


@given(place=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_byte_that_is_another_is_noticed_wherever_it_lies(place: int, flip: int) -> None:
    data = bytearray(to_bytes(entry()))
    data[place % len(data)] ^= flip
    with pytest.raises(DamagedEntry):
        from_bytes(bytes(data), "a" * 64, NAMES)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_file_that_was_cut_off_is_noticed(share: float) -> None:
    data = to_bytes(entry())
    with pytest.raises(DamagedEntry):
        from_bytes(data[: int(share * len(data))], "a" * 64, NAMES)


def test_a_file_under_another_name_is_noticed() -> None:
    with pytest.raises(DamagedEntry, match="of another image"):
        from_bytes(to_bytes(entry()), "b" * 64, NAMES)


def test_a_file_without_a_plane_that_is_wanted_is_noticed() -> None:
    with pytest.raises(DamagedEntry, match="layer1"):
        from_bytes(to_bytes(entry()), "a" * 64, ["paper-window3-layer1"])
