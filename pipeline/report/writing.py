"""The morning report: one static page per night, with its data in small files beside it.

It works from a disk and from object storage. Pictures are the files that scoring left, by relative
addresses. Everything that comes from outside (file names, error texts, category names) is text to
the page: autoescaped, cleared of characters that reorder it, and under a content policy that lets
no script run but the page's own and the data files of its folder.
"""

import datetime as dt
import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.images.file_names import kinds_in_words
from pipeline.labels.label import labels_of
from pipeline.labels.label_table import LabelTable
from pipeline.labels.week_copies import WeekCopies
from pipeline.night.fleet.fleet import Fleet
from pipeline.night.folder import NightError, NightFolder
from pipeline.night.results import by_category
from pipeline.night.summary import Summary, read_summary
from pipeline.pages import words
from pipeline.report import document as report_page
from pipeline.report import verdict, view
from pipeline.report.alerts import Alert, make_alerts
from pipeline.report.audit_findings import audit_findings, dates_of_weeks
from pipeline.report.data import FOLDER, LABEL_BITS, data_files
from pipeline.report.new_champions import new_champions
from pipeline.report.review_queue import review_queue
from pipeline.report.rows import NightRows, read_report_rows
from pipeline.report.verdict import Assessment

logger = logging.getLogger(__name__)

PARALLEL_WRITES = 8


def write_report(
    folder: NightFolder, fleet: Fleet | None = None, generated_at: dt.datetime | None = None
) -> str:
    """Write the page of a night from its summary, its rows, its fleet and its labels.

    The page is written last and then what an earlier one left is removed, so that a page always
    finds its own data.

    Args:
        folder: where the scoring job wrote the night.
        fleet: what it was scored with; read from its file when None.
        generated_at: the time to print; now when None.

    Returns:
        Address of the page.

    Raises:
        NightError: the night was never scored, or not to its end.
        ResultsError: a shard or the summary is damaged.
        FleetError: the fleet file is.
        LabelsError: stored labels are damaged.
        ServiceAway: the storage does not answer.
    """
    fleet, summary = _read(folder, fleet)
    rows = read_report_rows(folder, summary["audit_images"])
    calibrations = {name: c.reference.calibration.scores for name, c in fleet.champions.items()}
    categories = verdict.assess(summary["categories"], calibrations)
    names = [each.category for each in categories]
    images = rows.images
    # Beside the summaries: what a night may write for people to read, it may not read itself.
    copies = WeekCopies(storage.join(folder.out, "summary", "labels"))
    labels = LabelTable(folder.out).of_nights(dates_of_weeks(folder.night), names, copies)
    said = _said(labels.filter(pc.equal(labels["night"], folder.night)), images)
    samples = {name: own["image_uri"].to_pylist() for name, own in by_category(rows.audit).items()}
    rates = {
        name: champion.reference.calibration.false_alarm_rate
        for name, champion in fleet.champions.items()
        if name not in summary["drifted"]  # such a category is looked at as a whole
    }
    queue = review_queue(folder.night, rows.notable, samples, said, rates)
    known = {uri: label for uri, label in said.items() if label in LABEL_BITS}
    files = data_files(names, images, rows.failed, known, fleet.champions, queue)
    page = report_page.render(
        _context(rows, fleet, summary, categories),
        audit=audit_findings(labels, samples, said),
        num_queued=len(queue),
        new_champions=new_champions(folder, fleet.champions, categories),
        night=folder.night,
        date=words.long_date(folder.night),
        results=folder.results,
        generated_at=words.clock(generated_at or dt.datetime.now(dt.UTC)),
        files=next(iter(files)).removesuffix("index.js"),
        # A browser keeps labels under the night's address.
        store=hashlib.sha256(folder.results.encode(errors="surrogatepass")).hexdigest()[:12],
    )
    beside = folder.report.removesuffix("/index.html")
    _write_all(beside, files)
    storage.write_bytes(folder.report, page.encode())
    _remove_others(beside, files)
    logger.info(
        "report of %s: %d images, %d bytes, %d data files, %s",
        *(folder.night, rows.drawn.num_rows, len(page), len(files), folder.report),
    )
    return folder.report


def _read(folder: NightFolder, fleet: Fleet | None) -> tuple[Fleet, Summary]:
    try:
        return fleet or Fleet.read(folder.fleet), read_summary(folder)
    except storage.ObjectMissing as error:
        raise NightError(
            f"night {folder.night} was not scored under {folder.out} ({error}); "
            f"run `nightshift score DUMP --out {folder.out} --night {folder.night}` first"
        ) from error


def _said(labels: pa.Table, images: pa.Table) -> dict[str, str]:
    """What people said of the night's images so far."""
    columns = (images[name].to_pylist() for name in ("image_uri", "image_etag"))
    return labels_of(labels, dict(zip(*columns, strict=True)))


def _write_all(folder: str, files: Mapping[str, bytes]) -> None:
    def write(item: tuple[str, bytes]) -> None:
        storage.write_bytes(storage.join(folder, item[0]), item[1])

    with ThreadPoolExecutor(PARALLEL_WRITES) as pool:
        list(pool.map(write, files.items()))


def _remove_others(folder: str, files: Collection[str]) -> None:
    """Delete the data of earlier pages of the night."""
    data = storage.join(folder, FOLDER)
    old = [name for name in storage.names_below(data) if f"{FOLDER}/{name}" not in files]
    with ThreadPoolExecutor(PARALLEL_WRITES) as pool:
        list(pool.map(lambda name: storage.delete(storage.join(data, name)), old))


def _context(
    rows: NightRows, fleet: Fleet, summary: Summary, categories: Sequence[Assessment]
) -> dict[str, Any]:
    """What the template prints."""
    champions, groups = fleet.champions, by_category(rows.drawn)
    names = [each.category for each in categories]
    first = categories[: report_page.MAX_CARDS]
    numbers = view.totals(summary)
    none = rows.drawn.slice(0, 0)
    return {
        "headline": verdict.headline(summary, categories),
        "caveat": verdict.caveat(summary),
        "totals": numbers,
        "strip": view.strip(numbers) if summary["images"] else [],
        "alerts": _alerts(rows, names, summary),
        "summary": summary,
        "other_files": kinds_in_words(summary["other_files"]),
        "cards": [
            view.card(a, groups.get(a.category, none), champions.get(a.category)) for a in first
        ],
        "others": categories[report_page.MAX_CARDS :],
        "notable": {"kept": rows.notable.num_rows, "all": rows.num_notable},
        "failed": {"kept": rows.failed.num_rows, "all": rows.num_failed},
        "unrouted": view.unrouted(categories),
        "models": sorted((name, champions[name]) for name in names if name in champions),
        "scored_between": view.scored_between(rows.drawn),
    }


def _alerts(rows: NightRows, names: Sequence[str], summary: Summary) -> list[Alert]:
    kept = rows.notable.group_by("category").aggregate([("flagged", "sum"), ("flagged", "count")])
    counts = {
        row["category"]: (row["flagged_count"], row["flagged_sum"]) for row in kept.to_pylist()
    }
    return make_alerts(names, summary, counts)
