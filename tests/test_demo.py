"""The demo from its first line to the commands that it prints, as a newcomer runs it."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Run

from jobs.demo.demo import run_demo
from jobs.demo.material import FIRST_NIGHT, SECOND_NIGHT, Cell, read_cells
from pipeline.night.folder import NightFolder
from pipeline.night.results import read_night

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

# As little training as possible: the heads find nothing, and everything else is as it is.
HASTY = {
    **{"passes": 2, "steps_per_pass": 2, "batch_rows": 64, "hidden": 8, "members": 2},
    **{"image_head": False, "health": "warn"},
}


def some(cells: list[Cell], num_onboarded: int, num_of_a_night: int) -> list[Cell]:
    """The first so many of each category and night."""
    kept: list[Cell] = []
    for category in ("solar-mono", "solar-poly"):
        for night in ("", FIRST_NIGHT, SECOND_NIGHT):
            own = [cell for cell in cells if (cell.category, cell.night) == (category, night)]
            kept += own[: num_of_a_night if night else num_onboarded]
    return kept


def printed_commands(guide: str) -> list[str]:
    """What the guide says to type once the shell is open."""
    lines = [line.strip() for line in guide.splitlines()]
    return [line for line in lines if re.match(r"nightshift (?!demo)", line)]


def in_the_demos_shell(out: Path, commands: list[str]) -> subprocess.CompletedProcess[str]:
    """Type commands into the shell that the demo opens."""
    return subprocess.run(
        [sys.executable, "-m", "jobs", "demo", "--shell", "--out", str(out)],
        input="set -e\n" + "\n".join(commands),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def check(out: Path, guide: str) -> None:
    """What is true of every demo, short or whole."""
    folders = [NightFolder(str(out / "results"), night) for night in (FIRST_NIGHT, SECOND_NIGHT)]
    statuses = [read_night(folder)["status"].to_pylist() for folder in folders]
    assert (statuses[0].count("unreadable"), statuses[0].count("unrouted")) == (3, 1)
    assert set(statuses[1]) == {"ok"}
    for night in (FIRST_NIGHT, SECOND_NIGHT):
        [page] = [line.strip() for line in guide.splitlines() if f"night={night}/index" in line]
        assert Path(page).is_file()
        summary = json.loads((out / f"results/summary/night={night}/summary.json").read_text())
        assert summary["drifted"] == (["solar-poly"] if night == SECOND_NIGHT else [])
    commands = printed_commands(guide)
    assert [shlex.split(command)[1] for command in commands] == [
        *("explain", "labels", "fleet", "export", "score")
    ]
    done = in_the_demos_shell(out, commands)
    assert done.returncode == 0, done.stderr
    assert "difference 0\n" in done.stdout
    assert (out / "why.png").is_file()
    assert (out / "solar-mono.onnx").is_file()
    assert f"night {FIRST_NIGHT}: " in done.stdout
    assert "images/s" not in done.stderr  # the night was found scored


@pytest.mark.slow
def test_a_demo_of_few_cells_leaves_what_its_commands_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_demo(tmp_path / "demo", some(read_cells(), 100, 40), HASTY)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    check(tmp_path / "demo", capsys.readouterr().out)


@pytest.mark.slow
def test_the_whole_demo_finds_defects(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    check(tmp_path / "nightshift-demo", done.stdout)
    assert (
        "More than false alarms"
        in next(
            Path(tmp_path, f"nightshift-demo/results/report/night={FIRST_NIGHT}").glob("index.html")
        ).read_text()
    )


def test_a_shell_without_a_demo_is_refused(run: Run, tmp_path: Path) -> None:
    assert "Run `nightshift demo` first" in run("demo", "--shell").refusal()
