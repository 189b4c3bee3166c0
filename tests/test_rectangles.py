"""Images that are not square, through the whole chain: a rectangle instead of a square."""

import io
import json
from pathlib import Path

import factory
import numpy as np
import onnxruntime
import pytest
import torch
from every_kind import prepare_small, small_category
from PIL import Image
from scipy import ndimage

from model.detector import load_detector
from model.export import trace
from model.kinds import KINDS
from model.preprocessing import Preprocessing
from pipeline.catalogue.catalogue import Category
from pipeline.evaluation.plots import draw
from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.variants import variant
from pipeline.images.decode import read_image
from pipeline.images.fit import to_crop
from pipeline.night.feedback.explanation import explain
from pipeline.night.folder import NightFolder
from pipeline.night.results import read_night
from pipeline.onboarding.find_crop import rectangle, with_crop
from pipeline.onboarding.finish import write_package
from pipeline.onboarding.prepare import make_detector, prepare, score_unseen
from pipeline.package import Package
from pipeline.registry.onnx_export import to_onnx

NIGHT = "2026-03-12"
WIDE = (96, 192)  # height and width: what 160 x 80 pixels become with as many as 128 x 128


def strip(seed: int, *, scratched: bool = False) -> Image.Image:
    """A picture twice as wide as high, scratched at its right end."""
    random = np.random.default_rng(seed)
    grain = ndimage.gaussian_filter(random.normal(size=(80, 160, 3)), (1, 6, 0))
    pixels = 140 + 150 * grain
    if scratched:
        pixels[20:60, 140:156] = random.uniform(0, 255, 3)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def write_strips(folder: Path, seeds: range, *, scratched: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        strip(seed, scratched=scratched).save(folder / f"{seed:04d}.png")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strips")
    write_strips(folder / "train/good", range(40))
    write_strips(folder / "test/good", range(100, 103))
    write_strips(folder / "test/scratch", range(200, 203), scratched=True)
    mask = np.zeros((80, 160), np.uint8)
    mask[20:60, 140:156] = 255
    (folder / "ground_truth/scratch").mkdir(parents=True)
    for seed in range(200, 203):
        Image.fromarray(mask).save(folder / f"ground_truth/scratch/{seed:04d}_mask.png")
    return folder


def category(images: Path, **changes: object) -> Category:
    settings = {"crop": 128, "fit": "keep", "resize": None}
    return factory.category(images, name="strip", **settings | changes)


@pytest.fixture(scope="module")
def package(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    prepared = prepare(category(images))
    list(prepared.trainer.run())
    folder = tmp_path_factory.mktemp("package")
    write_package(prepared, folder)
    return folder


@pytest.mark.parametrize(
    ("side", "width_over_height", "expected"),
    [
        (224, 1, (224, 224)),
        (224, 1.5, (192, 288)),
        (224, 1 / 1.5, (288, 192)),
        (128, 2, WIDE),
        (224, 12, (64, 768)),  # 64 x 768 is 12 times as wide as high
        (32, 9, (32, 32)),
    ],
)
def test_the_rectangle_has_the_proportions_and_as_many_pixels(
    side: int, width_over_height: float, expected: tuple[int, int]
) -> None:
    assert rectangle(side, width_over_height) == expected
    assert expected[0] * expected[1] == pytest.approx(side**2, rel=0.15)


def test_the_proportions_are_those_that_a_person_sees(tmp_path: Path) -> None:
    folder = tmp_path / "turned/train/good"
    folder.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    for seed in range(3):
        strip(seed).save(folder / f"{seed}.jpg", exif=exif)
    uris = [str(path) for path in folder.iterdir()]
    found = with_crop(category(tmp_path / "turned"), uris)
    assert found.preprocessing == Preprocessing(crop=(192, 96), fit="pad")
    assert with_crop(found, uris) == found
    (tmp_path / "none.png").write_bytes(b"")
    lost = category(tmp_path / "turned")
    assert with_crop(lost, [str(tmp_path / "none.png")]) == lost


@pytest.mark.parametrize("fit", ["crop", "stretch", "pad"])
def test_every_fit_gives_the_rectangle(fit: str) -> None:
    preprocessing = Preprocessing(resize=96, crop=(64, 96), fit=fit)  # type: ignore[arg-type]
    for size in ((160, 80), (80, 160), (300, 10), (64, 64)):
        assert to_crop(Image.new("RGB", size, "red"), preprocessing).shape == (64, 96, 3)
    if fit == "pad":
        wide = to_crop(strip(1), preprocessing)
        resized = np.asarray(strip(1).resize((96, 48), Image.Resampling.BILINEAR))
        assert np.array_equal(wide[8:56], resized)


def test_a_square_has_one_way_to_say_it() -> None:
    square = Preprocessing(crop=(224, 224))
    assert square == Preprocessing(crop=224)
    assert square.to_json() == Preprocessing().to_json()
    wide = Preprocessing(crop=(64, 96), fit="stretch")
    assert Preprocessing.from_json(json.loads(json.dumps(wide.to_json()))) == wide
    assert (square.is_for_all_releases, wide.is_for_all_releases) == (True, False)


def test_resize_is_no_matter_where_nothing_is_cut_out() -> None:
    for fit in ("stretch", "pad"):
        assert Preprocessing(resize=256, crop=448, fit=fit).size == (448, 448)  # type: ignore[arg-type]


def test_a_category_of_strips_is_scored_whole(package: Path, tmp_path: Path) -> None:
    header, _ = load_detector(package / "head.safetensors")
    assert (header.preprocessing.crop, header.preprocessing.fit) == (WIDE, "pad")
    assert header.grid == (12, 24)
    assert "pixel_auroc" in Package.read(package).record.metrics
    write_strips(tmp_path / "dump/strip", range(300, 302))
    write_strips(tmp_path / "dump/strip", range(400, 402), scratched=True)
    folder = NightFolder(str(tmp_path / "out"), NIGHT)
    fleet = factory.score_without_cluster(tmp_path / "dump", folder, {"strip": package})
    assert fleet.champions["strip"].preprocessing == header.preprocessing
    for row in read_night(folder).to_pylist():
        explanation = explain(row["image_uri"], folder)
        assert (explanation.score, explanation.difference) == (row["score"], 0.0)
        assert explanation.picture is not None
        assert explanation.picture.shape == (96, 2 * 192, 3)


def test_an_exported_rectangle_scores_the_same(package: Path, tmp_path: Path) -> None:
    write_strips(tmp_path, range(500, 503), scratched=True)
    detector = factory.detector(Package.read(package))
    pixels = [
        read_image(str(path), detector.header.preprocessing).pixels
        for path in sorted(tmp_path.iterdir())
    ]
    stacked = np.stack([each for each in pixels if each is not None])
    scores, patch_scores = detector(torch.from_numpy(stacked))
    session = onnxruntime.InferenceSession(to_onnx(trace(detector), {}))
    found, maps = session.run(["score", "map"], {"image": stacked})
    assert found.tolist() == pytest.approx(scores.tolist(), abs=1e-3)
    assert maps.shape == (3, *WIDE)
    assert np.allclose(maps, detector.maps(patch_scores).numpy(), atol=1e-3)


def test_strips_are_evaluated_by_their_masks_and_drawn(images: Path) -> None:
    protocol = Protocol(num_seeds=1, progress=lambda *_: None)
    bank = variant(category(images), "memory_bank")
    assert isinstance(bank, Category)
    result = protocol.measure(bank)
    assert result.seeds[0].metrics["pixel_auroc"] > 0.8
    assert result.tiles[0].pixels.shape == (*WIDE, 3)
    files = draw(result)
    assert Image.open(io.BytesIO(files["heatmaps.png"])).width > 1000


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_detector_reads_rectangles(images: Path, kind: str) -> None:
    prepared = prepare_small(small_category(images, kind, crop=128, fit="keep", resize=None))
    list(prepared.trainer.run())
    detector = make_detector(prepared, prepared.trainer)
    assert np.isfinite(score_unseen(prepared, prepared.trainer, detector).scores).all()
    pixels = torch.zeros(1, *WIDE, 3, dtype=torch.uint8)
    assert detector.maps(detector(pixels)[1]).shape == (1, *WIDE)
