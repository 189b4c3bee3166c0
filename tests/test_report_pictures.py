"""Heat maps and histograms as they stand in the report."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.images import heatmap
from pipeline.report import score_histogram


def test_an_overlay_leaves_usual_surfaces_as_they_are() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(heatmap.overlay(image, np.zeros((8, 8), np.uint8)), image)


def test_an_overlay_depends_on_the_pixel_alone_and_not_on_the_rest_of_the_map() -> None:
    image = np.full((1, 2, 3), 90, dtype=np.uint8)
    alone = heatmap.overlay(image, np.array([[150, 0]], dtype=np.uint8))
    beside_worse = heatmap.overlay(image, np.array([[150, 255]], dtype=np.uint8))
    assert np.array_equal(alone[0, 0], beside_worse[0, 0])


def test_heat_covers_more_and_gets_darker_with_the_level() -> None:
    table = heatmap.colour_table()
    luminance = table[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert np.all(np.diff(table[:, 3]) >= 0)
    assert np.all(np.diff(luminance) <= 1e-9)


def test_the_filter_of_the_page_holds_the_colours_of_the_overlay() -> None:
    tables = heatmap.filter_tables()
    channels = [[float(value) for value in tables[name].split()] for name in tables]
    assert list(tables) == ["red", "green", "blue", "opacity"]
    expected = heatmap.colour_table() / [255, 255, 255, 1]
    assert np.abs(np.array(channels).T - expected).max() <= 0.0005


def test_histogram_counts_by_hand() -> None:
    scores = np.array([0.0, 0.05, 2.2, 2.21, 99.0])
    flagged = scores > 2.2
    bins = score_histogram.bin_scores(scores, flagged, np.array([0.15, 2.15]), threshold=2.2)
    # 22 bins of 0.1 from 0 to 2.2; both ends of the scale take what lies beyond
    assert bins.width == pytest.approx(0.1)
    assert bins.usual[0] == pytest.approx(2 / 5)
    assert bins.usual[-1] == pytest.approx(1 / 5)  # exactly at the threshold is not above it
    assert bins.flagged[[0, -1]] == pytest.approx([1 / 5, 1 / 5])
    assert bins.calibration[[1, 21]] == pytest.approx([1 / 2, 1 / 2])
    assert bins.overflows


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 60), m=st.integers(0, 60))
def test_histogram_shares_add_up_whatever_the_scores(seed: int, n: int, m: int) -> None:
    random = np.random.default_rng(seed)
    scores, calibration = random.standard_cauchy(n).astype(np.float32), random.normal(size=m)
    threshold = float(random.normal())
    bins = score_histogram.bin_scores(scores, scores > threshold, calibration, threshold)
    assert bins.usual.sum() + bins.flagged.sum() == pytest.approx(1)
    assert bins.flagged.sum() == pytest.approx(np.mean(scores > threshold))
    assert bins.calibration.sum() == pytest.approx(1 if m else 0)
    drawing = str(score_histogram.score_histogram(bins, threshold, "d"))
    assert "nan" not in drawing
    assert "inf" not in drawing


def test_a_chart_escapes_its_description() -> None:
    bins = score_histogram.bin_scores(np.array([1.0]), np.array([False]), np.array([]), 2.0)
    assert '"><script>' not in score_histogram.score_histogram(bins, 2.0, '"><script>')
