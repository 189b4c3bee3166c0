"""The morning report: one static page per night that needs nothing beside itself.

Everything that comes from outside (file names, error texts, category names) is text to the page:
autoescaped, cleared of characters that reorder it, and under a content policy that lets no
script run but the page's own.
"""

import base64
import datetime as dt
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from pipeline import gallery, heatmap, storage, verdict
from pipeline import report_view as view
from pipeline.results import (
    NightError,
    by_category,
    check_night,
    night_prefix,
    read_night,
    summarise,
)

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent  # of the template, its style and its script


def write_report(out: str, night: str, generated_at: dt.datetime | None = None) -> str:
    """Write the page of a night from its results and its fleet file.

    Args:
        out: where the scoring job wrote the night.
        night: YYYY-MM-DD.
        generated_at: the time to print; now when None.

    Returns:
        Address of the page.

    Raises:
        NightError: the night is no date or was never scored.
        ResultsError: the night's rows contradict each other.
        StorageAway: a storage that holds results, maps or originals does not answer.
    """
    uri = report_uri(out, night)
    fleet = _read_fleet(out, night)
    rows = read_night(out, night)
    generated_at = generated_at or dt.datetime.now(dt.UTC)
    page = _template().render(
        _context(rows, fleet),
        night=night,
        date=view.long_date(night),
        results=night_prefix(out, night),
        generated_at=view.clock(generated_at),
    )
    storage.write_bytes(uri, page.encode())
    logger.info("report of %s: %d images, %d bytes, %s", night, rows.num_rows, len(page), uri)
    return uri


def report_uri(out: str, night: str) -> str:
    """Where a night's page is."""
    return storage.join(out, "report", f"night={check_night(night)}", "index.html")


def _read_fleet(out: str, night: str) -> dict[str, Any]:
    uri = storage.join(out, "fleet", f"night={night}", "fleet.json")
    try:
        fleet: dict[str, Any] = json.loads(storage.read_bytes(uri))
    except storage.ObjectMissing as error:
        raise NightError(
            f"night {night} was not scored under {out}: {uri} is missing; "
            f"run `nightshift score DUMP --out {out} --night {night}` first"
        ) from error
    return fleet


def _context(rows: pa.Table, fleet: Mapping[str, Any]) -> dict[str, Any]:
    """What the template prints; reads the originals and maps of the images that it shows."""
    champions = fleet["champions"]
    summary = summarise(rows, fleet)
    groups = by_category(rows)
    calibrations = {name: c.get("calibration_scores", ()) for name, c in champions.items()}
    assessments = verdict.assess(summary["categories"], calibrations)
    tiles = gallery.make_tiles(gallery.select(groups), champions)
    cards = [view.card(a, groups[a.category], champions.get(a.category)) for a in assessments]
    return {
        "headline": verdict.headline(summary, assessments),
        "caveat": verdict.caveat(summary),
        "totals": view.totals(summary),
        "summary": summary,
        "cards": cards,
        "galleries": view.galleries(assessments, tiles),
        "num_tiles": len(tiles),
        "failures": view.failures(rows),
        "unrouted": view.unrouted(assessments),
        "models": sorted((c.assessment.category, c.champion) for c in cards if c.champion),
        "scored_between": view.scored_between(rows),
    }


def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "about": verdict.about,
        "category": lambda name: view.visible(name) or "(no category)",
        "count": "{:,}".format,
        "decimal": view.decimal,
        "folder": view.folder_of,
        "name": view.name_of,
        "percent": view.percent,
        "plural": verdict.plural,
        "visible": view.visible,
    }
    script = (FOLDER / "report.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "legend": heatmap.legend_gradient(),
        "script": Markup(script),  # noqa: S704 - our own file
        "script_hash": f"sha256-{digest}",
        "max_per_category": gallery.MAX_PER_CATEGORY,
    }
    return environment.get_template("report.html.j2")
