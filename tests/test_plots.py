"""What is drawn is what was measured: curves, bars, pictures and the words beside them."""

import dataclasses
import io
import re
import threading

import numpy as np
import pytest
from evaluated import category_result, maps, masks
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from PIL import Image
from skimage.measure import label
from sklearn.metrics import roc_auc_score, roc_curve

from pipeline.calibration import Calibration, CalibrationConfig, fit
from pipeline.evaluation.heatmap_grid import (
    CAPTION,
    HEAD,
    PAIR_GAP,
    SECTION,
    SIDE,
    Tile,
    choose,
    grid_figure,
    grid_size,
)
from pipeline.evaluation.plots import CURVE_SIZE, draw, pro_figure, roc_figure, up_to
from pipeline.evaluation.protocol import CategoryResult
from pipeline.evaluation.score_plot import SIZE, score_axis, scores_figure
from pipeline.measuring.metrics import Curve
from pipeline.pages import plot_style as style
from pipeline.pages.words import decimal


@pytest.fixture(scope="module")
def result() -> CategoryResult:
    return category_result()


def curves_of(figure: Figure) -> list[np.ndarray]:
    """The solid lines in ink, each as (K, 2)."""
    lines = [line for line in figure.axes[0].lines if line.get_color() == style.INK]
    return [line.get_xydata() for line in lines]


def words(figure: Figure) -> str:
    texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    return "\n".join(text.get_text() for text in texts)


def test_the_area_under_every_plotted_roc_is_the_stated_auroc(result: CategoryResult) -> None:
    curves = curves_of(roc_figure(result))
    assert len(curves) == 3
    for curve, seed in zip(curves, result.seeds, strict=True):
        area = np.trapezoid(curve[:, 1], curve[:, 0])
        assert area == pytest.approx(roc_auc_score(result.defective, seed.scores), abs=1e-12)
        assert area == pytest.approx(seed.metrics["image_auroc"], abs=1e-12)
        rates = roc_curve(result.defective, seed.scores, drop_intermediate=False)[:2]
        allowed = {tuple(point) for point in np.column_stack(rates).round(9).tolist()}
        assert {tuple(point) for point in curve.round(9).tolist()} <= allowed


def test_the_stated_numbers_are_mean_and_deviation_over_seeds(result: CategoryResult) -> None:
    aurocs = [100 * roc_auc_score(result.defective, seed.scores) for seed in result.seeds]
    stated = f"AUROC {np.mean(aurocs):.1f} ± {np.std(aurocs, ddof=1):.1f} %"
    assert stated in words(roc_figure(result))
    assert "30 good and 20 defective images · 3 seeds, a line each" in words(roc_figure(result))
    alone = words(roc_figure(category_result(num_seeds=1)))
    assert f"AUROC {aurocs[0]:.1f} ± – %" in alone
    assert "one seed" in alone


def test_dots_are_what_the_thresholds_did(result: CategoryResult) -> None:
    dots = [line for line in roc_figure(result).axes[0].lines if line.get_marker() == "o"]
    for dot, seed in zip(dots, result.seeds, strict=True):
        flagged = seed.scores > np.float32(seed.calibration.threshold)
        rates = [flagged[~result.defective].mean(), flagged[result.defective].mean()]
        assert dot.get_xydata()[0].tolist() == pytest.approx(rates)


def overlap(seed: int, threshold: float) -> tuple[float, float]:
    """False-positive rate and mean overlap with each region, counted one by one."""
    marked, truth = maps(seed) > threshold, masks()
    overlaps = []
    for found, mask in zip(marked, truth, strict=True):
        regions = label(mask, connectivity=2)
        overlaps += [found[regions == number].mean() for number in range(1, regions.max() + 1)]
    return float(marked[~truth].mean()), float(np.mean(overlaps))


def test_the_plotted_pro_is_the_overlap_with_regions_counted_one_by_one(
    result: CategoryResult,
) -> None:
    for seed, curve in enumerate(curves_of(pro_figure(result))):
        for threshold in (0.8, 1.2, 1.6, 2.0, 2.5):
            rate, expected = overlap(seed, threshold)
            assert rate < 0.3
            assert np.interp(rate, curve[:, 0], curve[:, 1]) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize(("limit", "name"), [(0.3, "pixel_aupro_30"), (0.05, "pixel_aupro_05")])
def test_the_area_under_every_plotted_pro_is_the_stated_aupro(
    result: CategoryResult, limit: float, name: str
) -> None:
    figure = pro_figure(result)
    for curve, seed in zip(curves_of(figure), result.seeds, strict=True):
        x, y = up_to(Curve(*curve.T), limit)
        assert x[-1] == limit
        assert np.trapezoid(y, x) / limit == pytest.approx(seed.metrics[name], abs=2e-3)
    mean = np.mean([seed.metrics[name] for seed in result.seeds])
    assert f"AUPRO up to {100 * limit:g} %:  {100 * mean:.1f} ±" in words(figure)


def test_a_curve_is_cut_where_it_is_by_hand() -> None:
    x, y = up_to(Curve(np.array([0, 0.2, 1]), np.array([0, 0.5, 1])), 0.6)
    assert (x.tolist(), y.tolist()) == ([0, 0.2, 0.6], pytest.approx([0, 0.5, 0.75]))


def bars(axes: Axes, *, filled: bool) -> tuple[np.ndarray, np.ndarray]:
    """Heights (K,) and edges (K + 1,) of the bars or of the outline."""
    (steps,) = (p for p in axes.patches if isinstance(p, StepPatch) and p.get_fill() == filled)
    return steps.get_data().values, steps.get_data().edges


def test_bars_right_of_the_threshold_are_the_flagged_images(result: CategoryResult) -> None:
    first = result.seeds[0]
    flagged = first.calibration.flagged(first.scores)
    figure = scores_figure(first.scores, result.defective, first.calibration, ("t", "s"))
    for axes, kind in zip(figure.axes, (~result.defective, result.defective), strict=True):
        heights, edges = bars(axes, filled=True)
        (line,) = axes.lines
        limit = line.get_xdata()[0]
        assert heights.sum() == pytest.approx(1)
        assert np.abs(edges - limit).min() < 1e-9
        assert heights[edges[:-1] > limit - 1e-9].sum() == pytest.approx(flagged[kind].mean())
        assert f"{flagged[kind].sum()} of {kind.sum()} flagged" in words(figure)
    outline, _ = bars(figure.axes[0], filled=False)
    assert outline.sum() == pytest.approx(1)


def calibrated(scores: np.ndarray) -> Calibration:
    return fit(scores, CalibrationConfig(false_alarm_rate=0.1))


@given(
    seed=st.integers(0, 2**16),
    scale=st.sampled_from([1e-4, 1.0, 300.0]),
    shift=st.sampled_from([-7.0, 0.0, 0.55]),
    reach=st.sampled_from([0.0, 1.0, 40.0]),
)
def test_every_score_has_a_bin_whatever_its_scale(
    seed: int, scale: float, shift: float, reach: float
) -> None:
    random = np.random.default_rng(seed)
    calibration = calibrated(shift + scale * random.normal(size=20))
    scores = (shift + scale * (random.normal(size=50) + reach)).astype(np.float32)
    axis = score_axis(scores, calibration)
    assert axis.place(scores).min() >= axis.edges[0] - 1e-9
    assert axis.place(scores).max() <= axis.edges[-1] + 1e-9
    above = axis.edges[:-1] >= axis.place(calibration.threshold) - 1e-9
    share = calibration.flagged(scores).mean()
    assert axis.shares(scores)[above].sum() == pytest.approx(share)
    ticks = axis.place(np.array(axis.ticks()))
    assert len(ticks) >= 2
    assert np.diff(ticks).min() >= 0.06 * (axis.edges[-1] - axis.edges[0]) - 1e-9


def test_scores_that_are_all_the_same_can_be_drawn() -> None:
    same = np.full(20, 3.0, dtype=np.float32)
    figure = scores_figure(same, np.arange(20) > 10, calibrated(same), ("t", "s"))
    assert Image.open(io.BytesIO(style.png(figure))).size == SIZE


def test_shown_are_the_worst_good_images_and_a_spread_of_defects() -> None:
    scores = np.array([5.0, 1.0, 4.0, 3.0, 2.0, *range(10, 27)])
    defective = np.arange(22) >= 5
    assert choose(scores, defective).tolist() == [0, 2, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21]
    assert choose(np.array([2.0, 1.0, 3.0]), np.array([True, False, True])).tolist() == [1, 0, 2]


def test_every_picture_stands_in_the_grid_pixel_by_pixel(result: CategoryResult) -> None:
    tiles = [
        Tile(**{**vars(tile), "pixels": np.full((32, 32, 3), 20 * i, np.uint8)})
        for i, tile in enumerate(result.tiles)
    ]
    picture = np.asarray(Image.open(io.BytesIO(style.png(grid_figure(tiles, ("t", "s"))))))
    assert picture.shape[:2] == grid_size(tiles)[::-1]
    row = SIDE + CAPTION
    places = [(0, 0), (0, 2), (row + SECTION, 1), (3 * row + SECTION, 2)]
    for (down, column), index in zip(places, (0, 2, 4, 11), strict=True):
        top, left = HEAD + SECTION + down, style.MARGIN + column * (2 * SIDE + PAIR_GAP + 32)
        assert (picture[top : top + SIDE, left : left + SIDE] == 20 * index).all()


def test_a_grid_says_score_decision_and_defect(result: CategoryResult) -> None:
    said = words(grid_figure(result.tiles, ("gear", "seed 0")))
    for tile in result.tiles:
        decision = "flagged" if tile.score > result.seeds[0].calibration.threshold else "not"
        assert re.search(rf"^{decimal(tile.score)} {decision}", said, re.MULTILINE)
    assert said.count("\ndent") == 9


def test_files_are_pictures_of_the_stated_size(result: CategoryResult) -> None:
    files = draw(result)
    sizes = {"roc": CURVE_SIZE, "pro": CURVE_SIZE, "scores": SIZE}
    sizes["heatmaps"] = grid_size(result.tiles)
    assert files.keys() == {f"{name}.png" for name in sizes}
    for name, size in sizes.items():
        picture = Image.open(io.BytesIO(files[f"{name}.png"]))
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", size)
        assert len(set(picture.convert("L").tobytes())) > 20  # not blank


def test_without_masks_there_is_no_pro() -> None:
    assert draw(category_result(num_seeds=1, with_masks=False)).keys() == {
        "roc.png",
        "scores.png",
        "heatmaps.png",
    }


def test_a_name_with_dollars_is_no_formula(result: CategoryResult) -> None:
    tile = Tile(**{**vars(result.tiles[-1]), "defect": "$x_{1$"})
    assert len(style.png(grid_figure([tile], ("$a$", "$b_{$")))) > 1000


def test_drawing_is_the_same_in_every_thread_and_leaves_pyplot_alone(
    result: CategoryResult,
) -> None:
    import sys

    drawn: list[dict[str, bytes]] = []
    threads = [threading.Thread(target=lambda: drawn.append(draw(result))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert drawn[0] == drawn[1] == draw(result)
    assert "matplotlib.pyplot" not in sys.modules


def test_a_name_of_57_letters_and_large_counts_stay_inside_the_picture() -> None:
    result = dataclasses.replace(category_result(num_seeds=2), category="housing-cover_" * 4 + "x")
    many = dataclasses.replace(result, samples=result.samples[-1:] * 99_999)
    for figure in (roc_figure(many), pro_figure(many)):
        style.png(figure)  # lays the text out
        for text in figure.texts:
            assert text.get_window_extent().x1 < CURVE_SIZE[0]
