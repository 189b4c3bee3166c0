"""Score a night's dump: manifest, fleet, shards over a fixed pool of actors, report.

What a rerun has to do is planned from what is stored: shards that are missing or out of date, and
rows that failed.
"""

import dataclasses
import datetime as dt
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import ray

from jobs.cluster.join import Resources, cluster, memory_per_job, resources_for
from jobs.night.feeders import feeding_here
from jobs.night.pool import Pool
from jobs.night.scoring_worker import ScoringWorker
from jobs.terminal.progress import Display
from pipeline.catalogue.rename_table import note_renames, read_renames
from pipeline.images.decode import ImageStatus
from pipeline.labels.audit import AUDIT_IMAGES
from pipeline.night.dumps import Change, take_in
from pipeline.night.error_budget import ErrorBudget
from pipeline.night.fleet.fleet import Fleet, champions_so_far
from pipeline.night.fleet.hold import held_fleet
from pipeline.night.fleet.resolve import snapshot_fleet
from pipeline.night.fleet.stand_ins import with_stand_ins
from pipeline.night.folder import NightFolder
from pipeline.night.inventory import InventoriedDump
from pipeline.night.record import is_reported, note_reported
from pipeline.night.results import remove_shards, stored_shards
from pipeline.night.scoring.detectors import HEADS_BYTES
from pipeline.night.scoring.plan import ROWS_PER_SHARD, NightPlan, plan_night
from pipeline.night.settling.settle import settle
from pipeline.night.summary import Summary
from pipeline.pages.words import plural
from pipeline.registry import category_names, connection, models
from pipeline.report.writing import write_report

logger = logging.getLogger(__name__)

BUNDLE_IMAGES = 1024  # what a worker takes at a time, and loses at most when it dies
COMPILED_FROM = 400_000  # images for each GPU: a minute of compiling saves .15 ms an image
LEAST_BUNDLES = 4  # for each worker, so that none is left with all the rest


@dataclass(frozen=True, kw_only=True)
class Night:
    """What a scored night came to."""

    summary: Summary
    report: str
    change: Change  # of the night's images, by this call's dump
    num_scored: int  # images that this call scored; the others were done before
    scoring_s: float  # from the first worker's start to the last shard's rows
    seconds: float  # of the whole call, from the listing to the report
    overruns: tuple[str, ...]  # why the night is no good; none when the error budget held

    @property
    def images_per_s(self) -> float:
        """Throughput of this call, from storage to stored rows; 0 when all was scored before."""
        return self.num_scored / max(self.scoring_s, 1e-9)

    def to_json(self) -> dict[str, Any]:
        """The summary and what this call did, in plain JSON types."""
        return {
            **self.summary,
            "report": self.report,
            "images_added": self.change.num_added,
            "images_removed": self.change.num_removed,
            "images_changed": self.change.num_changed,
            "scored_now": self.num_scored,
            "images_per_s": self.images_per_s,
            "seconds": self.seconds,
            "overruns": self.overruns,
        }

    @property
    def num_failed(self) -> int:
        """Images that have no score."""
        totals = self.summary["totals"]
        return sum(count for status, count in totals.items() if status != ImageStatus.OK)


def score(  # noqa: PLR0913  each is something a test or an operator chooses
    dump: str | InventoriedDump,
    folder: NightFolder,
    budget: ErrorBudget | None = None,
    *,
    replace: bool = False,
    rows_per_shard: int = ROWS_PER_SHARD,
    audit_images: int = AUDIT_IMAGES,
) -> Night:
    """Add a dump to a night, score every image of the night exactly once and report on it all.

    A cluster is joined or started when there is something to score.

    Args:
        dump: prefix of images, as its storage or an S3 Inventory lists it, or a ready manifest; the
            night's stored one is the night as it is.
        folder: the night, where its results go.
        budget: how many images may fail.
        replace: this dump alone is the night from now on, scored with today's champions.
        rows_per_shard: images of one category that are stored together.
        audit_images: of a category, that are to be labelled whatever their score.
    """
    started = time.monotonic()
    images, change = take_in(dump, folder, replace=replace)
    fleet = _snapshot(images.categories, folder, anew=replace)
    plan = plan_night(images.manifest, fleet, folder, rows_per_shard, audit_images)
    logger.info("night %s: %d shards, %d to score", folder.night, len(plan.names), len(plan.tasks))
    if old := fleet.without_regions:
        logger.warning(
            "%s of an earlier release, first of %s: their images get no regions; onboard again for "
            "them",
            *(plural(len(old), "champion"), old[0]),
        )
    scoring_started = time.monotonic()
    num_scored = 0
    if plan.tasks:
        with cluster():
            num_scored = _score(plan, folder)
    scoring_s = time.monotonic() - scoring_started
    remove_shards(folder, plan.stale)
    summary = settle(folder, fleet, images.num_other_files, audit_images)
    if not is_reported(folder, stored_shards(folder)):
        write_report(folder, fleet)
        note_reported(folder, stored_shards(folder))
    return Night(
        summary=summary,
        report=folder.report,
        change=change,
        num_scored=num_scored,
        scoring_s=scoring_s,
        seconds=time.monotonic() - started,
        overruns=tuple((budget or ErrorBudget()).overruns(summary)),
    )


def _snapshot(categories: Collection[str], folder: NightFolder, *, anew: bool) -> Fleet:
    """Fix what the night is scored with: the held fleet, or what are champions now.

    A category that the night has a champion for already keeps it, unless it is chosen anew. Images
    below a name that a category had before are scored by that category.
    """
    so_far = {} if anew else champions_so_far(folder)
    held = held_fleet(folder.out)
    if held is not None:
        champions = with_stand_ins(held.champions, categories, read_renames(folder.out))
        fleet = dataclasses.replace(held, champions=champions).of_night(categories, so_far)
        fleet.write(folder)
        return fleet
    connection.connect()
    renames = category_names.all_renames()
    note_renames(folder.out, renames)
    versions = with_stand_ins(models.champions(), categories, renames)
    return snapshot_fleet(folder, versions, categories, models.download, so_far)


def _score(plan: NightPlan, folder: NightFolder) -> int:
    """Score what is left; return how many images were scored now."""
    resources = resources_for(len(plan.tasks))
    least = LEAST_BUNDLES * resources.num_jobs
    bundles = list(plan.bundles(min(BUNDLE_IMAGES, max(1, plan.num_images // least))))
    count = min(resources.num_jobs, len(bundles))
    is_long = plan.num_images >= COMPILED_FROM * count
    workers = _start_workers(resources, count, folder, compiles=is_long)
    done = num_failed = num_scored = 0
    started = time.monotonic()
    with Display("scoring").shown() as display:
        for written in Pool(workers, bundles).results():
            for shard in written:
                done += sum(shard.statuses.values())
                num_scored += shard.num_scored
                num_failed += sum(shard.statuses.values()) - shard.statuses.get(ImageStatus.OK, 0)
            rate = done / (time.monotonic() - started)
            note = progress_note(rate, plan.num_images - done, num_failed)
            display.update({folder.night: ("images", done, plan.num_images)}, note)
    return num_scored


def progress_note(images_per_s: float, num_left: int, num_failed: int) -> str:
    """Say how fast the night goes, when it will be done and what has failed so far."""
    if not images_per_s:
        return "starting"
    left = dt.timedelta(seconds=round(num_left / images_per_s))
    return f"{images_per_s:.1f} images/s, {left} left, {num_failed} failed"


def _start_workers(
    resources: Resources, count: int, folder: NightFolder, *, compiles: bool = False
) -> list[Any]:
    feeding = feeding_here() if resources.gpus else None
    num_cpus = 1 if feeding else resources.cpus  # the feeders have the others
    options: Mapping[str, Any] = {"num_cpus": num_cpus, "num_gpus": resources.gpus}
    worker = ray.remote(ScoringWorker).options(**options, max_restarts=-1)
    room = min(HEADS_BYTES, memory_per_job(resources) // 2)  # the rest is for the process itself
    given = folder, num_cpus, room, feeding
    return [worker.remote(*given, compiles=compiles) for _ in range(count)]
