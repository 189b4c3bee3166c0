"""A category of images with more than 8 bits, from its onboarding to the report of its night."""

import json
from pathlib import Path

import factory
import numpy as np
import pyarrow.compute as pc
import pytest
import tifffile
from numpy.typing import NDArray
from safetensors import safe_open

from model.detector import HEADER_KEY
from pipeline.catalogue.catalogue import Category
from pipeline.images.pixel_range import PixelRangeError
from pipeline.night.fleet.fleet import Fleet
from pipeline.night.folder import NightFolder
from pipeline.night.results import read_night
from pipeline.night.settling.settle import settle
from pipeline.onboarding.finish import write_package
from pipeline.onboarding.key import onboarding_key
from pipeline.onboarding.prepare import prepare
from pipeline.package import Package
from pipeline.predictor import Predictor

NIGHT = "2026-03-12"


def twelve_bits(seed: int, light: float = 1.0) -> NDArray[np.uint16]:
    grey = factory.texture(seed)[..., 0] * (light * 4095 / 255)
    return np.rint(grey).astype(np.uint16)


def write(folder: Path, seeds: range, light: float = 1.0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        tifffile.imwrite(folder / f"{seed:06d}.tif", twelve_bits(seed, light))


def onboard(category: Category, folder: Path) -> Package:
    prepared = prepare(category)
    for _ in prepared.trainer.run():
        pass
    return write_package(prepared, folder)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of a category of twelve bits in sixteen."""
    folder = tmp_path_factory.mktemp("deep")
    write(folder / "images/train/good", range(40))
    onboard(factory.category(folder / "images"), folder / "package")
    return folder / "package"


def header_of(package: Path) -> dict[str, object]:
    with safe_open(package / "head.safetensors", framework="np") as file:
        found: dict[str, object] = json.loads(file.metadata()[HEADER_KEY])
    return found


def score_night(dump: Path, package: Path, out: Path) -> tuple[Fleet, NightFolder]:
    folder = NightFolder(str(out), NIGHT)
    return factory.score_without_cluster(dump, folder, {"steel": package}), folder


def test_the_range_is_found_and_stored(package: Path) -> None:
    read = Package.read(package)
    assert read.header.preprocessing.pixel_range == 4095
    assert read.record.settings["pixel_range"] == 4095
    assert read.reference.modes == ("L;uint16",)
    assert header_of(package)["format_version"] == 4


def test_a_category_of_eight_bits_is_stored_as_before(packages: dict[str, Path]) -> None:
    header = header_of(packages["steel"])
    assert header["format_version"] == 3
    assert header["preprocessing"] == {"crop": 64, "fit": "stretch", "resize": 64}


def test_a_range_that_is_set_is_not_looked_for(tmp_path: Path) -> None:
    write(tmp_path / "images/train/good", range(30))
    category = factory.category(tmp_path / "images", pixel_range=65535)
    found = factory.category(tmp_path / "images")
    assert prepare(category).category.pixel_range == 65535
    assert prepare(found).category.pixel_range == 4095
    assert onboarding_key(category) != onboarding_key(found)


@pytest.mark.parametrize("first", [0, 1_000_000])
def test_a_deep_image_among_good_ones_of_eight_bits_is_unreadable(
    first: int, tmp_path: Path
) -> None:
    factory.write_images(tmp_path / "images/train/good", range(100, 140))
    write(tmp_path / "images/train/good", range(first, first + 2))
    prepared = prepare(factory.category(tmp_path / "images"))
    assert prepared.category.pixel_range is None
    assert len(prepared.good.uris) == 40
    assert {image.uri[-4:] for image in prepared.good.unreadable} == {".tif"}


@pytest.mark.parametrize("setting", [None, 4095])
def test_half_of_each_depth_is_taken_only_where_the_range_is_set(
    setting: float | None, tmp_path: Path
) -> None:
    factory.write_images(tmp_path / "images/train/good", range(0, 40, 2))
    write(tmp_path / "images/train/good", range(1, 41, 2))
    category = factory.category(tmp_path / "images", pixel_range=setting)
    if setting is None:
        with pytest.raises(PixelRangeError, match="20 of 40 good images have more than 8 bits"):
            prepare(category)
    else:
        assert prepare(category).good.modes == ("L;uint16", "RGB")


def test_good_images_of_two_kinds_of_numbers_refuse_the_category(tmp_path: Path) -> None:
    write(tmp_path / "images/train/good", range(20))
    tifffile.imwrite(tmp_path / "images/train/good/float.tif", np.ones((96, 96), np.float32))
    with pytest.raises(PixelRangeError, match="steel: 1 of 21 deep images hold floats"):
        prepare(factory.category(tmp_path / "images"))


def test_one_bright_pixel_of_a_night_leaves_the_image_as_it_was(
    package: Path, tmp_path: Path
) -> None:
    write(tmp_path / "dump/steel", range(700, 702))
    values = twelve_bits(700)
    values[0, 0] = 4200
    tifffile.imwrite(tmp_path / "dump/steel/000701.tif", values)
    _, folder = score_night(tmp_path / "dump", package, tmp_path / "out")
    plain, bright = read_night(folder).to_pylist()
    assert bright["brightness"] == pytest.approx(plain["brightness"], abs=0.1)
    assert bright["score"] == pytest.approx(plain["score"], abs=0.3)
    assert plain["outside_range"] == 0
    assert bright["outside_range"] == pytest.approx(1 / 96**2, rel=1e-3)


def test_a_lamp_at_a_sixteenth_of_its_light_is_seen(package: Path, tmp_path: Path) -> None:
    write(tmp_path / "dump/steel", range(700, 730), light=1 / 16)
    _, folder = score_night(tmp_path / "dump", package, tmp_path / "out")
    brightness = pc.mean(read_night(folder)["brightness"]).as_py()
    assert brightness == pytest.approx(140 / 16, abs=2)


@pytest.mark.parametrize(
    ("change", "shifted", "reason"),
    [
        (
            lambda values: (values // 16).astype(np.uint8),
            "image_mode",
            "30 of 30 images are coded as L, which no image was at onboarding",
        ),
        (
            lambda values: values * 3,
            "pixel_range",
            "30 of 30 images have pixels outside of the range that was set at onboarding",
        ),
    ],
)
def test_a_night_of_another_kind_says_so(
    package: Path, tmp_path: Path, change: object, shifted: str, reason: str
) -> None:
    (tmp_path / "dump/steel").mkdir(parents=True)
    for seed in range(700, 730):
        values = change(twelve_bits(seed))  # type: ignore[operator]
        tifffile.imwrite(tmp_path / f"dump/steel/{seed}.tif", values)
    fleet, folder = score_night(tmp_path / "dump", package, tmp_path / "out")
    summary = settle(folder, fleet)
    assert summary["drifted"] == ["steel"]
    drift = summary["categories"]["steel"]["drift"]
    assert drift["shifted"][0] == shifted
    assert (drift["reason"] or "").startswith(reason)


def test_a_few_images_of_another_kind_are_counted_only(package: Path, tmp_path: Path) -> None:
    write(tmp_path / "dump/steel", range(700, 740))
    for seed in range(740, 743):
        values = (twelve_bits(seed) // 16).astype(np.uint8)
        tifffile.imwrite(tmp_path / f"dump/steel/{seed}.tif", values)
    fleet, folder = score_night(tmp_path / "dump", package, tmp_path / "out")
    entry = settle(folder, fleet)["categories"]["steel"]
    assert entry["other_modes"] == {"L": 3}
    assert "image_mode" not in entry["drift"]["shifted"]


def test_the_registered_model_takes_deep_arrays_and_files_alike(
    package: Path, tmp_path: Path
) -> None:
    write(tmp_path, range(700, 701))
    predictor = Predictor(Package.read(package), factory.backbone())
    values = twelve_bits(700)
    rgb = np.repeat(values[..., None], 3, axis=2)
    rows = predictor.predict([str(tmp_path / "000700.tif"), values, rgb, values.astype(float)])
    assert rows["status"].tolist() == ["ok"] * 4
    assert len(set(rows["score"])) == 1


def test_the_model_of_a_category_of_eight_bits_refuses_deep_arrays(
    packages: dict[str, Path],
) -> None:
    predictor = Predictor(Package.read(packages["steel"]), factory.backbone())
    (row,) = predictor.predict([twelve_bits(700)]).to_dict("records")
    assert (row["status"], row["error"]) == (
        "unreadable",
        "expected uint8 (H, W, 3) or a URI, found uint16 (96, 96)",
    )
