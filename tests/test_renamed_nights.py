"""Nights before and after a category was renamed or removed."""

import datetime as dt
from collections.abc import Collection
from contextlib import nullcontext
from pathlib import Path

import pytest
from factory import make_fleet, version, write_images
from mlflow import MlflowClient

from jobs.night import score as job
from pipeline.catalogue.rename_table import note_renames, read_renames
from pipeline.catalogue.renames import Rename
from pipeline.category_changes import Places, remove_category, rename_category
from pipeline.night.dumps import take_in
from pipeline.night.feedback.explanation import explain
from pipeline.night.fleet import hold
from pipeline.night.fleet.stand_ins import with_stand_ins
from pipeline.night.folder import NightFolder
from pipeline.night.results import read_shard, stored_shards
from pipeline.night.scoring.plan import NightPlan
from pipeline.promotion.evidence import gather
from pipeline.registry import models
from pipeline.report.writing import write_report

MONDAY, TUESDAY, WEDNESDAY, THURSDAY = (f"2026-03-{day:02}" for day in (9, 10, 11, 12))
NOW = dt.datetime(2026, 3, 9, 12, tzinfo=dt.UTC)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where nights go that are scored in this process."""

    def score(plan: NightPlan, folder: NightFolder) -> int:
        worker = job.ScoringWorker(folder, threads=1, heads_bytes=10**9)
        worker.write(list(plan.tasks))
        return plan.num_images

    monkeypatch.setattr(job, "_score", score)
    monkeypatch.setattr(job, "cluster", nullcontext)
    return str(tmp_path / "out")


def rows(folder: NightFolder) -> list[tuple[str, str, str, str | None]]:
    """Category, status, model and address of each row."""
    tables = [read_shard(folder.shard(name)) for name in sorted(stored_shards(folder))]
    names = ("category", "status", "model_name", "image_uri")
    return [tuple(row[name] for name in names) for table in tables for row in table.to_pylist()]


def test_a_folder_with_the_old_name_is_scored_until_another_category_has_it(
    tracking_uri: str, tmp_path: Path, out: str, packages: dict[str, Path]
) -> None:
    models.promote(models.register("steel", "key", packages["steel"]))
    write_images(tmp_path / "old/steel", range(2))
    write_images(tmp_path / "new/plate", range(2, 3))
    nights = {night: NightFolder(out, night) for night in (MONDAY, TUESDAY, WEDNESDAY, THURSDAY)}

    job.score(str(tmp_path / "old"), nights[MONDAY])
    before = rows(nights[MONDAY])
    assert [row[:3] for row in before] == [("steel", "ok", "nightshift.steel")] * 2
    rename_category("steel", "plate", Places(), NOW)
    assert job.score(str(tmp_path / "old"), nights[MONDAY]).num_scored == 0
    assert rows(nights[MONDAY]) == before
    job.score(str(tmp_path / "old"), nights[TUESDAY])
    job.score(str(tmp_path / "new"), nights[TUESDAY])
    assert sorted({row[:3] for row in rows(nights[TUESDAY])}) == [
        ("plate", "ok", "nightshift.plate"),
        ("steel", "ok", "nightshift.plate"),
    ]
    assert [(each.old, each.new) for each in read_renames(out)] == [("steel", "plate")]

    models.promote(models.register("steel", "another", packages["wood"]))
    job.score(str(tmp_path / "old"), nights[WEDNESDAY])
    assert {row[:3] for row in rows(nights[WEDNESDAY])} == {("steel", "ok", "nightshift.steel")}

    hold.hold(out, hold.digest_of_night(NightFolder(out, TUESDAY)))
    job.score(str(tmp_path / "old"), nights[THURSDAY])  # the fleet that is pinned has its own names
    assert {row[:3] for row in rows(nights[THURSDAY])} == {("steel", "ok", "nightshift.plate")}


def test_a_pinned_fleet_stands_in_as_well(
    tracking_uri: str, tmp_path: Path, out: str, packages: dict[str, Path]
) -> None:
    models.promote(models.register("steel", "key", packages["steel"]))
    write_images(tmp_path / "new/plate", range(1))
    write_images(tmp_path / "old/steel", range(1))
    rename_category("steel", "plate", Places(), NOW)
    job.score(str(tmp_path / "new"), NightFolder(out, MONDAY))
    hold.hold(out, hold.digest_of_night(NightFolder(out, MONDAY)))
    job.score(str(tmp_path / "old"), NightFolder(out, TUESDAY))
    assert [row[:3] for row in rows(NightFolder(out, TUESDAY))] == [
        ("steel", "ok", "nightshift.plate")
    ]


def test_past_nights_need_nothing_of_the_registry(
    tracking_uri: str, tmp_path: Path, out: str, packages: dict[str, Path]
) -> None:
    models.promote(models.register("steel", "key", packages["steel"]))
    write_images(tmp_path / "dump/steel", range(2))
    folder = NightFolder(out, MONDAY)
    summary = job.score(str(tmp_path / "dump"), folder).summary
    uri = rows(folder)[0][3]
    remove_category("steel", Places(outs=[out]), NOW)
    rename_category("steel", "plate", Places(outs=[out]), NOW)
    MlflowClient().delete_registered_model("nightshift.plate")  # not by us
    explanation = explain(str(uri), folder)
    assert explanation.difference == 0
    assert explanation.champion is not None
    assert explanation.champion.model_name == "nightshift.steel"
    again = job.score(str(tmp_path / "dump"), folder)
    assert (again.num_scored, again.summary) == (0, summary)
    assert "steel" in Path(write_report(folder)).read_text()


def test_a_comparison_draws_from_nights_with_the_old_name(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    for night, folder in [(MONDAY, "steel"), (TUESDAY, "plate"), (WEDNESDAY, "steel")]:
        place = tmp_path / night / folder
        place.mkdir(parents=True)
        (place / "1.png").write_bytes(b"listed, not read")
        take_in(str(tmp_path / night), NightFolder(out, night))
    note_renames(out, [Rename(old="steel", new="plate", when=NOW)])
    drawn = {name: gather(name, out, 5, 100, kept_half=False) for name in ("plate", "steel")}
    assert {each.night for each in drawn["plate"]} == {MONDAY, TUESDAY}
    assert {each.night for each in drawn["steel"]} == {WEDNESDAY}  # another one by then


@pytest.mark.parametrize(
    ("categories", "names"),
    [
        (["plate"], {"plate": "plate", "wood": "wood"}),
        (["steel"], {"plate": "plate", "wood": "wood", "steel": "plate"}),
        (["iron", "strange"], {"plate": "plate", "wood": "wood", "iron": "plate"}),
        (["wood"], {"plate": "plate", "wood": "wood"}),  # it was plate's before
    ],
)
def test_only_names_that_are_there_and_nobodys_have_a_stand_in(
    package: Path, categories: Collection[str], names: dict[str, str]
) -> None:
    renames = [
        Rename(old=old, new=new, when=NOW + dt.timedelta(days=day))
        for day, (old, new) in enumerate([("iron", "steel"), ("steel", "wood"), ("wood", "plate")])
    ]
    today = {name: version(name, package) for name in ("plate", "wood")}
    found = with_stand_ins(today, categories, renames)
    assert {name: each.name for name, each in found.items()} == {
        name: f"nightshift.{now}" for name, now in names.items()
    }
    assert {name: each.category for name, each in found.items()} == {name: name for name in names}


def test_a_night_that_has_begun_keeps_its_champion(package: Path, tmp_path: Path) -> None:
    fleet = make_fleet(NightFolder(str(tmp_path), MONDAY), {"steel": package})
    found = with_stand_ins(fleet.champions, ["steel"], [Rename(old="steel", new="wood", when=NOW)])
    assert found == fleet.champions
