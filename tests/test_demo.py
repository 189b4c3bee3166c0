"""The demo from its first line to the commands that it prints, as a newcomer runs it."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Run, runner

from jobs.demo.demo import open_shell, run_demo, servers
from jobs.demo.material import FIRST_NIGHT, SECOND_NIGHT, Cell, read_cells
from pipeline.night.folder import NightFolder
from pipeline.night.results import read_night

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

# Small images and heads. Trained any less, the heads of parts of the images, which calibrate, would
# score unlike the head of all, and an ordinary night would look like drift.
HASTY = {
    "resize": 96,
    "crop": 96,
    "training": {"batch_rows": 512, "hidden": 128, "members": 2, "image_head": False},
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
    commands = [line for line in lines if re.match(r"nightshift (?!demo)", line)]
    names = [shlex.split(command)[1] for command in commands]
    assert names == ["explain", "labels", "fleet", "export", "score"]
    return commands


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


def check_nights(out: Path, guide: str) -> None:
    """What is true of the nights of every demo, short or whole, and of the pages it names."""
    folders = [NightFolder(str(out / "results"), night) for night in (FIRST_NIGHT, SECOND_NIGHT)]
    statuses = [read_night(folder)["status"].to_pylist() for folder in folders]
    assert (statuses[0].count("unreadable"), statuses[0].count("unrouted")) == (3, 1)
    assert set(statuses[1]) == {"ok"}
    for night in (FIRST_NIGHT, SECOND_NIGHT):
        [page] = [line.strip() for line in guide.splitlines() if f"night={night}/index" in line]
        assert Path(page).is_file()
        summary = json.loads((out / f"results/summary/night={night}/summary.json").read_text())
        assert summary["drifted"] == (["solar-poly"] if night == SECOND_NIGHT else [])


def check_commands(out: Path, said: str) -> None:
    """What the printed commands leave and say."""
    assert "difference 0\n" in said
    assert (out / "why.png").is_file()
    assert (out / "solar-mono.onnx").is_file()
    assert f"night {FIRST_NIGHT}: " in said


def test_a_demo_of_few_cells_leaves_what_its_commands_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands run in this process, where they start sooner; one also in the demo's shell."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "demo"
    assert run_demo(out, some(read_cells(), 100, 30), HASTY)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    guide = capsys.readouterr().out
    check_nights(out, guide)
    commands = printed_commands(guide)
    monkeypatch.chdir(out)
    run = runner(monkeypatch, capsys)
    with servers(out):
        answers = [run(*shlex.split(command)[1:]) for command in commands]
    assert [answer.code for answer in answers] == [0] * len(commands), answers
    assert "images/s" not in answers[-1].err  # the night was found scored
    check_commands(out, "".join(answer.out for answer in answers))
    shell = tmp_path / "shell"
    shell.write_text(f"#!/bin/sh\n{commands[1]} > said\n")
    shell.chmod(0o700)
    monkeypatch.setenv("SHELL", str(shell))
    assert open_shell(out) == 0
    assert f"night {FIRST_NIGHT}: 0 new labels, 0 changed, " in (out / "said").read_text()


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
    out = tmp_path / "nightshift-demo"
    check_nights(out, done.stdout)
    shell = in_the_demos_shell(out, printed_commands(done.stdout))
    assert shell.returncode == 0, shell.stderr
    assert "images/s" not in shell.stderr  # the night was found scored
    check_commands(out, shell.stdout)
    assert (
        "More than false alarms"
        in next(
            Path(tmp_path, f"nightshift-demo/results/report/night={FIRST_NIGHT}").glob("index.html")
        ).read_text()
    )


def test_a_shell_without_a_demo_is_refused(run: Run, tmp_path: Path) -> None:
    assert "Run `nightshift demo` first" in run("demo", "--shell").refusal()
