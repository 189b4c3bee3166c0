"""What became of many categories: on record, as a page, and what it says of a next onboarding."""

import datetime as dt
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from command_line import Run
from factory import make_category, write_catalogue
from mlflow import MlflowClient
from playwright.sync_api import Browser
from report_visit import open_browser
from test_report_browser import DESKTOP, PHONE

from pipeline.onboarding import overview
from pipeline.onboarding.overview import (
    JSON_FILE,
    PAGE_FILE,
    OverviewError,
    add_to_overview,
    failed_categories,
    outcomes_so_far,
    overview_page,
    read_overview,
)

NOW = dt.datetime(2026, 3, 12, 6, 30, tzinfo=dt.UTC)
HOSTILE = "<script>alert('a')</script>"


def outcome(name: str, status: str = "onboarded", **changes: Any) -> dict[str, Any]:
    failed = status == "failed"
    return {
        "category": name,
        "status": status,
        "error": f"{name}: 5 good images {HOSTILE}" if failed else None,
        "version": None if failed else "3",
        "is_champion": not failed,
        "counts": None if failed else {"train": 30, "calibration": 10},
        "metrics": None if failed else {"threshold": 1.25, "image_auroc": 0.987},
        "timings_s": None if failed else {"embedding": 5.0, "training": 3.0},
        "num_files": None if failed else 50,  # with masks
        "findings": None if failed else [f"no masks of {HOSTILE}"],
        **changes,
    }


@pytest.fixture
def runs(tmp_path: Path) -> str:
    add_to_overview(str(tmp_path / "runs"), [outcome("steel"), outcome("few", "failed")], NOW)
    return str(tmp_path / "runs")


def test_commands_that_end_at_once_keep_each_others_lines(
    runs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "ASK_EVERY_S", 0.005)
    names = [f"c{n}" for n in range(8)]
    start = threading.Barrier(len(names))

    def add(name: str) -> None:
        start.wait(30)
        add_to_overview(runs, [outcome(name)], NOW)

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(add, names))
    assert sorted(read_overview(runs)) == [*names, "few", "steel"]


def test_a_command_that_was_killed_at_the_overview_is_waited_for_a_while(
    runs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "ASK_EVERY_S", 0.005)
    monkeypatch.setattr(overview, "HELD_S", 0.02)
    claim = Path(runs) / overview.CLAIM_FILE
    claim.touch()
    assert overview.take_out_of_overview(runs, "few", NOW)
    assert not claim.exists()


def test_a_command_whose_claim_was_taken_leaves_that_of_another(runs: str) -> None:
    claim = Path(runs) / overview.CLAIM_FILE
    with overview._changing(runs):
        claim.write_bytes(b"another's")
    assert claim.read_bytes() == b"another's"


def test_a_claim_that_changes_hands_is_no_old_one(
    runs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long all of them together take, as long as none takes too long alone."""
    claim, turns = Path(runs) / overview.CLAIM_FILE, iter(["second", "third", None])
    claim.write_text("first")

    def next_turn(_: float) -> None:
        assert claim.exists()
        holder = next(turns)
        claim.write_text(holder) if holder else claim.unlink()

    monkeypatch.setattr(overview, "HELD_S", -1.0)
    monkeypatch.setattr(time, "sleep", next_turn)
    assert overview.take_out_of_overview(runs, "few", NOW)
    assert not claim.exists()


def test_the_last_outcome_of_each_category_counts(runs: str) -> None:
    assert failed_categories(runs) == ["few"]
    later = NOW + dt.timedelta(days=1)
    add_to_overview(runs, [outcome("few"), outcome("wood", "failed")], later)
    assert failed_categories(runs) == ["wood"]
    overview = read_overview(runs)
    assert list(overview) == ["few", "steel", "wood"]
    assert (overview["steel"]["when"], overview["few"]["when"]) == (
        "2026-03-12T06:30:00+00:00",
        "2026-03-13T06:30:00+00:00",
    )


def test_a_category_that_has_not_changed_keeps_what_is_known_of_it(runs: str) -> None:
    nothing = dict.fromkeys(("counts", "metrics", "timings_s", "findings"))
    unchanged = outcome("steel", "unchanged", is_champion=False, **nothing)
    add_to_overview(runs, [unchanged], NOW + dt.timedelta(days=1))
    steel = read_overview(runs)["steel"]
    assert steel["counts"] == {"train": 30, "calibration": 10}
    assert steel["when"].startswith("2026-03-12")
    assert not steel["is_champion"]
    add_to_overview(runs, [unchanged | {"version": "4"}], NOW)  # made by somebody else
    assert read_overview(runs)["steel"]["counts"] is None


def test_without_a_record_there_is_nothing_that_failed(tmp_path: Path) -> None:
    with pytest.raises(OverviewError, match="nothing was onboarded"):
        failed_categories(str(tmp_path))


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"categories": [1]}', '{"categories": {"a": 1}}']
)
def test_a_damaged_record_is_one_line_and_does_not_stop_an_onboarding(
    runs: str, damage: str
) -> None:
    Path(runs, JSON_FILE).write_text(damage)
    with pytest.raises(OverviewError, match="is damaged; delete it"):
        failed_categories(runs)
    assert outcomes_so_far(runs) == {}
    add_to_overview(runs, [outcome("few", "failed")], NOW)
    assert failed_categories(runs) == ["few"]


def test_the_page_has_failures_first_and_no_script(runs: str) -> None:
    page = Path(runs, PAGE_FILE).read_text()
    assert "1 of 2 categories failed" in page
    assert page.index('<h2 id="failed">') < page.index('<h2 id="good">')
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;") == 2
    assert "<script" not in page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.mark.browser
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_fits_into_a_window(
    browser: Browser, size: tuple[int, int], tmp_path: Path
) -> None:
    outcomes = [
        outcome(f"category-{n:03}", "failed" if n % 9 == 0 else "onboarded") for n in range(60)
    ]
    overview = {each["category"]: each | {"when": NOW.isoformat()} for each in outcomes}
    path = tmp_path / "page.html"
    path.write_text(overview_page(overview, NOW))
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.goto(path.as_uri())
    assert page.locator("main tbody tr").count() == 60
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert errors == []
    page.close()


def test_a_dry_run_says_what_there_is_to_do_and_does_nothing(
    run: Run, tmp_path: Path, tracking_uri: str
) -> None:
    images = {"steel": make_category(tmp_path / "steel", num_good=24, num_test=2)}
    images["nowhere"] = tmp_path / "nowhere"
    catalogue = write_catalogue(tmp_path / "catalogue.yaml", images)
    answer = run("onboard", catalogue, "--dry-run")
    assert answer.code == 0, answer.err
    assert "to do: 1 of 2 categories" in answer.out
    assert "minutes on one slot; an estimate:" in answer.out
    assert "1 by a few images of steel, on this machine as it is now" in answer.out
    assert "nowhere:" in answer.out
    assert not (tmp_path / "nightshift-runs").exists()
    assert MlflowClient(tracking_uri).get_experiment_by_name("nightshift") is None

    add_to_overview(str(tmp_path / "nightshift-runs"), [outcome("steel")], NOW)
    answer = run("onboard", catalogue, "--dry-run", "--json", "--only", "steel")
    planned = json.loads(answer.out)
    assert planned["categories"]["steel"]["status"] == "to do"
    num_files = planned["categories"]["steel"]["num_files"]
    assert planned["num_files"] == num_files >= 26
    assert planned["seconds_of_one_slot"] == pytest.approx(num_files * 8 / 50)
    assert planned["estimated"] == {"on_record": 1, "by_probe": 0, "unknown": [], "probed": []}

    half = ("--slots", 2, "--price-per-hour", 36)
    planned = json.loads(run("onboard", catalogue, "--dry-run", "--json", *half).out)
    assert planned["seconds"] == pytest.approx(num_files * 8 / 50)  # one category, one slot
    assert planned["cost"] == pytest.approx(2 * 36 * num_files * 8 / 50 / 3600)
    answer = run("onboard", catalogue, "--dry-run", *half)
    assert "minutes on 2 slots, 0." in answer.out
    assert "at 36 for an hour of a slot; an estimate:" in answer.out
    assert "1 categories by what is on record in " in answer.out


def test_only_failed_leaves_the_others_alone(run: Run, tmp_path: Path, tracking_uri: str) -> None:
    images = {name: make_category(tmp_path / name, num_good=4) for name in ("steel", "wood")}
    catalogue = write_catalogue(tmp_path / "catalogue.yaml", images)
    assert "nothing was onboarded" in run("onboard", catalogue, "--only-failed").refusal()
    add_to_overview(
        str(tmp_path / "nightshift-runs"), [outcome("steel"), outcome("wood", "failed")], NOW
    )
    answer = run("onboard", catalogue, "--only-failed", "--dry-run", "--json")
    assert list(json.loads(answer.out)["categories"]) == ["wood"]
