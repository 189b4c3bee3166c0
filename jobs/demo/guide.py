"""What the demo prints in the end: flags beside labels, what to open, and what to try next."""

import datetime as dt
import json
import shlex
import shutil
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from jobs.demo.material import DARK_CATEGORY, FIRST_NIGHT, SECOND_NIGHT, UNKNOWN_CATEGORY, Cell
from jobs.night.score import Night
from jobs.terminal.tables import table
from pipeline.measuring.metrics import clopper_pearson, image_metrics
from pipeline.night.folder import NightFolder
from pipeline.night.results import read_night

NAMES = {FIRST_NIGHT: "first", SECOND_NIGHT: "second"}
LABELS_FILE = "labels.jsonl"
TEXT = """\
false alarms: good cells that were flagged, where 1 % was asked for; found: defects that were
flagged; in brackets 95 % intervals, wide because a night holds few defects. Labels made this
table and the share of defects in a night; no model and no threshold has seen them.

Open the first night, an ordinary one:
  {first_report}
  solar-mono   busy: {mono} flagged where good cells alone would give about {mono_good:.1f};
               cracked and dark ones. Wipe between image and heat map; the keys j k move,
               a says defect, r says false alarm.
  solar-poly   quiet: {poly} flagged where good cells alone would give about {poly_good:.1f}.
  at the end   three files that are no image, and one image of {unknown}: no model yet.
And the night after, when the camera of {dark} had gone dark:
  {second_report}
  {dark}   one alert in place of {num_hidden} flagged images; it says what has shifted.
  solar-mono   as the night before.

Go on from here: this starts the object store again, and a shell in which these work:
  {back}
  nightshift explain {image} --out results --night {first} --picture why.png
  nightshift labels import {labels} --out results
  nightshift fleet show results --night {first}
  nightshift export solar-mono --out solar-mono.onnx
  nightshift score {dump} --out results --night {second}
  exit
{labels} says of each image flagged in the first night what the report lets you say.
Models, runs and data sets: MLflow in {out}/mlflow.db. All of it took {seconds:.0f} s."""


def print_guide(
    out: Path, cells: Sequence[Cell], nights: Mapping[str, Night], seconds: float
) -> None:
    """Print the guide and write ``labels.jsonl``."""
    rows = list(_labelled_rows(out, cells))
    labels = [_label(row) for row in _most_anomalous(rows)]
    (out / LABELS_FILE).write_text("".join(json.dumps(label) + "\n" for label in labels))
    console = Console(soft_wrap=True, highlight=False)
    console.print(_table(rows))
    console.print(_text(out, rows, nights, seconds), markup=False)


def _labelled_rows(out: Path, cells: Sequence[Cell]) -> Iterator[dict[str, Any]]:
    """Yield the row of every cell that has a score, with its night and whether it is a defect."""
    defective = {(cell.night, cell.path): cell.defective for cell in cells if cell.night}
    for night in (FIRST_NIGHT, SECOND_NIGHT):
        for row in read_night(NightFolder(str(out / "results"), night)).to_pylist():
            path = "/".join(row["image_uri"].rsplit("/", 2)[1:])
            if row["status"] == "ok":
                yield {**row, "night": night, "defective": defective[night, path]}


def _most_anomalous(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what was flagged in the first night, or its highest score if nothing was."""
    first = sorted(
        (row for row in rows if row["night"] == FIRST_NIGHT),
        key=lambda row: float(row["score"]),
        reverse=True,
    )
    return [row for row in first if row["flagged"]] or first[:1]


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out what was flagged beside what is defective, a line per night and category."""
    shown = table("category", "night", "scored", "false alarms", "found", "AUROC")
    for night, category in sorted({(row["night"], row["category"]) for row in rows}):
        own = [row for row in rows if (row["night"], row["category"]) == (night, category)]
        good = [row["flagged"] for row in own if not row["defective"]]
        bad = [row["flagged"] for row in own if row["defective"]]
        defective = np.array([row["defective"] for row in own])
        auroc = image_metrics(np.array([row["score"] for row in own]), defective).auroc
        shown.add_row(
            *(category, NAMES[night], str(len(own))),
            *(_share(good), _share(bad), "-" if auroc is None else f"{auroc:.3f}"),
        )
    return shown


def _share(flagged: Sequence[bool]) -> str:
    low, high = clopper_pearson(sum(flagged), len(flagged))
    return f"{sum(flagged)} of {len(flagged)} ({100 * low:.0f}-{100 * high:.0f} %)"


def _label(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the line that the report's Download button would write of an image."""
    names = ("image_uri", "image_etag", "category", "night", "model_name", "model_version")
    said = {"label": "defect" if row["defective"] else "good"}
    now = dt.datetime.now(dt.UTC).isoformat()
    return {name: row[name] for name in names} | said | {"labelled_at": now}


def _text(
    out: Path, rows: Sequence[dict[str, Any]], nights: Mapping[str, Night], seconds: float
) -> str:
    first = nights[FIRST_NIGHT].summary["categories"]
    worst = _most_anomalous(rows)[0]
    return TEXT.format(
        first=FIRST_NIGHT,
        second=SECOND_NIGHT,
        first_report=nights[FIRST_NIGHT].report,
        second_report=nights[SECOND_NIGHT].report,
        mono=first["solar-mono"]["flagged"],
        poly=first["solar-poly"]["flagged"],
        mono_good=first["solar-mono"]["expected_false_alarms"],
        poly_good=first["solar-poly"]["expected_false_alarms"],
        unknown=UNKNOWN_CATEGORY,
        dark=DARK_CATEGORY,
        num_hidden=nights[SECOND_NIGHT].summary["categories"][DARK_CATEGORY]["flagged"],
        back=f"{_command()} demo --shell --out {shlex.quote(str(out))}",
        image=worst["image_uri"],
        dump=worst["image_uri"].rsplit("/", 3)[0] + f"/{SECOND_NIGHT}",
        labels=LABELS_FILE,
        out=out,
        seconds=seconds,
    )


def _command() -> str:
    """How this Nightshift is called here: by its name, or by its path where that is not on PATH."""
    beside = shutil.which("nightshift", path=sysconfig.get_path("scripts"))
    return "nightshift" if beside in (None, shutil.which("nightshift")) else shlex.quote(beside)
