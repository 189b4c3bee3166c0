"""What the command line answers when the work is done already, or can only fail."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from command_line import Run
from factory import make_package, score_without_cluster, write_catalogue

from jobs.cli.printing import print_outcomes
from jobs.onboard.onboard import OnboardingStatus, Outcome
from pipeline import storage
from pipeline.catalogue.catalogue import load_catalogue
from pipeline.night.folder import NightFolder
from pipeline.onboarding.key import onboarding_key
from pipeline.registry import models

NIGHT = "2026-03-12"


@pytest.fixture
def registered(tracking_uri: str, catalogue: Path, tmp_path: Path) -> Path:
    """The catalogue's category is onboarded already."""
    (steel,) = load_catalogue(str(catalogue))
    make_package(tmp_path / "package")
    models.promote(models.register("steel", onboarding_key(steel), tmp_path / "package"))
    return catalogue


def test_what_is_onboarded_already_is_answered_without_a_cluster(
    run: Run, registered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    answer = run("onboard", registered, "--json")
    assert (answer.code, answer.err) == (0, "")
    (outcome,) = json.loads(answer.out)
    assert (outcome["category"], outcome["status"]) == ("steel", "unchanged")
    assert (outcome["model"], outcome["version"]) == ("nightshift.steel", "1")
    assert outcome["is_champion"]


def test_a_category_that_failed_is_listed_and_code_3(run: Run, tmp_path: Path) -> None:
    names = {"gone": tmp_path / "gone", "a-name-of-" + "47-letters-" * 4 + "abc": tmp_path / "n"}
    answer = run("onboard", write_catalogue(tmp_path / "catalogue.yaml", names))
    assert answer.code == 3
    lines = answer.err.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [["nightshift", name] for name in names]
    assert "gone does not exist" in lines[0]
    assert all(len(line) <= 80 for line in answer.out.splitlines())
    assert answer.out.count("failed") == 2


def test_what_was_found_in_the_data_is_told_for_each_category(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = ["defects: 3 scratch", "masks without an image: 1"]
    cup = Outcome(category="cup", status=OnboardingStatus.ONBOARDED, findings=found)
    can = Outcome(category="can", status=OnboardingStatus.UNCHANGED)
    print_outcomes([asdict(cup), asdict(can)])
    told = [line for line in capsys.readouterr().out.splitlines() if ": " in line]
    assert told == ["cup: defects: 3 scratch", "cup: masks without an image: 1"]


@pytest.mark.parametrize("flag", ["--promote", "--no-promote"])
def test_an_answer_fits_into_eighty_columns(run: Run, registered: Path, flag: str) -> None:
    answer = run("onboard", registered, flag)
    assert (answer.code, answer.err) == (0, "")
    heading, rule, row = (line.split() for line in answer.out.splitlines() if line.strip())
    assert " ".join(heading) == "category status version train held out threshold AUROC"
    assert set("".join(rule)) == {"─"}
    assert row == ["steel", "unchanged", "1", "champion", "-", "-", "-", "-"]


@pytest.fixture
def scored(registered: Path, dump: Path, tmp_path: Path) -> Path:
    """A night that is scored but for its report; one of its images is damaged."""
    (dump / "steel/damaged.png").write_text("no image")
    (dump / "steel/damaged.png.json").write_text("{}")
    folder = NightFolder(str(tmp_path / "out"), NIGHT)
    score_without_cluster(dump, folder, {"steel": tmp_path / "package"})
    return tmp_path / "out"


def test_a_night_that_is_scored_already_is_answered_without_a_cluster(
    run: Run, scored: Path, dump: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    arguments = ["score", dump, "--out", scored, "--night", NIGHT]
    answer = run(*arguments, "--json")
    assert (answer.code, answer.err) == (3, "")
    document = json.loads(answer.out)
    assert document["totals"] == {"ok": 3, "unreadable": 1}
    assert (document["scored_now"], document["images_per_s"]) == (0, 0)
    assert 0 < document["seconds"] < answer.seconds
    assert storage.exists(document["report"])
    assert document["other_files"] == {".json": 1}
    table = run(*arguments)
    assert "no images, not read: 1 .json" in table.out.splitlines()
    assert table.out.splitlines()[-1] == f"report: {document['report']}"
    category, images, flagged, _, failed, *_ = table.out.split("─")[-1].split()
    assert (category, images, failed) == ("steel", "4", "1")
    assert int(flagged) == document["flagged"]
    assert run("report", scored, "--night", NIGHT).out.strip() == document["report"]


def test_a_night_without_failures_is_code_0_and_forgets_what_is_not_in_the_dump_any_more(
    run: Run, scored: Path, dump: Path, tmp_path: Path
) -> None:
    (dump / "steel/damaged.png").unlink()
    folder = NightFolder(str(scored), NIGHT)
    score_without_cluster(dump, folder, {"steel": tmp_path / "package"})
    answer = run("score", dump, "--out", scored, "--night", NIGHT, "--json")
    assert (answer.code, json.loads(answer.out)["totals"]) == (0, {"ok": 3})
