"""A small night with all that a report must bear: pictures, maps, results, fleet file."""

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from champions import made_up_champion
from numpy.typing import NDArray
from PIL import Image
from recount import Drifts, recount
from scipy import ndimage

from model.preprocessing import Preprocessing
from pipeline.calibration import CalibrationConfig
from pipeline.images.placement import placement
from pipeline.images.regions import RegionRule, find_regions
from pipeline.labels.audit import audit_sample
from pipeline.night.fleet.fleet import Champion, Fleet
from pipeline.night.folder import NightFolder, PictureKind
from pipeline.night.results import FLAGS, RESULT_SCHEMA, write_shard
from pipeline.night.scoring.pictures import write_pictures
from pipeline.night.summary import write_summary
from pipeline.package import THRESHOLD_GREY

NIGHT = "2026-03-12"
CROP = 224
RATE = 0.02
MODEL = ("model_name", "model_version", "model_digest")
SCORED_AT = dt.datetime(2026, 3, 13, 2, 15, tzinfo=dt.UTC)
HOSTILE_NAMES = (
    "<script>alert(1)</script>.png",
    '"><img src=x onerror=alert(2)>.png',
    "..'..&amp;{{ 7 * 7 }}.png",
    "\u202egnp.exe.png",
    "תמונה-عيب.png",
    "n" * 245 + ".png",
)


def square(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a network would see of a grey or coloured picture."""
    return np.asarray(Image.fromarray(pixels).convert("RGB").resize((CROP, CROP)))


@dataclass
class NightMaker:
    """Collects rows and champions; ``write`` stores them as a settled night."""

    out: Path
    seed: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    champions: dict[str, Champion] = field(default_factory=dict)
    pictures: dict[str, Any] = field(default_factory=dict)  # of images that the audit may draw

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    @property
    def folder(self) -> NightFolder:
        return NightFolder(str(self.out), NIGHT)

    def add_champion(self, category: str, num_calibration: int = 199) -> None:
        """Calibration scores around 1."""
        scores = self.random.gamma(60.0, 1 / 60.0, num_calibration)
        self.champions[category] = made_up_champion(
            category,
            scores,
            CalibrationConfig(false_alarm_rate=RATE),
            model_version=str(len(self.champions) + 1),
            model_digest=f"{len(self.champions) + 10:x}" * 64,
            preprocessing=Preprocessing(resize=256, crop=CROP),
        )

    def add_scored(self, category: str, name: str, score: float, picture: Any = None) -> None:
        """An image that its champion scored; gets a map when a scoring job would write one."""
        champion = self.champions[category]
        calibration, scores = champion.reference.calibration, np.array([score], np.float32)
        p_value, flagged = calibration.p_value(scores)[0], bool(calibration.flagged(scores)[0])
        row = self._row(category, name, "ok") | {
            "score": score,
            "p_value": p_value,
            "flagged": flagged,
            "scored_at": SCORED_AT,
            **{key: getattr(calibration, key) for key in ("threshold", "false_alarm_rate")},
            **{key: getattr(champion, key) for key in MODEL},
        }
        if flagged or p_value <= 0.05:
            pixels = self._texture() if picture is None else picture
            self._write_pictures(row, pixels, score / calibration.threshold)
        else:
            self.pictures[row["image_uri"]] = picture
        self.rows.append(row)

    def _write_pictures(self, row: dict[str, Any], pixels: Any, severity: float) -> None:
        category, uri = row["category"], row["image_uri"]
        row["map_uri"] = self.folder.picture(category, uri, "maps")
        levels = plausible_map(pixels, severity)
        row |= regions_of(levels, pixels.shape[:2], self.champions[category].preprocessing)
        write_pictures(self.folder, category, uri, levels, square(pixels))

    def _write_audit(self) -> None:
        """Keep the pictures of the audit sample too, as a scoring job does."""
        for category in self.champions:
            scored = {
                row["image_uri"]: row
                for row in self.rows
                if (row["category"], row["status"]) == (category, "ok")
            }
            for uri in audit_sample(NIGHT, scored):
                if scored[uri]["map_uri"] is None:
                    picture = self.pictures[uri]
                    pixels = self._texture() if picture is None else picture
                    self._write_pictures(scored[uri], pixels, 0.5)

    def add_unscored(self, category: str, name: str, status: str, error: str | None = None) -> None:
        self.rows.append(self._row(category, name, status) | {"error": error})

    def write(self, rows_per_shard: int = 100, drifts: Drifts | None = None) -> NightFolder:
        """Store shards, fleet and summary as they are when a night is settled."""
        self._write_audit()
        table = pa.Table.from_pylist(self.rows, schema=RESULT_SCHEMA)
        for start in range(0, table.num_rows, rows_per_shard):
            name = f"{start // rows_per_shard:05d}-0123456789ab"
            write_shard(self.folder, name, table.slice(start, rows_per_shard))
        fleet = Fleet(champions=self.champions)
        fleet.write(self.folder)
        write_summary(self.folder, recount(table, fleet, drifts))
        return self.folder

    def _row(self, category: str, name: str, status: str) -> dict[str, Any]:
        folder = f"{self.out}/dump/{category}" if category else f"{self.out}/dump"
        row: dict[str, Any] = dict.fromkeys(RESULT_SCHEMA.names)
        return (
            row
            | dict.fromkeys(FLAGS, False)
            | {
                "image_uri": f"{folder}/{name}",
                "image_etag": "e",
                "category": category,
                "status": status,
                "shard": "00000-0123456789ab",
            }
        )

    def _texture(self) -> NDArray[np.uint8]:
        """Brushed metal with one scratch."""
        grain = ndimage.gaussian_filter(self.random.normal(size=(CROP, CROP)), (1, 9))
        image = 140 + 120 * grain
        row, column = self.random.integers(40, 180, 2)
        image[row : row + 4, column - 30 : column + 30] -= 70
        grey = np.clip(image, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)


def regions_of(
    levels: NDArray[np.uint8], size: tuple[int, ...], way: Preprocessing
) -> dict[str, Any]:
    """The columns of a row: what the picture of the map shows as anomalous."""
    height, width = size[:2]
    rule = RegionRule(threshold=float(THRESHOLD_GREY), rate=RATE, num_images=199)
    found = find_regions(levels.astype(np.float32), rule, placement((height, width), way))
    return found.to_row() | {"image_height": height, "image_width": width}


def plausible_map(pixels: NDArray[np.uint8], severity: float) -> NDArray[np.uint8]:
    """Bright where a picture departs from its own surroundings, brighter the higher the score."""
    grey = pixels.astype(float).mean(axis=2) if pixels.ndim == 3 else pixels.astype(float)
    grey = np.asarray(Image.fromarray(grey).resize((CROP, CROP)))
    rows, columns = np.median(grey, axis=1, keepdims=True), np.median(grey, axis=0, keepdims=True)
    departure = np.abs(grey - rows - columns + np.median(grey))
    departure[:12] = departure[-12:] = departure[:, :12] = departure[:, -12:] = 0
    smooth = ndimage.gaussian_filter(departure, 6)
    peak = min(255.0, 130 * severity**1.5)
    levels: NDArray[np.uint8] = np.clip(smooth / smooth.max() * peak, 0, 255).astype(np.uint8)
    return levels


def hostile_night(out: Path) -> NightFolder:
    """One category of each kind, names that attack the page, one image and one map gone."""
    maker = NightMaker(out)
    maker.add_champion("bottle")
    maker.add_champion("cable")
    maker.add_champion("asleep")
    for index in range(60):
        maker.add_scored("bottle", f"good{index:03d}.png", 0.9)
        maker.add_scored("cable", f"good{index:03d}.png", 0.95)
    for index in range(14):
        maker.add_scored("bottle", f"bad{index:02d}.png", 2.0 + index / 10)
    for index, name in enumerate(HOSTILE_NAMES):
        maker.add_scored("cable", name, 1.9 - index / 10)
    maker.add_unscored("cable", HOSTILE_NAMES[0] + ".txt", "unreadable", "<b>not</b> an image")
    maker.add_unscored("cable", "bomb.png", "too_large", "40000 x 40000 pixels\nlimit 100000000")
    maker.add_unscored("cable", "../../etc/passwd", "denied", None)
    for index in range(3):
        maker.add_unscored("new-part", f"{index}.png", "unrouted")
    maker.add_unscored("<i>Odd</i> name", "1.png", "unrouted")
    maker.add_unscored("", "stray.png", "unrouted")
    written = maker.write()
    gone: list[tuple[str, PictureKind]] = [("bad13.png", "thumbnails"), ("bad12.png", "maps")]
    for name, kind in gone:
        Path(maker.folder.picture("bottle", f"{out}/dump/bottle/{name}", kind)).unlink()
    return written


def solar_night(out: Path, num_images: int = 240) -> NightFolder:
    """Real solar cells in four categories, in all the states that a category can be in.

    Scores are drawn, not computed: good cells like the calibration, broken ones above it.
    """
    import elpv_dataset

    data = Path(elpv_dataset.__file__).parent / "data"
    lines = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    maker = NightMaker(out, seed=7)
    share_broken = {"mono": 0.11, "poly": 0.012, "mono-line-2": 0.0}
    for category, share in share_broken.items():
        maker.add_champion(category)
        kind = "poly" if category == "poly" else "mono"
        cells = [(name, float(label)) for name, label, cell in lines if cell == kind]
        broken = iter([name for name, label in cells if label == 1.0])
        good = iter([name for name, label in cells if label == 0.0])
        for _ in range(num_images if category != "mono-line-2" else num_images // 4):
            is_broken = maker.random.random() < share
            score = maker.random.gamma(60.0, 1 / 60.0) + is_broken * maker.random.gamma(4.0, 0.22)
            name = next(broken) if is_broken else next(good)
            cell = np.asarray(Image.open(data / name).convert("L"))
            maker.add_scored(category, Path(name).name, score, cell)
    maker.add_champion("thin-film")
    maker.add_unscored("poly", "cell9001.png", "unreadable", "0 bytes, no image header")
    maker.add_unscored(
        "poly", "cell9002.png", "unreadable", "truncated after 12,288 of 41,033 bytes"
    )
    maker.add_unscored("mono", "panorama.png", "too_large", "60000 x 60000 pixels, limit 100000000")
    for index in range(23):
        maker.add_unscored("bifacial", f"cell{index:04d}.png", "unrouted")
    maker.add_unscored("", "Thumbs.db", "unrouted")
    return maker.write()
