"""Synthetic anomalies: noise against closed forms, marks against the images they are made on."""

import math

import numpy as np
import pytest
from factory import texture as brushed_metal
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.onboarding.synthetic import (
    MAKERS,
    MIN_CHANGE,
    MIN_PIXELS,
    MIN_SHARE,
    NothingChanges,
    SyntheticAnomaly,
    blend,
    jitter,
    make_anomalies,
    perlin_noise,
    sample,
    turned_grid,
)

IMAGES = [brushed_metal(seed) for seed in range(4)]  # 96 x 96
# Of the image: the largest rectangle, strip (0.25 x 0.06) and noise area; a little for rounding.
LARGEST_AREA = {"cut_paste": 0.16, "scar": 0.02, "texture": 0.101}

Floats = NDArray[np.float64]


def points(seed: int, num: int = 500) -> tuple[Floats, Floats]:
    """RankCounts in lattice cells, some of them negative and beyond the lattice."""
    random = np.random.default_rng(seed)
    return random.uniform(-9, 9, num), random.uniform(-9, 9, num)


def lattice(seed: int) -> Floats:
    angles = np.random.default_rng(seed).uniform(0, 2 * math.pi, (5, 7))
    return np.stack([np.sin(angles), np.cos(angles)], axis=2)


def base_of(anomaly: SyntheticAnomaly) -> NDArray[np.uint8]:
    """The image it was made on: the one that it equals in most pixels."""
    return max(IMAGES, key=lambda image: int((image == anomaly.pixels).sum()))


def test_noise_is_zero_on_every_lattice_point() -> None:
    rows, columns = np.indices((12, 12), dtype=float) - 4
    assert perlin_noise(rows, columns, lattice(0)).tolist() == np.zeros((12, 12)).tolist()


@pytest.mark.parametrize("axis", [0, 1])
def test_noise_of_equal_gradients_is_the_distance_less_its_fade(axis: int) -> None:
    gradients = np.zeros((2, 2, 2))
    gradients[..., axis] = 1
    share = points(0)[axis] % 1
    # With t from one corner and t - 1 from the next: t - (6 t^5 - 15 t^4 + 10 t^3), scaled.
    expected = math.sqrt(2) * (share - np.polyval([6, -15, 10, 0, 0, 0], share))
    np.testing.assert_allclose(perlin_noise(*points(0), gradients), expected, atol=1e-12)


def test_noise_in_the_middle_of_a_cell_is_the_mean_of_its_corners() -> None:
    gradients = lattice(1)[:2, :2]
    towards = np.array([[[0.5, 0.5], [0.5, -0.5]], [[-0.5, 0.5], [-0.5, -0.5]]])
    expected = math.sqrt(2) * (gradients * towards).sum(axis=2).mean()
    half = np.array([0.5])
    assert perlin_noise(half, half, gradients) == pytest.approx(expected)


@given(seed=st.integers(0, 2**32 - 1))
def test_noise_is_odd_in_its_gradients_and_at_most_one(seed: int) -> None:
    """Opposite gradients are equally likely, so the mean over lattices is zero."""
    noise = perlin_noise(*points(seed), lattice(seed))
    np.testing.assert_array_equal(noise, -perlin_noise(*points(seed), -lattice(seed)))
    assert np.abs(noise).max() <= 1


@given(seed=st.integers(0, 2**32 - 1))
def test_noise_is_smooth(seed: int) -> None:
    """Along an axis the slope is at most sqrt(2) (1 + 15/8 (1 + sqrt(2))).

    1 is a corner's own slope, 15/8 the steepest fade from one corner's value to the next one's;
    the two differ by at most the sum of the distances to both, which is 1 + sqrt(2) at its most.
    """
    steepest = math.sqrt(2) * (1 + 15 / 8 * (1 + math.sqrt(2)))
    rows, columns = points(seed)
    step = 1e-3
    moved = perlin_noise(rows + step, columns, lattice(seed))
    assert np.abs(moved - perlin_noise(rows, columns, lattice(seed))).max() <= steepest * step


def test_a_quarter_turn_of_the_grid_turns_the_image() -> None:
    image = IMAGES[0]
    middle = np.full(2, (len(image) - 1) / 2)
    rows, columns = turned_grid(image.shape[:2], middle, math.pi / 2)
    turned = sample(image, rows + middle[0], columns + middle[1])
    assert any(np.array_equal(turned, np.rot90(image, k)) for k in (1, 3))


def test_beyond_its_border_an_image_repeats() -> None:
    rows, columns = np.indices((96, 96), dtype=float)
    found = sample(IMAGES[0], rows - 3, columns + 96 + 5)
    np.testing.assert_array_equal(found, np.roll(IMAGES[0], (3, -5), axis=(0, 1)))


def test_jitter_leaves_grey_grey_and_without_spread_everything() -> None:
    random = np.random.default_rng(0)
    grey = np.repeat(IMAGES[0][..., :1], 3, axis=2)
    mixed = jitter(grey, 0.4, random)
    np.testing.assert_allclose(mixed, mixed[..., :1].repeat(3, axis=2))
    assert np.abs(mixed - grey).max() > MIN_CHANGE
    np.testing.assert_allclose(jitter(IMAGES[0], 0.0, random), IMAGES[0])


def test_blending_by_hand() -> None:
    image = np.full((1, 4, 3), 100, dtype=np.uint8)
    content = np.array([[[200.0] * 3, [100, 100, 116], [114.0] * 3, [200.0] * 3]])
    region = np.array([[True, True, True, False]])
    pixels, mask = blend(image, content, region, opacity=0.5)
    # 150 in all channels; 108 in one, which is enough; 107, which is not; outside the region.
    assert mask.tolist() == [[True, True, False, False]]
    assert pixels.tolist() == [[[150] * 3, [100, 100, 108], [100] * 3, [100] * 3]]


def test_blending_stays_in_the_range_of_grey_levels() -> None:
    image = np.full((1, 2, 3), 100, dtype=np.uint8)
    content = np.array([[[900.0] * 3, [-900.0] * 3]])
    pixels, _ = blend(image, content, np.ones((1, 2), dtype=bool), opacity=0.9)
    assert pixels.tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize("kind", MAKERS)
def test_every_draw_of_a_maker_covers_an_area_within_its_bounds(kind: str) -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        content, region = MAKERS[kind](IMAGES[0], IMAGES[1], random)
        assert content.shape == (96, 96, 3)
        assert region.mean() <= LARGEST_AREA[kind]
        if kind == "cut_paste":
            assert region.mean() >= 0.018
            height, width = (int(region.any(axis=axis).sum()) for axis in (1, 0))
            assert height * width == region.sum(), "a full rectangle"
            assert 0.27 <= width / height <= 3.7


def test_a_pasted_rectangle_is_found_elsewhere_in_the_same_image_if_not_jittered() -> None:
    image = np.arange(64 * 64 * 3).reshape(64, 64, 3)  # no number twice
    random = np.random.default_rng(0)
    draws = [MAKERS["cut_paste"](image, image, random) for _ in range(20)]
    whole = [draw for draw in draws if np.allclose(draw[0], np.rint(draw[0]))]
    assert 0 < len(whole) < len(draws), "jitter is optional"
    for content, region in whole:
        (top, left), (bottom, right) = np.argwhere(region)[[0, -1]]
        pasted = np.rint(content[top : bottom + 1, left : right + 1]).astype(int)
        row, column = divmod(pasted[0, 0, 0] // 3, 64)
        source = image[row : row + bottom - top + 1, column : column + right - left + 1]
        np.testing.assert_array_equal(pasted, source)


def test_kinds_come_in_turn() -> None:
    anomalies = make_anomalies(IMAGES, num=8, seed=0)
    kinds = list(MAKERS)
    assert [anomaly.kind for anomaly in anomalies] == [*kinds, *kinds, *kinds[:2]]


def test_nothing_changes_outside_the_mask_and_everything_in_it() -> None:
    for anomaly in make_anomalies(IMAGES, num=60, seed=0):
        image = base_of(anomaly)
        change = np.abs(anomaly.pixels.astype(int) - image).max(axis=2)
        assert change[~anomaly.mask].max() == 0
        assert change[anomaly.mask].min() >= MIN_CHANGE


def test_anomalies_have_the_type_and_shape_of_their_images_and_a_mask_of_some_size() -> None:
    for anomaly in make_anomalies(IMAGES, num=60, seed=1):
        assert (anomaly.pixels.dtype, anomaly.pixels.shape) == (np.uint8, (96, 96, 3))
        assert (anomaly.mask.dtype, anomaly.mask.shape) == (np.bool_, (96, 96))
        assert anomaly.mask.sum() >= MIN_PIXELS
        assert anomaly.mask.mean() <= LARGEST_AREA[anomaly.kind]


def test_at_least_a_quarter_of_a_pasted_rectangle_can_be_seen() -> None:
    for anomaly in make_anomalies(IMAGES, num=60, seed=2)[::3]:
        assert anomaly.kind == "cut_paste"
        rows, columns = (np.flatnonzero(anomaly.mask.any(axis=axis)) for axis in (1, 0))
        around = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)  # at most the rectangle
        assert anomaly.mask.sum() >= MIN_SHARE * around


def test_strength_runs_from_barely_visible_to_obvious() -> None:
    for start in range(len(MAKERS)):
        changes = [
            np.abs(anomaly.pixels.astype(float) - base_of(anomaly)).max(axis=2)[anomaly.mask].mean()
            for anomaly in make_anomalies(IMAGES, num=120, seed=3)[start :: len(MAKERS)]
        ]
        assert max(changes) > 2.5 * min(changes)


def test_the_same_seed_gives_the_same_anomalies_and_fewer_are_the_first_of_more() -> None:
    first, longer = make_anomalies(IMAGES, 4, seed=5), make_anomalies(IMAGES, 7, seed=5)
    for one, other in zip(first, longer, strict=False):
        assert one.kind == other.kind
        np.testing.assert_array_equal(one.pixels, other.pixels)
        np.testing.assert_array_equal(one.mask, other.mask)


def test_another_seed_gives_other_anomalies() -> None:
    pairs = zip(make_anomalies(IMAGES, 6, seed=0), make_anomalies(IMAGES, 6, seed=1), strict=True)
    assert not any(np.array_equal(one.mask, other.mask) for one, other in pairs)


def test_the_good_images_stay_as_they_are() -> None:
    before = [image.copy() for image in IMAGES]
    make_anomalies(IMAGES, 6, seed=0)
    np.testing.assert_array_equal(IMAGES, before)


def test_one_image_that_is_not_square_is_enough() -> None:
    for anomaly in make_anomalies([IMAGES[0][:64]], num=6, seed=0):
        assert anomaly.mask.shape == (64, 96)


def test_flat_grey_images_get_marks_of_another_brightness() -> None:
    flat = np.full((96, 96, 3), 200, dtype=np.uint8)
    for anomaly in make_anomalies([flat, flat], num=6, seed=0):
        assert len(np.unique(anomaly.pixels)) == 2


def test_black_images_are_refused() -> None:
    black = np.zeros((96, 96, 3), dtype=np.uint8)
    with pytest.raises(
        NothingChanges, match=r"100 draws of a `cut_paste` .* 2 good images of 96 x"
    ):
        make_anomalies([black, black], num=1, seed=0)


def test_images_too_small_for_any_mark_are_refused() -> None:
    with pytest.raises(NothingChanges, match="8 x 8 changed fewer than 16 pixels"):
        make_anomalies([IMAGES[0][:8, :8]], num=1, seed=0)


def test_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one good image"):
        make_anomalies([], num=1, seed=0)
