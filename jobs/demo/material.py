"""The demo's input, from real images: what to onboard, and one night's dump.

The PyPI package ``elpv-dataset`` holds 2,624 electroluminescence images of solar cells, 300 x 300
grey PNG, of two kinds (mono- and polycrystalline), each with a probability of being defective as
experts judged it: 0, 1/3, 2/3 or 1. Here a cell of probability 0 is good, of 2/3 and 1 defective.
The 295 cells of probability 1/3 are left out everywhere: their experts leaned towards good without
being sure, so they are fit neither to train on nor to count as right or wrong.

Files are copied byte for byte under names made of their content, so that neither a name nor its
place in a listing tells whether a cell is defective.

Source: Buerhop-Lutz et al. 2018, "A Benchmark for Visual Identification of Defective Solar Cells
in Electroluminescence Imagery"; images CC BY-NC-SA 4.0.
"""

import csv
import hashlib
import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import yaml

from model.errors import NightshiftError
from pipeline import storage

CATEGORIES = {"mono": "solar-mono", "poly": "solar-poly"}  # the package's word: ours
BACKBONE = "efficientnet_lite0"  # its weights come with Nightshift: nothing to download
FALSE_ALARM_RATE = 0.05
HELD_BACK_SHARE = 0.3  # of the good cells, for the night
# Makes our split independent of any other that is drawn from the content's hash, such as the
# calibration split: without it, what is left after ours would be one-sided for theirs.
SALT = b"night of the demo"
UPLOADS_AT_ONCE = 16


class DemoMaterialError(NightshiftError):
    """The package with the demo's images is missing or is not the one we know."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One image of a solar cell whose label is certain enough."""

    category: str
    source: Path
    name: str  # of its copy, from its content
    defective: bool
    held_back: bool  # a defective cell always is

    @property
    def path(self) -> str:
        """Its place below the dump or the onboarding folder, ``<category>/<name>``."""
        return f"{self.category}/{self.name}"


def read_cells(data: Path | None = None) -> list[Cell]:
    """Return the cells, sorted by category and name, without the doubtful ones.

    Args:
        data: folder with ``labels.csv``; by default the installed package's.

    Raises:
        DemoMaterialError: the package is not installed, or has other contents than we know.
    """
    data = data or package_data()
    cells = [
        make_cell(data / path, CATEGORIES[kind], defective=float(probability) > 0.5)
        for path, probability, kind in read_labels(data)
        if not is_doubtful(float(probability))
    ]
    return sorted(cells, key=lambda cell: cell.path)


def write_onboarding(cells: list[Cell], directory: Path) -> Path:
    """Write the good cells not held back and a catalogue; return the catalogue's path."""
    for cell in cells:
        if not cell.held_back:
            copy(cell, str(directory))
    catalogue = directory / "catalogue.yaml"
    catalogue.write_text(yaml.safe_dump(catalogue_content(), sort_keys=False))
    return catalogue


def write_dump(
    cells: list[Cell], dump: str, on_written: Callable[[], None] = lambda: None
) -> dict[str, bool]:
    """Write the night's images below ``dump``, a local or S3 folder, and three broken files.

    Calls ``on_written`` after each of the ``dump_size(cells)`` files, from the caller's thread,
    and returns the truth. The first file that cannot be written ends it.
    """
    with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        copies = [pool.submit(copy, cell, dump) for cell in cells if cell.held_back]
        broken = [
            pool.submit(storage.write_bytes, storage.join(dump, name), content)
            for name, content in broken_files(cells).items()
        ]
        try:
            for written in as_completed([*copies, *broken]):
                written.result()
                on_written()
        finally:
            pool.shutdown(cancel_futures=True)  # a server that is away is not asked 1,000 times
    return truth(cells)


def dump_size(cells: list[Cell]) -> int:
    """Return the number of files in the dump, the broken ones included."""
    return len(truth(cells)) + len(broken_files(cells))


def truth(cells: list[Cell]) -> dict[str, bool]:
    """Return for every image of the dump, by its name below it, whether it is defective.

    The broken files are not among them: they have no truth and get no score.
    """
    return {cell.path: cell.defective for cell in cells if cell.held_back}


def broken_files(cells: list[Cell]) -> dict[str, bytes]:
    """Return what goes wrong in real dumps, by name below the dump: no file here is an image."""
    first, last = list(CATEGORIES.values())
    whole = cells[0].source.read_bytes()
    return {
        f"{first}/cut-off.png": whole[: len(whole) // 3],
        f"{first}/empty.png": b"",
        f"{last}/note.png": b"Camera 2 was cleaned at 22:40.\n",
    }


def copy(cell: Cell, folder: str) -> None:
    """Put one cell below a local or S3 folder, byte for byte."""
    storage.write_bytes(storage.join(folder, cell.path), cell.source.read_bytes())


def catalogue_content() -> dict[str, object]:
    """Return the catalogue; image folders lie beside its file."""
    return {
        "defaults": {
            "backbone": BACKBONE,
            "false_alarm_rate": FALSE_ALARM_RATE,
            "calibration": "cross",  # 5 % of a few hundred cells: held-out ones would be few
        },
        "categories": [
            {"name": name, "images": name, "layout": "folder"} for name in CATEGORIES.values()
        ],
    }


def package_data() -> Path:
    """Return the installed package's folder of images and labels."""
    package = importlib.util.find_spec("elpv_dataset")
    if package is None or package.origin is None:
        raise DemoMaterialError(
            "The demo's images are in the package elpv-dataset, which is not installed. "
            'Install it with: pip install "nightshift[demo]"'
        )
    return Path(package.origin).parent / "data"


def read_labels(data: Path) -> list[tuple[str, str, str]]:
    """Return path below ``data``, defect probability and kind of every image."""
    labels = data / "labels.csv"
    try:
        lines = labels.read_text().splitlines()
    except FileNotFoundError as error:
        raise DemoMaterialError(
            f"{labels} is missing; the demo needs elpv-dataset 1.0.0. Install it again."
        ) from error
    rows = list(csv.reader(lines, delimiter=" ", skipinitialspace=True))
    for number, row in enumerate(rows, start=1):
        if len(row) != 3 or row[2] not in CATEGORIES:
            raise DemoMaterialError(
                f"{labels}, line {number}: expected a path, a probability and one of "
                f"{', '.join(CATEGORIES)}, found {row}. The demo needs elpv-dataset 1.0.0."
            )
    return [(path, probability, kind) for path, probability, kind in rows]


def is_doubtful(probability: float) -> bool:
    """Return whether experts leaned towards good without being sure."""
    return 0 < probability < 0.5


def make_cell(source: Path, category: str, *, defective: bool) -> Cell:
    """Name a cell after its content and decide by its content whether the night gets it."""
    content = source.read_bytes()
    name = hashlib.sha256(content).hexdigest()[:16] + source.suffix
    return Cell(category, source, name, defective, defective or is_held_back(content))


def is_held_back(content: bytes) -> bool:
    """Return true for about HELD_BACK_SHARE of all contents, always the same ones."""
    draw = int.from_bytes(hashlib.sha256(SALT + content).digest()[:8]) / 2**64
    return draw < HELD_BACK_SHARE
