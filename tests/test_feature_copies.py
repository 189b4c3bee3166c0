"""Copies of feature files: one for all who read them, and none when nobody does."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from pipeline import storage
from pipeline.study.feature_copies import FeatureCopies

KILLED = """\
import os, sys
from pathlib import Path
from pipeline.study.feature_copies import FeatureCopies
FeatureCopies(Path(sys.argv[1])).fetch(sys.argv[2], "a.npy")
os._exit(9)
"""


def features(folder: Path, number: int = 0) -> str:
    """A set of one file; any storage will do."""
    place = folder / "features" / str(number)
    place.mkdir(parents=True)
    np.save(place / "a.npy", np.arange(5) + number)
    return str(place)


def test_a_copy_serves_all_and_goes_with_its_last_reader(tmp_path: Path) -> None:
    place, root = features(tmp_path), tmp_path / "copies"
    first, second = FeatureCopies(root), FeatureCopies(root)
    path = first.fetch(place, "a.npy")
    storage.delete(storage.join(place, "a.npy"))  # what is fetched again from here on would fail
    assert second.fetch(place, "a.npy") == first.fetch(place, "a.npy") == path
    first.close()
    mapped = np.load(path, mmap_mode="c")
    second.close()
    assert list(root.iterdir()) == []
    assert mapped.tolist() == [0, 1, 2, 3, 4]


def test_a_reader_that_comes_back_fetches_again(tmp_path: Path) -> None:
    place, copies = features(tmp_path), FeatureCopies(tmp_path / "copies")
    for _ in range(2):
        assert np.load(copies.fetch(place, "a.npy")).tolist() == [0, 1, 2, 3, 4]
        copies.close()
        assert list((tmp_path / "copies").iterdir()) == []


def test_what_a_killed_process_left_goes_when_the_next_one_begins(tmp_path: Path) -> None:
    root, left, read = tmp_path / "copies", features(tmp_path), features(tmp_path, 1)
    reader = FeatureCopies(root)
    kept = reader.fetch(read, "a.npy")
    done = subprocess.run([sys.executable, "-c", KILLED, root, left], check=False)
    assert done.returncode == 9
    assert len(list(root.iterdir())) == 2
    FeatureCopies(root)
    assert list(root.iterdir()) == [kept.parent]
    reader.close()
