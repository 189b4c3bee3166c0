"""What became of many categories: on record, as a page, and what it says of a next onboarding."""

import datetime as dt
import json
import threading
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

from jobs.onboard.onboard import OnboardingOptions, onboard
from pipeline import storage
from pipeline.onboarding.overview import (
    PAGE_FILE,
    OverviewError,
    add_to_overview,
    failed_categories,
    overview_page,
    read_overview,
    rename_in_overview,
    take_out_of_overview,
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


def test_commands_that_end_at_once_keep_each_others_lines(runs: str) -> None:
    names = [f"c{n}" for n in range(8)]
    start = threading.Barrier(len(names))

    def add(name: str) -> None:
        start.wait(30)
        add_to_overview(runs, [outcome(name)], NOW)

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(add, names))
    assert sorted(read_overview(runs)) == [*names, "few", "steel"]
    page = Path(runs, PAGE_FILE).read_text()
    assert all(f"<th>{name}</th>" in page for name in names)


def test_a_page_written_by_a_slow_command_has_the_lines_of_a_faster_one(
    runs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, others = storage.write_bytes, iter(["fast"])

    def write_slowly(uri: str, data: bytes) -> None:
        if uri.endswith(PAGE_FILE):
            for name in others:
                add_to_overview(runs, [outcome(name)], NOW)
        write(uri, data)

    monkeypatch.setattr(storage, "write_bytes", write_slowly)
    add_to_overview(runs, [outcome("slow")], NOW)
    page = Path(runs, PAGE_FILE).read_text()
    assert all(f"<th>{name}</th>" in page for name in ("fast", "few", "slow", "steel"))


def test_a_category_is_renamed_and_taken_out(runs: str) -> None:
    assert rename_in_overview(runs, "few", "oak", NOW)
    for _ in range(2):
        take_out_of_overview(runs, "steel", NOW)
    assert list(read_overview(runs)) == ["oak"]
    assert "<th>steel</th>" not in Path(runs, PAGE_FILE).read_text()


def test_a_category_whose_file_is_damaged_is_taken_out(runs: str) -> None:
    Path(runs, "onboardings/steel.json").write_text("{")
    take_out_of_overview(runs, "steel", NOW)
    assert list(read_overview(runs)) == ["few"]


def test_an_overview_that_cannot_be_written_stops_no_onboarding(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert onboard([], OnboardingOptions(runs="s3://bucket/runs")) == []
    assert "the overview could not be written: s3://bucket/runs" in caplog.text


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
    promoted = unchanged | {"is_champion": True}
    add_to_overview(runs, [outcome("steel", gate="not asked", is_champion=False)], NOW)
    add_to_overview(runs, [unchanged], NOW)
    assert read_overview(runs)["steel"]["gate"] == "not asked"
    add_to_overview(runs, [promoted], NOW)  # by hand, meanwhile
    assert read_overview(runs)["steel"]["gate"] is None
    add_to_overview(runs, [unchanged | {"version": "4"}], NOW)  # made by somebody else
    assert read_overview(runs)["steel"]["counts"] is None


def test_without_a_record_there_is_nothing_that_failed(tmp_path: Path) -> None:
    with pytest.raises(OverviewError, match="nothing was onboarded"):
        failed_categories(str(tmp_path))


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        '{"categories": [1]}',
        '{"categories": {"a": 1}}',
        '{"categories": {"a": {}}}',
        '{"categories": {"a": {"status": "failed", "when": "2026-01-01", "timings_s": 3}}}',
    ],
)
def test_a_damaged_record_is_told_and_does_not_stop_an_onboarding(
    runs: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = "onboardings/wood.json"
    Path(runs, name).write_text(damage)
    with pytest.raises(OverviewError, match=f"{name} is damaged; delete it"):
        failed_categories(runs)
    add_to_overview(runs, [outcome("few")], NOW)
    assert f"{name} is damaged and left out" in caplog.text
    assert Path(runs, name).read_text() == damage
    add_to_overview(runs, [outcome("wood", "failed")], NOW)  # with a file of its own
    assert failed_categories(runs) == ["wood"]


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
