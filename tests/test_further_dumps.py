"""A night that comes in several dumps: what is read, which champions score it, what it says.

The job is the real one; its workers are here in this process, so that images read can be counted.
"""

import json
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_line import Run
from factory import version, write_images

from jobs.night import score as job
from jobs.night.scoring_worker import ScoringWorker
from pipeline import storage
from pipeline.images.decode import read_pages
from pipeline.night.fleet import hold
from pipeline.night.fleet.fleet import Fleet
from pipeline.night.fleet.resolve import snapshot_fleet
from pipeline.night.folder import NightFolder
from pipeline.night.results import read_night
from pipeline.night.scoring import file_reader
from pipeline.night.scoring.plan import NightPlan
from pipeline.registry import models

NIGHT = "2026-03-12"
ROWS_PER_SHARD = 4


class Killed(BaseException):
    """The process ends here."""


class Plant:
    """A night of two dumps; ``read`` holds the images that were fetched by the last call."""

    def __init__(self, root: Path) -> None:
        self.early, self.late = root / "b-early", root / "a-late"  # the late one sorts first
        self.folder = NightFolder(str(root / "out"), NIGHT)
        self.read: list[str] = []
        write_images(self.early / "steel", range(700, 706))
        write_images(self.late / "steel", range(710, 713))
        write_images(self.late / "wood", range(10_700, 10_702))

    def score(self, dump: Path | str, *, replace: bool = False) -> job.Night:
        self.read.clear()
        return job.score(str(dump), self.folder, replace=replace, rows_per_shard=ROWS_PER_SHARD)

    def rows(self) -> dict[str, dict[str, Any]]:
        night = read_night(self.folder).to_pylist()
        return {"/".join(row["image_uri"].split("/")[-3:]): row for row in night}

    def versions(self) -> dict[str, set[str | None]]:
        found: dict[str, set[str | None]] = {}
        for row in self.rows().values():
            found.setdefault(row["category"], set()).add(row["model_version"])
        return found

    def hold(self, packages: Mapping[str, Path], number: str) -> None:
        """Pin a fleet whose champions are all of one version."""
        versions = {name: version(name, package, number) for name, package in packages.items()}
        elsewhere = NightFolder(self.folder.out, f"2020-01-{int(number):02d}")
        fleet = snapshot_fleet(
            elsewhere, versions, versions, lambda asked, _: packages[asked.category]
        )
        hold.hold(self.folder.out, fleet.digest)


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plant:
    made = Plant(tmp_path)

    def noted(uri: str, *arguments: Any) -> Any:
        made.read.append("/".join(uri.split("/")[-3:]))
        return read_pages(uri, *arguments)

    def score(plan: NightPlan, folder: NightFolder) -> int:
        worker = ScoringWorker(folder, threads=1, heads_bytes=10**9)
        return sum(written.num_scored for written in worker.write(list(plan.tasks)))

    monkeypatch.setattr(file_reader, "read_pages", noted)
    monkeypatch.setattr(job, "_score", score)
    monkeypatch.setattr(job, "cluster", nullcontext)
    return made


@pytest.fixture
def held(plant: Plant, packages: dict[str, Path]) -> Plant:
    """Champions of version 1 are pinned."""
    plant.hold(packages, "1")
    return plant


def names_below(dump: Path) -> list[str]:
    return sorted(f"{dump.name}/{path.parent.name}/{path.name}" for path in dump.rglob("*.png"))


def same_image(row: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of an image, wherever its row is stored."""
    return {**row, "shard": ""}


def table(plant: Plant) -> dict[str, dict[str, Any]]:
    """The night's rows but for the time at which they were scored."""
    return {name: {**row, "scored_at": None} for name, row in plant.rows().items()}


def test_a_second_dump_is_scored_and_nothing_of_the_first_is_read_again(held: Plant) -> None:
    first = held.score(held.early)
    assert sorted(held.read) == names_below(held.early)
    before = held.rows()
    done = held.score(held.late)
    assert sorted(held.read) == names_below(held.late)
    after = held.rows()
    assert sorted(after) == sorted(names_below(held.early) + names_below(held.late))
    for name, row in before.items():
        assert same_image(after[name]) == same_image(row)
    assert (first.summary["images"], done.summary["images"]) == (6, 11)
    assert done.summary["categories"]["steel"]["images"] == 9
    assert done.summary["totals"] == {"ok": 11}
    assert (done.change.num_before, done.change.num_added, done.num_scored) == (6, 5, 5)
    page = storage.read_bytes(done.report).decode()
    assert "<dt>Images</dt><dd>11</dd>" in page
    for dump in (held.early, held.late, held.folder.manifest):
        assert (held.score(dump).num_scored, held.read) == (0, [])
        assert held.rows() == after


def test_a_prefix_that_is_listed_again_costs_its_new_and_replaced_images_only(held: Plant) -> None:
    held.score(held.late)
    held.score(held.early)
    (held.early / "steel/000700.png").unlink()
    write_images(held.early / "steel", range(699, 700))
    shutil.copy(held.late / "wood/010700.png", held.early / "steel/000703.png")
    done = held.score(held.early)
    assert sorted(held.read) == ["b-early/steel/000699.png", "b-early/steel/000703.png"]
    counts = done.change
    assert (counts.num_added, counts.num_removed, counts.num_changed) == (1, 1, 1)
    assert sorted(held.rows()) == sorted(names_below(held.early) + names_below(held.late))


def test_other_files_are_counted_for_the_whole_night_and_are_no_failures(held: Plant) -> None:
    for name in ("steel/1.json", "steel/2.json", "Thumbs.db"):
        (held.early / name).write_text("x")
    (held.late / "steel/1.json").write_text("x")
    first = held.score(held.early)
    assert (first.num_failed, first.overruns) == (0, ())
    assert first.summary["other_files"] == {".db": 1, ".json": 2}
    assert held.score(held.late).summary["other_files"] == {".db": 1, ".json": 3}
    (held.early / "Thumbs.db").unlink()
    done = held.score(held.early)  # no row has changed, and still the night says what is there
    assert (done.num_scored, done.summary["other_files"]) == (0, {".json": 3})
    assert "not read: 3 .json." in storage.read_bytes(done.report).decode()
    assert json.loads(storage.read_bytes(held.folder.summary))["other_files"] == {".json": 3}


@pytest.fixture
def registry(tracking_uri: str, packages: dict[str, Path]) -> dict[str, Path]:
    """The registry has a champion of steel, version 1."""
    models.promote(models.register("steel", "first-of-steel", packages["steel"]))
    return packages


def test_champions_of_the_night_stay_and_new_categories_take_todays(
    plant: Plant, registry: dict[str, Path]
) -> None:
    plant.score(plant.early)
    models.promote(models.register("steel", "second-of-steel", registry["steel"]))
    models.promote(models.register("wood", "first-of-wood", registry["wood"]))
    plant.score(plant.late)
    assert plant.versions() == {"steel": {"1"}, "wood": {"1"}}
    assert sorted(plant.read) == names_below(plant.late)
    plant.score(plant.early)
    assert (plant.versions()["steel"], plant.read) == ({"1"}, [])
    done = plant.score(plant.folder.manifest, replace=True)
    assert plant.versions() == {"steel": {"2"}, "wood": {"1"}}
    assert {name.split("/")[1] for name in plant.read} == {"steel"}
    assert done.summary["images"] == 11


def test_a_replaced_night_is_its_dump_alone_with_todays_champions(
    plant: Plant, registry: dict[str, Path]
) -> None:
    plant.score(plant.early)
    models.promote(models.register("steel", "second-of-steel", registry["steel"]))
    done = plant.score(plant.late, replace=True)
    assert sorted(plant.rows()) == names_below(plant.late)
    assert plant.versions() == {"steel": {"2"}, "wood": {None}}
    assert done.summary["totals"] == {"ok": 3, "unrouted": 2}


def test_a_category_without_a_champion_gets_one_when_it_is_there(
    plant: Plant, registry: dict[str, Path]
) -> None:
    plant.score(plant.late)
    assert plant.versions()["wood"] == {None}
    models.promote(models.register("wood", "first-of-wood", registry["wood"]))
    plant.score(plant.late)
    assert plant.versions() == {"steel": {"1"}, "wood": {"1"}}


def test_a_pinned_fleet_scores_new_categories_of_a_night_and_not_those_it_has_begun(
    held: Plant, packages: dict[str, Path]
) -> None:
    held.score(held.early)
    held.hold(packages, "2")
    held.score(held.late)
    assert held.versions() == {"steel": {"1"}, "wood": {"2"}}
    held.score(held.folder.manifest, replace=True)
    assert held.versions() == {"steel": {"2"}, "wood": {"2"}}


@pytest.mark.parametrize("replace", [False, True])
def test_a_night_that_is_killed_at_any_step_ends_with_the_same_table(
    plant: Plant, packages: dict[str, Path], monkeypatch: pytest.MonkeyPatch, *, replace: bool
) -> None:
    """Of the champions too: those of the first dump are of version 1, today's of version 2."""
    plant.hold(packages, "1")
    plant.score(plant.early)
    plant.hold(packages, "2")
    begun = Path(f"{plant.folder.out}-begun")
    shutil.copytree(plant.folder.out, begun)
    undisturbed = plant.score(plant.late, replace=replace).summary
    expected, fleet = table(plant), Fleet.read(plant.folder.fleet)
    steps, killed = {name: getattr(storage, name) for name in ("write_bytes", "delete")}, 0
    for last in range(1000):
        shutil.rmtree(plant.folder.out)
        shutil.copytree(begun, plant.folder.out)
        left = last

        def step(name: str, *arguments: Any) -> None:
            nonlocal left
            if left <= 0:
                raise Killed
            left -= 1
            steps[name](*arguments)

        for name in steps:
            monkeypatch.setattr(storage, name, partial(step, name))
        try:
            plant.score(plant.late, replace=replace)
            break  # it was not killed any more
        except Killed:
            killed += 1
        for name, undisturbed_step in steps.items():
            monkeypatch.setattr(storage, name, undisturbed_step)
        assert plant.score(plant.late, replace=replace).summary == undisturbed
        assert table(plant) == expected
        assert Fleet.read(plant.folder.fleet) == fleet
    assert killed > 10  # manifest, fleet, shards, drift, summary, record, report, old shards


def test_the_command_says_what_a_dump_changed_and_refuses_a_contradiction_in_one_line(
    run: Run, held: Plant, tmp_path: Path
) -> None:
    place = ["--out", held.folder.out, "--night", NIGHT]
    assert "the night had" not in run("score", held.early, *place).out
    (held.early / "steel/000700.png").unlink()
    (held.early / "steel/note.txt").write_text("x")
    said = run("score", held.early, *place).out.splitlines()
    assert "the night had 6 images: 0 added, 1 removed, 0 changed" in said
    assert "no images, not read: 1 .txt" in said
    answer = run("score", held.late, *place, "--json")
    document = json.loads(answer.out)
    assert answer.code == 0
    changes = [document[f"images_{what}"] for what in ("added", "removed", "changed")]
    assert (document["images"], changes) == (10, [5, 0, 0])
    corrected = tmp_path / "corrected.csv"
    corrected.write_text(f"image_uri,category\n{held.late}/steel/000710.png,wood\n")
    refusal = run("score", corrected, *place).refusal()
    assert "corrected.csv contradicts what the night has of 1 of its images" in refusal
    assert run("score", corrected, *place, "--replace").code == 0
    assert [row["category"] for row in held.rows().values()] == ["wood"]


def test_csv_and_explanations_are_of_the_whole_night(run: Run, held: Plant) -> None:
    place = ["--out", held.folder.out, "--night", NIGHT]
    run("score", held.early, *place)
    assert run("score", held.late, *place, "--csv", "rows.csv").code == 0
    assert len(Path("rows.csv").read_text().splitlines()) == 1 + 11
    for image in (held.early / "steel/000700.png", held.late / "wood/010700.png"):
        answer = json.loads(run("explain", image, *place, "--json").out)
        assert answer["now"]["difference"] == 0
