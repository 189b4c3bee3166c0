"""Paired tests by hand, by closed form, and by counting every outcome."""

import math

import numpy as np
import pytest
from scipy import stats

from pipeline.promotion.paired_tests import better_p, level_of_look, not_worse_p


@pytest.mark.parametrize(
    ("gained", "lost", "expected"),
    [
        (0, 0, 1.0),
        (1, 0, 1 / 2),
        (5, 0, 1 / 32),
        (0, 5, 1.0),
        (3, 1, 5 / 16),  # of 16 outcomes of four images: 4 with three, 1 with four
        (8, 2, 56 / 1024),  # 45 + 10 + 1
    ],
)
def test_mcnemar_is_the_tail_of_fair_coins(gained: int, lost: int, expected: float) -> None:
    assert better_p(gained, lost) == pytest.approx(expected, rel=1e-12)


def test_mcnemar_agrees_with_scipys_exact_binomial_test() -> None:
    for gained in range(12):
        for lost in range(1, 12):
            other = stats.binomtest(gained, gained + lost, alternative="greater").pvalue
            assert better_p(gained, lost) == pytest.approx(other, rel=1e-9)


@pytest.mark.parametrize(("total", "margin"), [(100, 0.02), (500, 0.01), (3000, 0.001)])
def test_without_a_difference_tangos_test_has_a_closed_form(total: int, margin: float) -> None:
    """z = -n d / sqrt(n d (1 - d)) when no image differs."""
    z = -math.sqrt(total * margin / (1 - margin))
    assert not_worse_p(0, 0, total, margin) == pytest.approx(stats.norm.cdf(z), rel=1e-9)


@pytest.mark.parametrize(("more", "fewer"), [(3, 9), (12, 5), (1, 1)])
def test_at_no_margin_tangos_test_is_mcnemars(more: int, fewer: int) -> None:
    z = (more - fewer) / math.sqrt(more + fewer)
    assert not_worse_p(more, fewer, 200, 1e-12) == pytest.approx(stats.norm.cdf(z), abs=1e-6)


def test_the_constrained_share_maximises_the_likelihood() -> None:
    """The test's variance holds the share at which both counts are likeliest, given the margin."""
    more, fewer, total, margin = 7, 3, 150, 0.05
    shares = np.linspace(1e-6, (1 - margin) / 2 - 1e-6, 400_001)
    likelihood = (
        more * np.log(shares + margin)
        + fewer * np.log(shares)
        + (total - more - fewer) * np.log(1 - 2 * shares - margin)
    )
    share = shares[np.argmax(likelihood)]
    z = (more - fewer - total * margin) / math.sqrt(total * (2 * share + margin * (1 - margin)))
    assert not_worse_p(more, fewer, total, margin) == pytest.approx(stats.norm.cdf(z), abs=1e-5)


@pytest.mark.parametrize("differ", [0.0, 0.005, 0.02, 0.05])
@pytest.mark.parametrize(("total", "margin"), [(300, 0.02), (500, 0.01), (500, 0.05)])
def test_a_rise_by_the_margin_passes_as_seldom_as_is_stated(
    total: int, margin: float, differ: float
) -> None:
    """Every outcome counted: the images that differ are multinomial, and the rise is the margin.

    The test is approximate: where few images differ it passes less than stated or a little more.
    """
    p_fewer = differ / 2
    p_more = p_fewer + margin
    most = 60
    more, fewer = np.meshgrid(np.arange(most), np.arange(most), indexing="ij")
    rest = total - more - fewer
    probability = stats.multinomial.pmf(
        np.stack([more, fewer, rest], axis=-1), total, [p_more, p_fewer, 1 - p_more - p_fewer]
    )
    passes = np.array(
        [
            [not_worse_p(int(m), int(f), total, margin) <= 0.04 for f in range(most)]
            for m in range(most)
        ]
    )
    assert probability.sum() == pytest.approx(1, abs=1e-3)
    assert probability[passes].sum() <= 0.05


def test_no_image_shows_nothing() -> None:
    assert not_worse_p(0, 0, 0, 0.01) == 1.0


def test_the_looks_share_the_level() -> None:
    assert level_of_look(0.05, 1) == pytest.approx(0.04)
    assert level_of_look(0.05, 2) == pytest.approx(0.005)
    assert sum(level_of_look(0.05, look) for look in range(1, 10_000)) == pytest.approx(
        0.05, rel=1e-3
    )
