"""What onboarding a category leaves: a folder that the registry stores and scoring reads.

head.safetensors   the folded head and the header that says what it belongs to
calibration.json   calibration scores, threshold, scale of the anomaly maps, the level of regions,
                   and how bright, contrasty and sharp the calibration images are
check.png          good images by which another engine is checked, see ``engine_check.py``
training_images.json  what the training images look like, see ``inspection/training_summary.py``
onboarding.json    the record: settings, data, loss curve, metrics, timings
examples/*.png     images beside their heatmaps
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.detector import DetectorHeader, load_detector, save_detector
from model.errors import CategoryFault
from model.kind import Heads
from model.zones import EVERYWHERE, Zones, read_zones
from pipeline import storage
from pipeline.calibration import Calibration
from pipeline.engine_check import CHECK_FILE, EngineCheck, from_png, to_png
from pipeline.images.image_statistics import Values, read_values
from pipeline.images.regions import RegionRule
from pipeline.inspection.training_summary import TRAINING_IMAGES_FILE, TrainingImages

HEAD_FILE = "head.safetensors"
CALIBRATION_FILE = "calibration.json"
RECORD_FILE = "onboarding.json"
EXAMPLES_FOLDER = "examples"
DECIDING_FILES = (HEAD_FILE, CALIBRATION_FILE)  # all that shapes a score or a decision
DIGEST_CHARACTERS = 16  # of a SHA-256: two of a million contents share them with p = 3e-8
THRESHOLD_GREY = 96  # of 255; what lies above it has most of the scale


class PackageError(CategoryFault):
    """A package lacks a file, holds a damaged one, or is not the one that was registered."""


class PackageNotRead(CategoryFault):
    """A package could not be fetched or read this time: it may be whole."""


@dataclass(frozen=True, kw_only=True)
class MapScale:
    """How anomaly map levels become grey: fixed per model, so that its maps compare."""

    low: float  # median of the calibration maps, drawn black
    threshold: float  # drawn as THRESHOLD_GREY

    def to_grey(self, maps: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return 8-bit grey levels of anomaly maps of any shape.

        Linear up to the threshold, then ever flatter: a defect may lie twenty times as far above
        it, and the difference between bad and worse should still be seen.
        """
        span = max(self.threshold - self.low, 1e-6)
        level = np.clip((maps - self.low) / span, 0, None)
        beyond = np.maximum(level - 1, 0)
        grey = THRESHOLD_GREY * np.minimum(level, 1)
        grey = grey + (255 - THRESHOLD_GREY) * beyond / (beyond + 4)
        rounded: NDArray[np.uint8] = np.rint(grey).astype(np.uint8)
        return rounded


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the calibration images say: images of a night are decided and compared by it."""

    calibration: Calibration
    map_scale: MapScale
    statistics: Values = field(default_factory=dict)  # none in a package of an earlier release
    modes: tuple[str, ...] = ()  # of the good images' files, likewise: "RGB", "L;uint16"
    check: EngineCheck | None = None  # likewise; and where the numeric mode is not float32
    regions: RegionRule | None = None  # likewise
    zones: Zones = EVERYWHERE  # as the heads have them, for whoever draws them

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; ``from_json`` gives back an equal reference."""
        later: dict[str, Any] = {"engine_check": self.check.to_json()} if self.check else {}
        later |= {"regions": asdict(self.regions)} if self.regions else {}
        later |= {} if self.zones.is_everywhere else {"zones": asdict(self.zones)}
        return {
            **later,
            **self.calibration.to_json(),
            "map_scale": asdict(self.map_scale),
            "image_statistics": dict(self.statistics),
            "image_modes": list(self.modes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Reference":
        """Read what ``to_json`` wrote."""
        return cls(
            calibration=Calibration.from_json(data),
            map_scale=MapScale(**data["map_scale"]),
            statistics=read_values(data.get("image_statistics", {})),
            modes=tuple(data.get("image_modes", ())),
            check=EngineCheck.from_json(check) if (check := data.get("engine_check")) else None,
            zones=read_zones(data.get("zones", {})),
            regions=RegionRule(**rule) if (rule := data.get("regions")) else None,
        )


@dataclass(frozen=True, kw_only=True)
class OnboardingRecord:
    """What happened, in plain JSON types."""

    category: str
    settings: Mapping[str, Any]
    dataset_digest: str
    counts: Mapping[str, int]  # train, calibration, duplicates, unreadable, test_good, ...
    unreadable: Sequence[Mapping[str, str]]
    curve: Sequence[Mapping[str, Any]]  # one entry per pass, with the head it trained
    metrics: Mapping[str, float]
    timings_s: Mapping[str, float]
    backbone_images: int  # images that went through the backbone
    findings: Sequence[str] = ()  # what a person should know of the data; none of earlier releases
    # Images that were embedded, and those of them from the store; None without a store.
    features: Mapping[str, int] | None = None
    # Made defects by size, see ``onboarding/defect_sizes.py``; none of earlier releases.
    defect_sizes: Sequence[Mapping[str, Any]] = ()
    # Beginnings of the SHA-256 of all contents that heads and threshold are of, see ``has_used``.
    contents: Sequence[str] = ()

    def has_used(self, contents: Sequence[str]) -> list[bool]:
        """Say of each content, by its SHA-256, whether the onboarding trained or calibrated on it.

        False throughout for a version of an earlier release.
        """
        used = frozenset(self.contents)
        return [content[:DIGEST_CHARACTERS] in used for content in contents]

    @property
    def found_by_size(self) -> dict[str, float]:
        """Shares of made defects that were found, with their intervals, as metrics."""
        kinds = {"found": "share", "found_low": "low", "found_high": "high"}
        return {
            f"defects_{each['size']}px_{name}": each[key]
            for each in self.defect_sizes
            for name, key in kinds.items()
        }


@dataclass(frozen=True, kw_only=True)
class Package:
    """A category's detector with everything that goes with it."""

    header: DetectorHeader
    heads: Heads
    reference: Reference
    record: OnboardingRecord
    check_images: NDArray[np.uint8] | None = None  # (N, H, W, 3), of the reference's check
    training_images: TrainingImages | None = None  # none in a package of an earlier release

    def write(self, folder: Path, examples: Mapping[str, NDArray[np.uint8]]) -> None:
        """Write all files; ``examples`` are RGB pictures by name."""
        (folder / EXAMPLES_FOLDER).mkdir(parents=True, exist_ok=True)
        save_detector(folder / HEAD_FILE, self.heads, self.header)
        reference = json.dumps(self.reference.to_json(), sort_keys=True)
        (folder / CALIBRATION_FILE).write_text(reference)
        (folder / RECORD_FILE).write_text(json.dumps(asdict(self.record), indent=1))
        if self.check_images is not None:
            (folder / CHECK_FILE).write_bytes(to_png(self.check_images))
        if self.training_images is not None:
            (folder / TRAINING_IMAGES_FILE).write_bytes(self.training_images.to_bytes())
        for name, pixels in examples.items():
            Image.fromarray(pixels).save(folder / EXAMPLES_FOLDER / f"{name}.png")

    @classmethod
    def read(cls, folder: Path) -> "Package":
        """Read what ``write`` wrote.

        Raises:
            PackageError, DetectorFileError, CalibrationError: a file is missing or damaged.
        """
        header, heads = load_detector(folder / HEAD_FILE)
        with package_errors(folder):
            reference = Reference.from_json(json.loads((folder / CALIBRATION_FILE).read_text()))
            record = _read_record(json.loads((folder / RECORD_FILE).read_text()))
            images = None
            if reference.check and (folder / CHECK_FILE).exists():
                content, size = (folder / CHECK_FILE).read_bytes(), header.preprocessing.view
                images = from_png(content, reference.check, size)
        return cls(
            header=header,
            heads=heads,
            reference=reference,
            record=record,
            check_images=images,
            training_images=read_training_images(str(folder)),
        )


def read_training_images(package: str) -> TrainingImages | None:
    """Return what a package, a folder or prefix, says of its training images.

    None: an earlier release made it.

    Raises:
        PackageError: the file is damaged.
    """
    content = storage.read_if_there(storage.join(package, TRAINING_IMAGES_FILE))
    with package_errors(package):
        return TrainingImages.from_bytes(content) if content is not None else None


def read_heads(package: str) -> tuple[DetectorHeader, Heads]:
    """Fetch and load the folded heads of a package, a folder or prefix."""
    with TemporaryDirectory(prefix="nightshift-head-") as folder:
        path = Path(folder, HEAD_FILE)
        path.write_bytes(storage.read_bytes(storage.join(package, HEAD_FILE)))
        return load_detector(path)


def _read_record(data: Mapping[str, Any]) -> OnboardingRecord:
    """Return the record; what only other releases note in it is left alone."""
    later = {"findings": (), "features": None, "defect_sizes": (), "contents": ()}
    known = {**later, **data}
    return OnboardingRecord(**{each.name: known[each.name] for each in fields(OnboardingRecord)})


def package_digest(folder: Path) -> str:
    """Return the sha256 over the files that shape a score or a decision."""
    total = hashlib.sha256()
    with package_errors(folder):
        for name in DECIDING_FILES:
            total.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return total.hexdigest()


@contextmanager
def package_errors(folder: Path | str) -> Iterator[None]:
    """Turn what reading the files of a package raises into what a caller can tell apart.

    Raises:
        PackageError: a file is missing or damaged.
        PackageNotRead: the system refused to read one.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        refused = getattr(error, "errno", None)  # Pillow's errors of damaged images have none
        if refused and not isinstance(error, FileNotFoundError):
            raise PackageNotRead(f"{folder} could not be read: {error}. Ask again.") from error
        raise PackageError(
            f"{folder} is no whole package ({type(error).__name__}: {error}); "
            f"it needs {HEAD_FILE}, {CALIBRATION_FILE} and {RECORD_FILE} as an onboarding left "
            f"them. Onboard the category again."
        ) from error
