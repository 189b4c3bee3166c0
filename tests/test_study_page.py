"""The page of a study: what it says, that nothing in it is a script, and how it looks."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser
from report_visit import open_browser
from studied import make_study, record, repeat
from test_report_browser import DESKTOP, PHONE

from pipeline.study.answer import answer
from pipeline.study.check import correlations, paired
from pipeline.study.choice import DEFAULT
from pipeline.study.page import headline, interval, settings_line, study_page
from pipeline.study.records import TrialStatus

HOSTILE = "<script>alert('a')</script>"


def found(folder: Path) -> dict[str, Any]:
    """An answer of twenty trials of two categories."""
    study = make_study(folder, ("steel", "brass"))
    records = []
    for number in range(20):
        sigma = 0.2 * 1.15**number
        configuration = {"sigma": sigma, "layers": [2] if number % 3 else [2, 3]}
        values = {"steel": 0.9 - (sigma - 1) ** 2 / 20, "brass": 0.5 + number / 100}
        records.append(record(f"t{number}", configuration, values, rungs=3 if number % 2 else 1))
    records[0].status, records[0].error, records[0].rungs = TrialStatus.FAILED, HOSTILE, []
    repeats = [
        repeat(configuration, value + number / 50, number, name)
        for name in ("steel", "brass")
        for configuration, value in ((DEFAULT, 0.7), (records[9].configuration, 0.8))
        for number in (1, 2, 3)
    ]
    measured = [
        (each, {"steel": {"image_auroc": 0.9 + number / 500, "aupro": 0.5}})
        for number, each in enumerate(records)
        if each.rungs
    ]
    cost = {
        "images": {"steel-1": 76, "brass-1": 76},
        "backbone_passes": {"steel-1": 76, "brass-1": 76},
        "seconds": {"features": 4.0, "search": 400.0},
    }
    check = correlations(measured)
    sides = [[{"image_auroc": value + n / 100} for n in range(3)] for value in (0.9, 0.8)]
    check["steel"]["best_over_default"] = paired(*sides)
    return answer(study, records, repeats) | {
        "check": check,
        "failed_categories": {"few": f"few: 5 good images {HOSTILE}"},
        "cost": cost,
    }


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return found(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as running:
        yield running


def test_the_page_says_what_was_found_and_by_what_it_was_judged(told: dict[str, Any]) -> None:
    page = study_page(told)
    assert "The best settings raise the objective by 0.100 on the mean over categories" in page
    assert "2 of 2 change beyond chance" in page
    assert "synthetic anomalies" in page
    assert page.count("<circle") == 3 * 19  # two sigma curves and a check, without the failed trial
    for heading in ("Answer", "What matters", "Noise", "Decision thresholds", "Check on test"):
        assert f">{heading}" in page
    assert "needs 49 held-out good images" in page
    assert "0.910 [0.885, 0.935]" in page  # mean of 0.90, 0.91, 0.92 +- 4.303 x 0.01 / sqrt(3)
    assert ", 19 trials" in page  # of the check, with its interval


def test_what_comes_from_outside_is_text(told: dict[str, Any]) -> None:
    page = study_page(told)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "default-src 'none'" in page
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)


def test_without_labels_trials_or_gains_the_page_still_says_so(told: dict[str, Any]) -> None:
    page = study_page(told | {"check": {}})
    assert "No category has labelled test images" in page
    luck = {
        "configuration": {},
        "best": {"over_default": {"mean": 0.01}},
        "regret_of_one_for_all": {"mean": 0.0},
    }
    assert headline({"categories": {"steel": luck}}).endswith("all stay as they are.")


def test_numbers_are_written_as_people_read_them() -> None:
    assert settings_line({}) == "as the catalogue has it"
    assert settings_line({"sigma": 1.23456, "layers": [2, 3]}) == "sigma 1.23, layers 2+3"
    assert interval({"mean": 0.5, "low": 0.25, "high": 0.75}) == "0.500 [0.250, 0.750]"
    assert interval({"mean": 0.5, "low": None, "high": None}, "+") == "+0.500"


@pytest.mark.browser
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_page_fits_a_screen_and_needs_nothing_beside_itself(
    browser: Browser, told: dict[str, Any], tmp_path: Path, size: tuple[int, int]
) -> None:
    path = tmp_path / "study.html"
    path.write_text(study_page(told))
    context = browser.new_context(viewport={"width": size[0], "height": size[1]})
    page = context.new_page()
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text))
    page.goto(path.as_uri())
    page.locator("summary").click()
    assert page.locator("details tbody tr").count() == 20
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert asked == [path.as_uri()]
    assert wrong == []
    context.close()
