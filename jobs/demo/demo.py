"""The whole story on real solar cells: onboard two categories, score a night, write the report.

Needs no server and no download: images and backbone weights come from installed packages, the
object store is a local one that lives as long as the demo, MLflow writes to SQLite.
"""

import datetime as dt
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from jobs.cluster.join import cluster
from jobs.demo import material
from jobs.local.s3 import LocalS3
from jobs.night.score import Night, score
from jobs.onboard.onboard import OnboardingOptions, onboard
from jobs.terminal.progress import Display
from jobs.terminal.tables import table
from pipeline.catalogue.catalogue import load_catalogue
from pipeline.measuring.metrics import clopper_pearson, image_metrics
from pipeline.night.folder import NightFolder
from pipeline.night.results import by_category, read_night


def run_demo(out: Path) -> int:
    """Run the demo under ``out`` and print what came of it; return the exit code."""
    console = Console(stderr=True)
    started = time.monotonic()
    cells = material.read_cells()
    catalogue = load_catalogue(str(material.write_onboarding(cells, out / "onboarding")))
    tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{out}/mlflow.db"}
    console.print("Starting a local object store and a local Ray cluster")
    with LocalS3(out / "s3") as server, _environment(server.environment() | tracking):
        dump = f"{server.create_bucket(f'night-{secrets.token_hex(4)}')}/dump"
        truth = _upload(cells, dump)
        with cluster():
            outcomes = onboard(catalogue, OnboardingOptions(runs=str(out / "runs")))
            failed = [outcome for outcome in outcomes if outcome.error]
            for outcome in failed:
                console.print(f"[red]{outcome.category}: {outcome.error}")
            if failed:
                return 1
            night = dt.datetime.now(dt.UTC).date().isoformat()
            folder = NightFolder(str(out / "results"), night)
            done = score(dump, folder)
    rows = read_night(folder)
    Console().print(_table(rows, {f"{dump}/{name}": bad for name, bad in truth.items()}))
    Console().print(_closing(done, out, time.monotonic() - started), highlight=False)
    return 0


def _upload(cells: list[material.Cell], dump: str) -> dict[str, bool]:
    total = material.dump_size(cells)
    num_written = 0
    with Display("uploading").shown() as display:

        def count() -> None:
            nonlocal num_written
            num_written += 1
            display.update({"the night's dump": ("upload", num_written, total)})

        return material.write_dump(cells, dump, on_written=count)


def _table(rows: pa.Table, truth: Mapping[str, bool]) -> Table:
    """Lay out one line per category; labels come from the package and were used nowhere else."""
    answer = table(
        *("category", "images", "failed", "threshold", "asked", "false alarms", "defects", "AUROC")
    )
    for category, group in by_category(rows).items():
        scored = [row for row in group.to_pylist() if row["status"] == "ok"]
        defective = np.array([truth[row["image_uri"]] for row in scored], dtype=bool)
        flagged = np.array([row["flagged"] for row in scored], dtype=bool)
        scores = np.array([row["score"] for row in scored])
        auroc = image_metrics(scores, defective).auroc
        low, high = clopper_pearson(int((flagged & ~defective).sum()), int((~defective).sum()))
        answer.add_row(
            category,
            str(group.num_rows),
            str(group.num_rows - len(scored)),
            f"{scored[0]['threshold']:.3f}",
            f"{scored[0]['false_alarm_rate']:.0%}",
            f"{flagged[~defective].mean():.1%} ({100 * low:.1f}-{100 * high:.1f})",
            f"{flagged[defective].mean():.0%}",
            "-" if auroc is None else f"{auroc:.3f}",
        )
    return answer


def _closing(done: Night, out: Path, seconds: float) -> str:
    return (
        f"asked: the false-alarm rate asked for; false alarms: good cells flagged, with the 95 % "
        f"interval;\ndefects: broken cells flagged; failed: files that are no image\n"
        f"scored {done.num_scored} images at {done.images_per_s:.0f} images/s, from S3 to Parquet\n"
        f"models: nightshift.solar-mono and nightshift.solar-poly in sqlite:///{out}/mlflow.db\n"
        f"report: {done.report}\n"
        f"all of it took {seconds:.0f} s"
    )


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the block: workers of a local cluster inherit them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
