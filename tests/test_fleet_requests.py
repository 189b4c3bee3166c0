"""How often a night asks its storage for its fleet: once in the driver, once in each worker."""

import dataclasses
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factory import make_fleet

from jobs.night import score as job
from jobs.night.scoring_worker import ScoringWorker
from pipeline import storage
from pipeline.night.fleet import hold
from pipeline.night.fleet.fleet import Fleet, stored_fleet
from pipeline.night.folder import NightFolder
from pipeline.night.scoring.plan import NightPlan

NUM_CATEGORIES, NUM_WORKERS = 100, 3


def test_a_night_of_many_categories_reads_its_fleet_once_per_process(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers are here in this process; its images are gone, which costs least."""
    yesterday, folder = (NightFolder(str(tmp_path), f"2026-03-{day}") for day in (11, 12))
    champion = make_fleet(yesterday, {"steel": package}).champions["steel"]
    names = [f"part-{number:04d}" for number in range(NUM_CATEGORIES)]
    fleet = Fleet(champions={name: dataclasses.replace(champion, category=name) for name in names})
    hold.hold(folder.out, fleet.store(folder.out))
    images = [f"{tmp_path}/dump/{name}/1.png" for name in names]
    pq.write_table(pa.table({"image_uri": images, "category": names}), tmp_path / "dump.parquet")

    reads: Counter[str] = Counter()
    read_bytes = storage.read_bytes

    def counted(uri: str, *arguments: Any) -> bytes:
        reads[uri] += 1
        return read_bytes(uri, *arguments)

    def score(plan: NightPlan, folder: NightFolder) -> int:
        for number in range(NUM_WORKERS):
            worker = ScoringWorker(folder, threads=1, heads_bytes=10**9)
            worker.write(list(plan.tasks[number::NUM_WORKERS]))
        return plan.num_images

    monkeypatch.setattr(storage, "read_bytes", counted)
    monkeypatch.setattr(job, "_score", score)
    monkeypatch.setattr(job, "cluster", nullcontext)
    done = job.score(str(tmp_path / "dump.parquet"), folder)
    assert done.summary["totals"] == {"missing": NUM_CATEGORIES}
    assert reads[stored_fleet(folder.out, fleet.digest)] == 1  # the driver, of the held fleet
    assert reads[folder.fleet] == 1 + NUM_WORKERS  # the driver looks whether the night is begun
