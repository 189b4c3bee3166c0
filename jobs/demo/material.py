"""The demo's input, from real images: what to onboard, and two nights of one line.

The PyPI package ``elpv-dataset`` holds 2,624 electroluminescence images of solar cells, 300 x 300
grey PNG, of two kinds (mono- and polycrystalline), each with a probability of being defective as
experts judged it: 0, 1/3, 2/3 or 1. Here a cell of probability 0 is good, of 2/3 and 1 defective.
The 295 cells of probability 1/3 are left out everywhere: their experts leaned towards good without
being sure, so they are fit neither to train on nor to count as right or wrong.

Half of the good cells are onboarded, a quarter each is new on one of the nights. Which ones is
drawn from their content, and files are named by it, so that neither a name nor its place in a
listing tells whether a cell is defective. Labels decide that no defect is onboarded and how many a
night has, and nothing else: which ones it gets is drawn as well.

Source: Buerhop-Lutz et al. 2018, "A Benchmark for Visual Identification of Defective Solar Cells
in Electroluminescence Imagery"; images CC BY-NC-SA 4.0.
"""

import csv
import hashlib
import importlib.util
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from model.errors import NightshiftError

CATEGORIES = {"mono": "solar-mono", "poly": "solar-poly"}  # the package's word: ours
FIRST_NIGHT, SECOND_NIGHT = "2026-03-11", "2026-03-12"
# Of a night: a line in trouble and one that is not, 11 % and 2 % of the cells, 5 % of all.
NUM_DEFECTS = {"solar-mono": 18, "solar-poly": 4}
DARK_CATEGORY, DARK = "solar-poly", 0.5  # on the second night: what the camera still sees of light
UNKNOWN_CATEGORY = "thin-film"  # one image of it arrives, and nobody has onboarded it
# Makes our draw independent of any other that is made from the content's hash, such as the
# calibration split: without it, what is left after ours would be one-sided for theirs.
SALT = b"nights of the demo"


class DemoMaterialError(NightshiftError):
    """The package with the demo's images is missing or is not the one we know."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One image of a solar cell whose label is certain enough."""

    category: str
    source: Path
    name: str  # of its copy, from its content
    drawn: int  # from its content as well, and independent of its name
    defective: bool
    night: str  # which gets it; empty: it is good and onboarded

    @property
    def path(self) -> str:
        """Its place below the onboarding folder or the night's dump, ``<category>/<name>``."""
        return f"{self.category}/{self.name}"


def read_cells(data: Path | None = None) -> list[Cell]:
    """Return the cells that are used, sorted by category and name.

    Args:
        data: folder with ``labels.csv``; by default the installed package's.

    Raises:
        DemoMaterialError: the package is not installed, or has other contents than we know.
    """
    data = data or package_data()
    cells = [
        make_cell(data / path, CATEGORIES[kind], defective=float(probability) > 0.5)
        for path, probability, kind in read_labels(data)
        if not 0 < float(probability) < 0.5
    ]
    used, taken = [], Counter[tuple[str, str]]()
    for cell in sorted(cells, key=lambda cell: cell.drawn):
        taken[cell.category, cell.night] += cell.defective
        if not cell.defective or taken[cell.category, cell.night] <= NUM_DEFECTS[cell.category]:
            used.append(cell)
    return sorted(used, key=lambda cell: cell.path)


def write_onboarding(
    cells: Sequence[Cell], folder: Path, settings: Mapping[str, Any] | None = None
) -> Path:
    """Write the cells that no night gets and a catalogue of these defaults; return its path."""
    for cell in cells:
        if not cell.night:
            write(folder / cell.path, cell.source.read_bytes())
    catalogue = folder / "catalogue.yaml"
    catalogue.write_text(yaml.safe_dump(catalogue_content(settings), sort_keys=False))
    return catalogue


def write_nights(cells: Sequence[Cell], folder: Path) -> None:
    """Write the dump of each night as ``<folder>/<night>/<category>/<image>``."""
    for cell in cells:
        content = cell.source.read_bytes()
        if (cell.night, cell.category) == (SECOND_NIGHT, DARK_CATEGORY):
            content = darken(content)
        if cell.night:
            write(folder / cell.night / cell.path, content)
    for name, content in stray_files(cells).items():
        write(folder / FIRST_NIGHT / name, content)


def stray_files(cells: Sequence[Cell]) -> dict[str, bytes]:
    """Return what goes wrong on the first night, as it does in real dumps, by name below it.

    Three files that are no image, and a good image of a category that nobody has onboarded.
    """
    mono, poly = CATEGORIES.values()
    whole = next(cell for cell in cells if not cell.night).source.read_bytes()
    return {
        f"{mono}/cut-off.png": whole[: len(whole) // 3],
        f"{mono}/empty.png": b"",
        f"{poly}/note.png": b"Camera 2 was cleaned at 22:40.\n",
        f"{UNKNOWN_CATEGORY}/first-of-its-kind.png": whole,
    }


def darken(content: bytes) -> bytes:
    """Return an image as a camera sees it that gets less light."""
    image = Image.open(io.BytesIO(content))
    darker = io.BytesIO()
    image.point([round(DARK * level) for level in range(256)]).save(darker, format="PNG")
    return darker.getvalue()


def write(path: Path, content: bytes) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def catalogue_content(settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the catalogue; image folders lie beside its file."""
    return {
        "defaults": {
            "backbone": "efficientnet_lite0",  # its weights come with Nightshift
            "calibration": "cross",  # 1 % of a few hundred cells: held-out ones would be few
            **(settings or {}),
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


def make_cell(source: Path, category: str, *, defective: bool) -> Cell:
    """Name a cell after its content and decide by its content where it goes."""
    content = source.read_bytes()
    name = hashlib.sha256(content).hexdigest()[:16] + source.suffix
    drawn = draw(content)
    places = (FIRST_NIGHT, SECOND_NIGHT) if defective else (FIRST_NIGHT, SECOND_NIGHT, "", "")
    return Cell(category, source, name, drawn, defective, places[drawn % len(places)])


def draw(content: bytes) -> int:
    """Draw a whole number from 0 on, always the same for the same content."""
    return int.from_bytes(hashlib.sha256(SALT + content).digest()[:8])
