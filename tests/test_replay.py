"""Past nights with another version: what is scored again, what is compared, and what stays."""

import dataclasses
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from command_line import Run
from factory import write_images

from jobs.night import replay as replaying
from jobs.night import score as job
from jobs.night.scoring_worker import ScoringWorker
from model.preprocessing import Preprocessing
from pipeline import storage
from pipeline.calibration import CalibrationConfig, fit
from pipeline.labels.label import Label, to_rows
from pipeline.labels.label_table import LabelTable
from pipeline.night.folder import NightFolder
from pipeline.night.results import read_night
from pipeline.night.scoring.plan import NightPlan
from pipeline.package import Package
from pipeline.registry import models
from pipeline.replay.difference import ReplayedNight, differences
from pipeline.replay.replay_page import headline, replay_page

NIGHTS = ("2026-03-10", "2026-03-11", "2026-03-14")
ROW = {"image_uri": "a", "category": "steel", "status": "ok", "p_value": 0.5, "flagged": False}


def rows(*changes: dict[str, Any], version: str = "1") -> pa.Table:
    return pa.Table.from_pylist([{**ROW, "model_version": version, **each} for each in changes])


def test_what_either_flags_alone_is_counted_by_what_people_say() -> None:
    then = rows(
        {"image_uri": "found", "flagged": True, "p_value": 0.01},
        {"image_uri": "missed"},
        {"image_uri": "alarm", "flagged": True, "p_value": 0.02},
        {"image_uri": "worse", "flagged": True, "p_value": 0.001},
        {"image_uri": "gone", "flagged": True},
        {"image_uri": "never", "status": "unreadable", "p_value": None, "flagged": None},
        {"image_uri": "not replayed"},
    )
    now = rows(
        {"image_uri": "found", "flagged": True, "p_value": 0.005},
        {"image_uri": "missed", "flagged": True, "p_value": 0.03},
        {"image_uri": "alarm"},
        {"image_uri": "worse"},
        {"image_uri": "gone", "status": "missing", "p_value": None, "flagged": None},
        {"image_uri": "never"},
        version="2",
    )
    labels = {"missed": "defect", "alarm": "good"}
    night = ReplayedNight(night=NIGHTS[0], then=then, now=now, labels=labels)
    (found,) = differences([night])
    assert (found.versions_then, found.version_now) == ({"1"}, "2")
    assert (found.num_images, found.num_gone) == (4, 1)
    assert (found.flagged_then, found.flagged_now) == (3, 2)
    assert dict(found.newly) == {"defect": 1}
    assert dict(found.no_longer) == {"good": 1, "": 1}
    assert [image.image_uri for image in found.no_longer_flagged] == ["worse", "alarm"]
    document = found.to_json()
    assert document["no_longer"] == {"defect": 0, "good": 1, "unsure": 0, "no label": 1}
    assert json.loads(json.dumps(document)) == document


def test_nights_add_up_by_category() -> None:
    nights = [
        ReplayedNight(
            night=night,
            then=rows({}, {"image_uri": "b", "category": "wood"}, version=version),
            now=rows({"flagged": True}, {"image_uri": "b", "category": "wood"}, version="3"),
            labels={},
        )
        for night, version in zip(NIGHTS, "122", strict=True)
    ]
    steel, wood = differences(nights)
    assert (steel.category, wood.category) == ("steel", "wood")
    assert steel.versions_then == {"1", "2"}
    assert [image.night for image in steel.newly_flagged] == list(NIGHTS)
    assert headline([steel, wood]).startswith("Of 6 images 3 would have been flagged that were not")
    assert headline([wood]) == "Of 3 images none would have been decided otherwise."


def test_a_page_has_no_script_and_spells_out_hidden_characters(tmp_path: Path) -> None:
    hostile = f"{tmp_path}/<script>\u202e.png"
    night = ReplayedNight(
        night=NIGHTS[0],
        then=rows({"image_uri": hostile}),
        now=rows({"image_uri": hostile, "flagged": True}),
        labels={},
    )
    found = differences([night])
    told = {"nights": [NIGHTS[0]], "fleet": "f" * 64, "with": "the challengers"}
    page = replay_page(told, found, {"steel": Preprocessing()})
    assert "&lt;script&gt;\\u202e.png" in page
    assert "<script" not in page
    assert "no picture" in page
    assert "flagged now, not then" in page


class Plant:
    """Three nights of six images of each of two categories, scored by version 1."""

    def __init__(self, root: Path, package: Package, run: Run) -> None:
        self.root, self.out, self.package, self.run = root, str(root / "out"), package, run

    def register(self, category: str, key: str, threshold: float) -> models.RegisteredVersion:
        """Register the same heads with another threshold."""
        calibration = fit(np.full(19, threshold), CalibrationConfig(false_alarm_rate=0.2))
        reference = dataclasses.replace(self.package.reference, calibration=calibration)
        folder = self.root / f"{category}-{key}"
        dataclasses.replace(self.package, reference=reference).write(folder, {})
        return models.register(category, f"{category}-{key}", folder)

    def replay(self, *more: object) -> dict[str, Any]:
        span = f"{NIGHTS[0]}..{NIGHTS[1]}"
        answer = self.run("replay", self.out, "--nights", span, "--json", *more)
        assert answer.code == 0, answer.err
        found: dict[str, Any] = json.loads(answer.out)
        return found

    def rows(self, night: str, place: str | None = None) -> pa.Table:
        return read_night(NightFolder(place or self.out, night))


HIGH, LOW = 1e6, -1e6  # thresholds that flag nothing, and everything


@pytest.fixture
def plant(
    tmp_path: Path, package: Path, run: Run, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> Plant:
    def score(plan: NightPlan, folder: NightFolder) -> int:
        worker = ScoringWorker(folder, threads=1, heads_bytes=10**9)
        return sum(written.num_scored for written in worker.write(list(plan.tasks)))

    monkeypatch.setattr(job, "_score", score)
    for module in (job, replaying):
        monkeypatch.setattr(module, "cluster", nullcontext)
    made = Plant(tmp_path, Package.read(package), run)
    for category in ("steel", "wood"):
        models.promote(made.register(category, "first", HIGH))
    for number, night in enumerate(NIGHTS):
        dump = tmp_path / f"dump-{night}"
        for category in ("steel", "wood"):
            write_images(dump / category, range(700 + 10 * number, 706 + 10 * number))
        job.score(str(dump), NightFolder(made.out, night))
    return made


def test_past_nights_are_scored_with_the_challenger_once_and_stay_as_they_were(
    plant: Plant,
) -> None:
    plant.register("steel", "second", LOW)
    before = [plant.rows(night) for night in NIGHTS]
    done = plant.replay()
    assert (done["nights"], done["num_scored"]) == (list(NIGHTS[:2]), 12)
    (steel,) = done["found"]  # wood has no challenger
    assert (steel["category"], steel["versions_then"], steel["version_now"]) == (
        "steel",
        ["1"],
        "2",
    )
    assert (steel["num_images"], steel["flagged_then"], steel["flagged_now"]) == (12, 0, 12)
    assert steel["newly"]["no label"] == len(steel["newly_flagged"]) == 12
    assert [plant.rows(night) for night in NIGHTS] == before
    assert plant.rows(NIGHTS[0], done["place"])["model_version"].unique().to_pylist() == ["2"]
    page = storage.read_bytes(done["page"]).decode()
    assert "Of 12 images 12 would have been flagged that were not" in page
    assert page.count("data:image/jpeg") == 12
    assert plant.replay() == done | {"num_scored": 0}


def test_a_replay_that_is_cut_off_is_gone_on_with(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.register("steel", "second", LOW)
    whole = job.score

    def cut_off(dump: str, folder: NightFolder, audit_images: int) -> job.Night:
        if folder.night == NIGHTS[1]:
            raise KeyboardInterrupt
        return whole(dump, folder, audit_images=audit_images)

    with monkeypatch.context() as patched:
        patched.setattr(replaying, "score", cut_off)
        options = replaying.ReplayOptions(out=plant.out, nights=f"{NIGHTS[0]}..{NIGHTS[1]}")
        with pytest.raises(KeyboardInterrupt):
            replaying.replay(options)
    done = plant.replay()
    assert done["num_scored"] == 6
    assert done["found"][0]["num_images"] == 12


def test_labels_and_images_that_are_gone_are_counted(plant: Plant) -> None:
    plant.register("steel", "second", LOW)
    rows = plant.rows(NIGHTS[0]).to_pylist()
    steel = [row for row in rows if row["category"] == "steel"]
    when = steel[0]["scored_at"]
    label = Label(
        image_uri=steel[0]["image_uri"],
        category="steel",
        label="defect",
        night=NIGHTS[0],
        labelled_at=when,
    )
    LabelTable(plant.out).append(to_rows([label]))
    storage.delete(steel[1]["image_uri"])
    (found,) = plant.replay()["found"]
    assert (found["num_images"], found["num_gone"]) == (11, 1)
    assert found["newly"] == {"defect": 1, "good": 0, "unsure": 0, "no label": 10}


def test_a_stored_fleet_is_replayed_and_a_category_can_be_chosen(plant: Plant) -> None:
    for category in ("steel", "wood"):
        models.promote(plant.register(category, "second", LOW))
    digest = json.loads(plant.run("fleet", "pin", plant.out, "--json").out)["pinned"]
    done = plant.replay("--with", digest[:10], "--only", "wood", "--to", plant.root / "place")
    assert [each["category"] for each in done["found"]] == ["wood"]
    assert Path(done["place"]).parent == plant.root / "place"
    assert [each["category"] for each in plant.replay("--with", digest)["found"]] == [
        "steel",
        "wood",
    ]


def test_each_fleet_has_a_place_of_its_own_wherever_it_is_sent(plant: Plant) -> None:
    plant.register("steel", "second", LOW)
    first = plant.replay("--to", plant.out)
    plant.register("steel", "third", HIGH / 2)
    second = plant.replay("--to", plant.out)
    assert [done["found"][0]["version_now"] for done in (first, second)] == ["2", "3"]
    assert [done["found"][0]["flagged_now"] for done in (first, second)] == [12, 0]
    pinned = json.loads(plant.run("fleet", "show", plant.out, "--json").out)["pinned"]
    assert pinned is None


def test_a_category_that_has_another_name_now_is_replayed_under_the_old_one(plant: Plant) -> None:
    plant.register("steel", "second", LOW)
    assert plant.run("category", "rename", "steel", "iron", "--out", plant.out).code == 0
    (found,) = plant.replay("--only", "iron")["found"]
    assert (found["category"], found["num_images"], found["flagged_now"]) == ("steel", 12, 12)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nights", "2020-01-01..2020-02-01"], "has images of no night from 2020-01-01"),
        (["--nights", "yesterday"], "a night is named by its date"),
        (["--nights", NIGHTS[0], "--only", "gold"], "no version of gold is challenger"),
        (["--nights", NIGHTS[0], "--with", "abcdef"], "0 fleets under"),
        (["--nights", NIGHTS[0]], "no image was scored by another version"),  # it is champion too
    ],
)
def test_what_cannot_be_replayed_is_one_line(plant: Plant, arguments: list[str], said: str) -> None:
    assert said in plant.run("replay", plant.out, *arguments).refusal()
