"""What a rerun of a night has to do: what is missing, failed or changed, and nothing else."""

import dataclasses
import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from factory import make_fleet, with_champion, write_images

from pipeline import storage
from pipeline.images.decode import read_pages
from pipeline.labels.audit import audit_sample
from pipeline.night.fleet.fleet import Fleet
from pipeline.night.folder import NightFolder
from pipeline.night.listing import list_dump
from pipeline.night.manifest import MANIFEST_SCHEMA
from pipeline.night.record import is_reported, note_reported
from pipeline.night.results import by_category, read_night, remove_shards, stored_shards
from pipeline.night.scoring import file_reader
from pipeline.night.scoring import plan as planning
from pipeline.night.scoring.plan import NightPlan, plan_night
from pipeline.night.scoring.scorer import ShardScorer
from pipeline.night.scoring.task import Task
from pipeline.night.settling.settle import settle

NIGHT = "2026-03-12"
ROWS_PER_SHARD = 4
FIRST, SECOND_HEAD_WEIGHT = (dt.datetime(2026, 3, 13, hour, tzinfo=dt.UTC) for hour in (1, 5))


class Factory:
    """A dump of two categories, and nights that are scored as the job does it."""

    def __init__(self, root: Path, packages: dict[str, Path]) -> None:
        self.dump, self.folder = root / "dump", NightFolder(str(root / "out"), NIGHT)
        self.fleet = make_fleet(self.folder, packages)
        write_images(self.dump / "steel", range(700, 706))
        write_images(self.dump / "wood", range(10_700, 10_703))
        self.read: list[str] = []  # images that were fetched

    def plan(self, manifest: pa.Table | None = None) -> NightPlan:
        listed = list_dump(str(self.dump)).images if manifest is None else manifest
        return plan_night(listed, self.fleet, self.folder, ROWS_PER_SHARD)

    def score(self, manifest: pa.Table | None = None, at: dt.datetime = FIRST) -> NightPlan:
        """Returns what was planned; ``read`` holds what was fetched."""
        plan = self.plan(manifest)
        self.read.clear()
        worker = ShardScorer(self.fleet, self.folder, clock=lambda: at)
        worker.write(plan.tasks)
        remove_shards(self.folder, plan.stale)
        settle(self.folder, self.fleet)
        note_reported(self.folder, stored_shards(self.folder))
        return plan

    @property
    def is_reported(self) -> bool:
        return is_reported(self.folder, stored_shards(self.folder))

    def rows(self) -> dict[str, dict[str, Any]]:
        night = read_night(self.folder).to_pylist()
        return {"/".join(row["image_uri"].split("/")[-2:]): row for row in night}


@pytest.fixture
def factory(tmp_path: Path, packages: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Factory:
    made = Factory(tmp_path, packages)

    def noted(uri: str, *arguments: Any) -> Any:
        made.read.append("/".join(uri.split("/")[-2:]))
        return read_pages(uri, *arguments)

    monkeypatch.setattr(file_reader, "read_pages", noted)
    return made


def only_steel(fleet: Fleet, **known: Any) -> Fleet:
    return Fleet(champions={"steel": fleet.champions["steel"]}, **known)


def names(plan: NightPlan) -> list[str]:
    return [task.shard.name.rsplit("-", 1)[0] for task in plan.tasks]


def test_a_finished_night_has_nothing_left_to_do(factory: Factory) -> None:
    assert names(factory.score()) == ["steel-00000", "steel-00001", "wood-00000"]
    assert len(factory.read) == 9
    again = factory.plan()
    assert (again.tasks, again.stale) == ([], frozenset())
    assert again.num_images == 0
    assert factory.is_reported


def test_a_shard_that_is_missing_is_scored_again_to_the_same_rows(factory: Factory) -> None:
    before = factory.score()
    rows = factory.rows()
    remove_shards(factory.folder, [before.tasks[1].name])
    assert names(factory.score()) == ["steel-00001"]
    assert sorted(factory.read) == ["steel/000704.png", "steel/000705.png"]
    assert factory.rows() == rows


def test_a_new_champion_scores_its_own_category_again_and_no_other(factory: Factory) -> None:
    factory.score()
    rows = factory.rows()
    factory.fleet = with_champion(factory.fleet, "wood", model_version="2")
    plan = factory.score(at=SECOND_HEAD_WEIGHT)
    assert names(plan) == ["wood-00000"]
    assert len(plan.stale) == 1
    assert {name.split("/")[0] for name in factory.read} == {"wood"}
    for name, row in factory.rows().items():
        if name.startswith("steel/"):
            assert row == rows[name]
        else:
            assert (row["model_version"], row["scored_at"]) == ("2", SECOND_HEAD_WEIGHT)
            assert row["score"] == rows[name]["score"]


def test_an_unusable_champion_scores_nothing_until_it_is_mended(factory: Factory) -> None:
    whole = factory.fleet
    damaged = only_steel(whole, unusable={"wood": "damaged"})

    def score(fleet: Fleet) -> list[str]:
        factory.fleet = fleet
        return names(factory.score())

    assert score(damaged) == ["steel-00000", "steel-00001", "wood-00000"]
    statuses = {name.split("/")[0]: row["status"] for name, row in factory.rows().items()}
    assert statuses == {"steel": "ok", "wood": "broken_model"}
    assert score(damaged) == ["wood-00000"]  # it may be mended
    assert score(whole) == ["wood-00000"]
    assert {row["status"] for row in factory.rows().values()} == {"ok"}


def test_unusable_and_unrouted_are_different_answers(factory: Factory) -> None:
    listed = list_dump(str(factory.dump)).images
    fleets = only_steel(factory.fleet), only_steel(factory.fleet, unusable={"wood": "damaged"})
    unrouted, unusable = (plan_night(listed, fleet, factory.folder).names for fleet in fleets)
    assert len(unrouted - unusable) == len(unusable - unrouted) == 1


def test_a_lost_workers_shards_are_scored_again_unless_they_were_stored(factory: Factory) -> None:
    tasks = factory.plan().tasks
    worker = ShardScorer(factory.fleet, factory.folder, clock=lambda: FIRST)
    worker.write(tasks[:1])
    rows = factory.rows()
    factory.read.clear()
    worker.write([task.again() for task in tasks])
    assert {name.split("/")[0] for name in factory.read} == {"steel", "wood"}
    assert not rows.keys() & set(factory.read)
    assert factory.rows().items() >= rows.items()
    assert factory.plan().tasks == []


def test_a_late_image_is_scored_and_those_behind_it_only_move(factory: Factory) -> None:
    factory.score()
    rows = factory.rows()
    write_images(factory.dump / "steel", range(699, 700))  # the first of its category
    plan = factory.score(at=SECOND_HEAD_WEIGHT)
    assert names(plan) == ["steel-00000", "steel-00001"]
    assert factory.read == ["steel/000699.png"]
    after = factory.rows()
    assert after.keys() == rows.keys() | {"steel/000699.png"}
    assert after["steel/000699.png"]["scored_at"] == SECOND_HEAD_WEIGHT
    for name, row in rows.items():
        assert after[name] | {"shard": ""} == row | {"shard": ""}
    assert factory.plan().tasks == []


def test_a_stored_file_of_any_name_is_out_of_date_and_no_more(factory: Factory) -> None:
    factory.score()
    for name in ("outdated", "00000-abc"):
        shutil.copy(factory.folder.shard(min(factory.plan().names)), factory.folder.shard(name))
    write_images(factory.dump / "steel", range(699, 700))
    plan = factory.plan()
    assert {"outdated", "00000-abc"} < plan.stale
    assert not {"outdated", "00000-abc"} & {name for task in plan.tasks for name in task.reuse}


def test_rows_that_move_are_looked_for_only_where_they_can_be(factory: Factory) -> None:
    """Twelve shards of four images, each of which moves by two places."""
    write_images(factory.dump / "steel", range(706, 748))
    factory.score()
    rows = factory.rows()
    write_images(factory.dump / "steel", range(698, 700))
    plan = factory.score()
    assert sorted(factory.read) == ["steel/000698.png", "steel/000699.png"]
    assert [len(task.reuse) for task in plan.tasks] == [1, *[2] * 11, 1]
    for name, row in rows.items():
        assert factory.rows()[name] | {"shard": ""} == row | {"shard": ""}


def test_a_replaced_image_is_the_only_one_that_is_scored_again(factory: Factory) -> None:
    factory.score()
    rows = factory.rows()
    shutil.copy(factory.dump / "wood/010700.png", factory.dump / "steel/000701.png")
    factory.score(at=SECOND_HEAD_WEIGHT)
    assert factory.read == ["steel/000701.png"]
    changed = {name for name, row in factory.rows().items() if row["score"] != rows[name]["score"]}
    assert changed == {"steel/000701.png"}


def test_an_image_that_failed_is_tried_again_and_its_neighbours_are_not(factory: Factory) -> None:
    listed = list_dump(str(factory.dump)).images
    gone = factory.dump / "steel/000702.png"
    kept = gone.rename(gone.with_suffix(".kept"))
    assert factory.score(listed).num_images == 9
    assert factory.rows()["steel/000702.png"]["status"] == "missing"
    assert names(factory.plan(listed)) == ["steel-00000"]
    factory.score(listed)
    assert factory.read == ["steel/000702.png"]
    kept.rename(gone)
    factory.score(listed, at=SECOND_HEAD_WEIGHT)
    assert factory.read == ["steel/000702.png"]
    assert {row["status"] for row in factory.rows().values()} == {"ok"}
    assert factory.plan(listed).tasks == []


def test_an_image_replaced_after_the_listing_says_so_until_the_dump_is_listed_again(
    factory: Factory,
) -> None:
    listed = list_dump(str(factory.dump)).images
    shutil.copy(factory.dump / "wood/010700.png", factory.dump / "steel/000701.png")
    factory.score(listed)
    row = factory.rows()["steel/000701.png"]
    assert (row["status"], row["score"]) == ("changed", None)
    assert "was replaced since the dump was listed" in row["error"]
    factory.score()
    assert factory.read == ["steel/000701.png"]
    assert factory.rows()["steel/000701.png"]["status"] == "ok"


def test_bytes_that_are_no_image_are_not_read_again_unless_nobody_knows_their_etag(
    factory: Factory,
) -> None:
    (factory.dump / "steel/000700.png").write_bytes(b"no image")
    listed = list_dump(str(factory.dump)).images
    factory.score(listed)
    assert factory.rows()["steel/000700.png"]["status"] == "unreadable"
    assert factory.plan(listed).tasks == []
    unknown = listed.set_column(1, "image_etag", pa.nulls(listed.num_rows, pa.string()))
    factory.score(unknown)
    assert names(factory.plan(unknown)) == ["steel-00000"]


def test_failures_are_found_in_the_rows_when_nobody_noted_them(factory: Factory) -> None:
    listed = list_dump(str(factory.dump)).images
    (factory.dump / "wood/010701.png").unlink()
    factory.score(listed)
    noted = factory.plan(listed)
    storage.delete(factory.folder.settled)
    assert factory.plan(listed) == noted
    assert names(noted) == ["wood-00000"]


def test_a_record_is_believed_only_of_the_shards_that_it_is_about(factory: Factory) -> None:
    """An earlier release wrote one without their etags; the report may not be there yet."""
    factory.score()
    written = json.loads(storage.read_bytes(factory.folder.settled))
    for change in ({"is_reported": False}, {"fingerprint": "0" * 64}):
        storage.write_bytes(factory.folder.settled, json.dumps(written | change).encode())
        assert (factory.plan().tasks, factory.is_reported) == ([], False)
    storage.write_bytes(factory.folder.settled, b'{"shards": "abc", "failed": []}')
    assert (factory.plan().tasks, factory.is_reported) == ([], False)
    factory.score()
    assert factory.is_reported


def test_bundles_hold_every_task_once_and_no_more_images_than_asked() -> None:
    rows = pa.Table.from_pylist([{"image_uri": "x", "category": "a"}] * 10, MANIFEST_SCHEMA)
    sizes = [3, 4, 1, 9, 2, 2, 2]
    tasks = [Task(str(i), planning.Shard("s", "a", rows.slice(0, n))) for i, n in enumerate(sizes)]
    plan = NightPlan(tasks=tasks, names=frozenset(), stale=frozenset())
    bundles = [[task.shard.rows.num_rows for task in bundle] for bundle in plan.bundles(8)]
    assert bundles == [[3, 4, 1], [9], [2, 2, 2]]  # one that is too large goes alone
    assert plan.num_images == 23


def test_rows_of_a_stored_shard_count_only_for_the_same_image(factory: Factory) -> None:
    factory.score()
    (task, *_) = plan_night(
        list_dump(str(factory.dump)).images,
        factory.fleet,
        NightFolder(f"{factory.folder.out}-2", NIGHT),
        ROWS_PER_SHARD,
    ).tasks
    stored = [name for name in sorted(factory.plan().names) if name.startswith("steel")]
    made = planning.rows_made(dataclasses.replace(task, reuse=tuple(stored)), factory.folder)
    assert set(made) == set(task.shard.rows["image_uri"].to_pylist())
    other = pc.if_else(pc.equal(task.shard.rows["size_bytes"], 0), "a", "b")
    replaced = task.shard.rows.set_column(1, "image_etag", other)
    moved = dataclasses.replace(task.shard, rows=replaced)
    assert planning.rows_made(Task("x", moved, tuple(stored)), factory.folder) == {}


def test_pictures_are_kept_of_the_audit_sample_whatever_the_score(factory: Factory) -> None:
    listed = list_dump(str(factory.dump)).images
    for name, count in (("some", 1), ("none", 0)):
        folder = NightFolder(str(factory.dump.parent / name), NIGHT)
        plan = plan_night(listed, factory.fleet, folder, ROWS_PER_SHARD, count)
        ShardScorer(factory.fleet, folder).write(plan.tasks)
        rows = read_night(folder)
        for category, images in by_category(rows).items():
            drawn = {*audit_sample(NIGHT, images["image_uri"].to_pylist(), 2 * count)}
            kept = images.filter(pc.is_valid(images["map_uri"]))["image_uri"].to_pylist()
            usual = {
                row["image_uri"]
                for row in images.to_pylist()
                if row["p_value"] > 0.05 and not row["flagged"]
            }
            assert {*kept} & usual == drawn & usual
            assert all(Path(folder.picture(category, uri, "thumbnails")).is_file() for uri in drawn)
