"""The first nights of a version: what is out of the ordinary stands on top, with the way back."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from night_maker import NIGHT, NightMaker
from test_report import read
from test_report_alerts import MOVED, two_categories

from pipeline.night.fleet import hold
from pipeline.night.fleet.fleet import Fleet
from pipeline.night.folder import NightFolder
from pipeline.report.writing import write_report

NIGHTS = ["2026-03-05", "2026-03-08", "2026-03-09", "2026-03-10"]
EARLIER = ["2026-03-01", "2026-03-02", "2026-03-03"]
OTHER = {"model_version": "7", "model_digest": "0" * 64}


def scored_before(maker: NightMaker, **others: list[str]) -> None:
    """Earlier nights with the same champions, but on some another version of a category."""
    for night in [*EARLIER, *NIGHTS]:
        champions = {
            name: replace(champion, **OTHER) if night in others.get(name, []) else champion
            for name, champion in maker.champions.items()
        }
        Fleet(champions=champions).write(NightFolder(str(maker.out), night))


def told(maker: NightMaker, *shifted: str) -> list[list[str]]:
    """The lines on top: category, what is said, the command."""
    page = read(write_report(maker.write(drifts=dict.fromkeys(shifted, MOVED))))
    sections = [each for each in page.all("section") if "New champions" in each.text]
    lines = [line for section in sections for line in section.all("li", "alert")]
    return [
        [line.all("h3")[0].text, line.all("p")[0].text.split(". To")[0], line.all("code")[0].text]
        for line in lines
    ]


@pytest.fixture
def maker(tmp_path: Path) -> NightMaker:
    """Cable has five flags of 35 images, bottle none; of version 2 and 1."""
    return two_categories(tmp_path)


def test_flags_beyond_chance_of_a_new_version_come_with_the_way_back(maker: NightMaker) -> None:
    scored_before(maker, cable=EARLIER + NIGHTS[:3], bottle=EARLIER + NIGHTS[:3])
    assert [line[:2] for line in told(maker)] == [
        [
            "cable",
            "is flagged more often than false alarms can explain; version 2 scores it since "
            "2026-03-10, before it version 7",
        ]
    ]
    command = shlex.split(told(maker)[0][2])
    assert command[:6] == ["nightshift", "rollback", "cable", "--to", "7", "--because"]
    assert NIGHT in command[6]


def test_a_shift_counts_as_well_and_stands_above_the_alerts(maker: NightMaker) -> None:
    scored_before(maker, bottle=EARLIER + NIGHTS)
    (line,) = told(maker, "bottle")
    assert line[0] == "bottle"
    assert line[1].startswith("has shifted as a whole; version 1 scores it since 2026-03-1")
    page = read(maker.folder.report)
    names = [section.attributes["aria-labelledby"] for section in page.all("section")]
    assert names[:2] == ["new-champions", "alerts"]


@pytest.mark.parametrize("cable", [[], NIGHTS[:1]])
def test_a_version_that_has_scored_for_three_nights_is_not_new(
    maker: NightMaker, cable: list[str]
) -> None:
    scored_before(maker, cable=cable)
    assert told(maker) == []


@pytest.mark.parametrize("cable", [NIGHTS, NIGHTS[1:3], EARLIER[2:] + NIGHTS])
def test_a_version_that_came_back_is_not_new(maker: NightMaker, cable: list[str]) -> None:
    scored_before(maker, cable=cable)
    assert told(maker) == []


def test_where_a_fleet_is_pinned_the_way_back_is_that_of_the_fleet(maker: NightMaker) -> None:
    scored_before(maker, cable=EARLIER + NIGHTS[:3])
    out = maker.folder.out
    before = Fleet.read(NightFolder(out, NIGHTS[2]).fleet).store(out)
    now = Fleet(champions=maker.champions).store(out)
    hold.hold(out, now)
    assert shlex.split(told(maker)[0][2])[1:] == ["fleet", "pin", out, "--night", NIGHTS[2]]
    hold.hold(out, before)
    hold.hold(out, now)
    assert shlex.split(told(maker)[0][2])[1:] == ["fleet", "rollback", out]


def test_without_earlier_nights_nothing_is_new(maker: NightMaker) -> None:
    assert told(maker, "bottle") == []


def test_a_damaged_fleet_of_an_earlier_night_stops_no_report(maker: NightMaker) -> None:
    scored_before(maker, cable=EARLIER + NIGHTS[:3])
    Path(NightFolder(str(maker.out), NIGHTS[3]).fleet).write_text("{")
    ((category, said, _),) = told(maker)
    assert (category, said.split("since ")[1]) == ("cable", f"{NIGHT}, before it version 7")
