"""Image statistics: known for made images, the same to the bit in any batch."""

import json
from pathlib import Path

import numpy as np
import pytest
from factory import category, make_category
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.images.decode import read_image
from pipeline.images.image_statistics import (
    MAX_VALUES,
    STATISTICS,
    condense,
    image_statistics,
    read_values,
)
from pipeline.onboarding.finish import finish
from pipeline.onboarding.prepare import make_detector, prepare, score_unseen


def grey(levels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """One grey image as a batch of one."""
    return np.repeat(levels.astype(np.uint8)[None, ..., None], 3, axis=3)


def of_one(pixels: NDArray[np.uint8]) -> dict[str, float]:
    return {name: float(values[0]) for name, values in image_statistics(pixels).items()}


def test_an_even_grey_image_has_its_level_and_neither_contrast_nor_edges() -> None:
    expected = {"brightness": 104.0, "contrast": 0.0, "sharpness": 0.0}
    assert of_one(grey(np.full((5, 7), 104))) == expected


def test_a_checkerboard_by_hand() -> None:
    """Half 0, half 200: mean and deviation 100; every neighbour differs by 200, and 4 do."""
    board = 200 * (np.indices((6, 6)).sum(axis=0) % 2)
    expected = {"brightness": 100.0, "contrast": 100.0, "sharpness": 800.0}
    assert of_one(grey(board)) == expected


def test_a_ramp_has_contrast_but_no_edge() -> None:
    """0, 10, ..., 90: mean 45, variance 100 (10^2 - 1) / 12 = 825."""
    found = of_one(grey(np.tile(np.arange(0, 100, 10), (4, 1))))
    assert found["brightness"] == 45.0
    assert found["contrast"] == pytest.approx(825**0.5, rel=1e-6)
    assert found["sharpness"] == 0.0


@pytest.mark.parametrize(
    ("colour", "luma"), [((255, 0, 0), 76.0), ((0, 255, 0), 150.0), ((0, 0, 255), 29.0)]
)
def test_brightness_is_luma(colour: tuple[int, int, int], luma: float) -> None:
    """0.299, 0.587 and 0.114 of 255, rounded."""
    pixels = np.broadcast_to(np.array(colour, np.uint8), (1, 4, 4, 3))
    assert of_one(pixels.copy())["brightness"] == luma


def test_statistics_agree_with_numpy_and_scipy() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (40, 30))
    found = of_one(grey(levels))
    assert found["brightness"] == pytest.approx(levels.mean(), rel=1e-6)
    assert found["contrast"] == pytest.approx(levels.std(), rel=1e-6)
    edges = np.abs(ndimage.laplace(levels.astype(float)))[1:-1, 1:-1]
    assert found["sharpness"] == pytest.approx(edges.mean(), rel=1e-6)


def test_a_blurred_image_is_as_bright_and_less_sharp() -> None:
    levels = np.random.default_rng(1).integers(100, 156, (64, 64)).astype(float)
    sharp = of_one(grey(levels))
    blurred = of_one(grey(np.rint(ndimage.gaussian_filter(levels, 1.0, mode="wrap"))))
    assert blurred["brightness"] == pytest.approx(sharp["brightness"], abs=0.5)
    assert blurred["sharpness"] < 0.2 * sharp["sharpness"]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 6))
def test_an_image_has_the_same_statistics_to_the_bit_in_any_batch(seed: int, size: int) -> None:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (size, 32, 32, 3), np.uint8)
    together = image_statistics(pixels)
    assert tuple(together) == STATISTICS
    order = random.permutation(size)
    shuffled = image_statistics(pixels[order])
    for name in STATISTICS:
        assert together[name].dtype == np.float32
        alone = [image_statistics(pixels[i : i + 1])[name][0] for i in range(size)]
        assert together[name].tobytes() == np.array(alone).tobytes()
        assert shuffled[name].tobytes() == together[name][order].tobytes()


def test_no_images_have_no_statistics() -> None:
    found = image_statistics(np.zeros((0, 8, 8, 3), np.uint8))
    assert {name: values.shape for name, values in found.items()} == dict.fromkeys(STATISTICS, (0,))


def test_few_values_are_kept_as_they_are_and_many_by_even_ranks() -> None:
    few = np.array([3.5, 1.25, 2.1], np.float32)
    assert condense(few) == (1.25, 2.1, 3.5)  # 2.1 is no float32, but the shortest for its own
    assert np.float32(condense(few)[1]) == few[2]
    many = np.random.default_rng(0).permutation(np.arange(10 * MAX_VALUES, dtype=np.float32))
    assert condense(many) == tuple(np.arange(5.0, 10 * MAX_VALUES, 10.0))
    assert condense(np.zeros(0, np.float32)) == ()


@given(st.lists(st.floats(0, 300, width=32), max_size=20))
def test_values_come_back_from_a_file_to_the_bit(values: list[float]) -> None:
    kept = condense(np.array(values, np.float32))
    read = read_values(json.loads(json.dumps({"brightness": kept, "colour": [1.0]})))
    assert read == {"brightness": kept}
    assert np.array(kept, np.float32).tobytes() == np.sort(np.array(values, np.float32)).tobytes()


@pytest.mark.parametrize(("method", "num"), [("split", 9), ("cross", 20)])
def test_an_onboarding_keeps_the_statistics_of_its_calibration_images(
    tmp_path: Path, method: str, num: int
) -> None:
    """Of the images that were scored unseen: the held-out ones, or with cross all of them."""
    images = make_category(tmp_path / "steel", num_good=20, num_test=0)
    made = category(images, calibration=method, training={"members": 2})
    prepared = prepare(made)
    for _ in prepared.trainer.run():
        pass
    detector = make_detector(prepared, prepared.trainer)
    places = score_unseen(prepared, prepared.trainer, detector).images.tolist()
    squares = [read_image(prepared.good.uris[i], made.preprocessing).pixels for i in places]
    package, _ = finish(prepared)
    assert len(package.reference.calibration.scores) == num
    for name, values in image_statistics(np.array(squares)).items():
        found = np.array(package.reference.statistics[name], np.float32)
        assert np.array_equal(found, np.sort(values))
