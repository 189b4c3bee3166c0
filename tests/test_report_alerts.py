"""A category that has shifted as a whole is one alert, not a flood of images."""

from pathlib import Path
from typing import Any

import pytest
from night_maker import HOSTILE_NAMES, NightMaker
from test_report import Element, read

from pipeline.night.summary import read_summary
from pipeline.report import alerts as report_alerts
from pipeline.report.alerts import make_alerts
from pipeline.report.writing import write_report

MOVED = {"alert": True, "reason": "darker than calibration", "score_ks": 0.41, "score_psi": 0.9}


def with_drift(maker: NightMaker, drift: dict[str, Any]) -> Element:
    return read(write_report(maker.write(drifts=drift)))


def two_categories(folder: Path) -> NightMaker:
    maker = NightMaker(folder)
    for category in ("bottle", "cable"):
        maker.add_champion(category)
        for index in range(30):
            maker.add_scored(category, f"good{index}.png", 0.5)
    for index in range(5):
        maker.add_scored("cable", f"bad{index}.png", 3.0)
    return maker


def test_a_night_without_drift_raises_no_alert(tmp_path: Path) -> None:
    page = with_drift(two_categories(tmp_path), {"bottle": {"alert": False, "score_ks": 0.1}})
    assert page.all("section", "alerts") == []
    assert page.all("html")[0].attributes["data-folded"] == "[]"


def test_an_alert_comes_first_and_folds_its_images_away(tmp_path: Path) -> None:
    page = with_drift(two_categories(tmp_path), {"cable": MOVED})
    assert [section.attributes["aria-labelledby"] for section in page.all("section")] == [
        "alerts", "categories", "audit", "images",
    ]  # fmt: skip
    [alert] = page.all("li", "alert")
    assert alert.all("h3")[0].text == "cable"
    assert alert.all("p")[0].text == "darker than calibration"
    assert alert.all("p", "measures")[0].text == "score KS 0.410score PSI 0.900"
    assert alert.all("p", "folded")[0].text.startswith("5 images folded away, 5 flagged")
    assert page.all("article", "card")[0].all("p", "label")[0].text == "Shifted as a whole"
    assert page.all("html")[0].attributes["data-folded"] == "[0]"
    verdict = page.all("p", "verdict")[0].text
    assert verdict.endswith("; cable has shifted as a whole.")


def test_a_category_that_shifted_stands_before_one_with_more_flags(tmp_path: Path) -> None:
    page = with_drift(two_categories(tmp_path), {"bottle": MOVED})
    assert [card.all("h3")[0].text for card in page.all("article", "card")] == ["bottle", "cable"]
    verdict = page.all("p", "verdict")[0].text
    assert verdict.endswith("; bottle has shifted as a whole, and cable stands out.")
    assert page.all("p", "folded")[0].text == "None of its images was notable"


@pytest.mark.parametrize("text", HOSTILE_NAMES)
def test_the_words_of_an_alert_are_text(tmp_path: Path, text: str) -> None:
    page = with_drift(two_categories(tmp_path), {"cable": {"alert": True, "reason": text}})
    assert len(page.all("script")) == 1
    assert page.all("li", "alert")[0].all("h3")[0].text == "cable"


def test_many_alerts_leave_room_for_the_page(tmp_path: Path) -> None:
    maker = NightMaker(tmp_path)
    names = [f"c{index:02d}" for index in range(report_alerts.MAX_SHOWN + 4)]
    for name in names:
        maker.add_champion(name)
        maker.add_scored(name, "1.png", 0.5)
    page = with_drift(maker, dict.fromkeys(names, MOVED))
    [section] = page.all("section", "alerts")
    assert len(section.all("li", "alert")) == len(names)
    [folded] = section.all("details")
    assert len(folded.all("li", "alert")) == 4
    assert folded.all("summary")[0].text == "4 more"


def test_only_an_alert_is_an_alert_and_what_was_not_compared_is_no_measure(tmp_path: Path) -> None:
    maker = two_categories(tmp_path)
    drifts = {"bottle": {"score_ks": 0.9}, "cable": {"alert": True, "score_ks": 0.5}}
    summary = read_summary(maker.write(drifts=drifts))
    [alert] = make_alerts(["bottle", "cable"], summary, {"cable": (7, 2)})
    assert (alert.position, alert.num_images, alert.num_flagged) == (1, 7, 2)
    assert alert.measures == [("score KS", 0.5)]
    assert alert.reason == "no reason was given"
