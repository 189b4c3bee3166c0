"""``nightshift labels``: what people said of images comes in, is shown, and goes out."""

import datetime as dt
import json
from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

from jobs.cli.options import Json, Out
from jobs.terminal.tables import print_json, table
from pipeline.pages.words import percent, plural

Only = Annotated[list[str] | None, typer.Option(help="Only this category; repeatable.")]

app = typer.Typer(no_args_is_help=True, help="Labels that people gave to images.")


@app.callback()
def labels() -> None:
    """Labels that people gave to images."""


@app.command("import")
def import_(  # noqa: PLR0913, PLR0917  options of a command
    file: Annotated[
        str, typer.Argument(help="JSON Lines from the report, or COCO's or FiftyOne's JSON.")
    ],
    out: Annotated[str, typer.Option(help="Folder or s3:// prefix of the results.")],
    category: Annotated[
        str | None, typer.Option(help="Category of a manifest's images, where it names none.")
    ] = None,
    night: Annotated[
        str | None, typer.Option(help="Night that a manifest's images were scored in.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who labelled a manifest's images.")] = None,
    chosen: Annotated[
        Literal["whole_dump", "audit"] | None,
        typer.Option(help="A manifest's images were chosen whatever their score: all, or drawn."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a file of labels and store it beside its nights: all of it or nothing."""
    from pipeline.labels.foreign import Source  # noqa: PLC0415  pyarrow loads in seconds
    from pipeline.night.feedback.label_import import import_labels  # noqa: PLC0415

    source = Source(
        uri=file,
        read_at=dt.datetime.now(dt.UTC),
        category=category,
        night=night,
        labelled_by=by,
        chosen=chosen,
    )
    done = import_labels(source, out)
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in done.nights], indent=1))
        return
    if done.num_taken_in:
        typer.echo(f"{done.num_taken_in:,} files of an earlier release are in the table now")
    if not done.nights:
        typer.echo(f"{file} holds no label")
    if done.num_unlabelled:
        typer.echo(f"{done.num_unlabelled:,} images have no label in {file}, and get none")
    for each in done.nights:
        _print(each)


def _print(done: Any) -> None:
    undone = f", {done.num_undone:,} taken back" if done.num_undone else ""
    typer.echo(
        f"{f'night {done.night}' if done.night else 'no night'}: {done.num_new:,} new labels, "
        f"{done.num_changed:,} changed, {done.num_unchanged:,} as before{undone}"
    )
    _say(done.gone, "not in the night's results any more; labels stay")
    _say(done.contradicted, "labelled differently by people; the latest label counts")
    if not done.precision:
        return
    shown = table("category", "labelled", "defects", "flagged", "of these defects", "precision")
    for category, counts in done.precision.items():
        share = counts["precision"]
        shown.add_row(
            escape(category) or "(none)",
            str(counts["labelled"]),
            str(counts["defects"]),
            str(counts["flagged_labelled"]),
            str(counts["flagged_defects"]),
            "-" if share is None else f"{share:.0%}",
        )
    Console().print(shown)


def _say(uris: Any, what: str) -> None:
    if uris:
        typer.echo(f"{plural(len(uris), 'image')} {what}: {uris[0]}{', ...' * (len(uris) > 1)}")


@app.command()
def show(
    out: Out,
    only: Only = None,
    gone: Annotated[
        bool, typer.Option("--gone", help="Also look which labelled images are still there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Count the labels of every category."""
    from pipeline.labels.label_overview import overview  # noqa: PLC0415
    from pipeline.labels.label_table import table_beside  # noqa: PLC0415

    found = overview(table_beside(out), only or [], look_for_gone=gone)
    if as_json:
        print_json([asdict(each) for each in found])
        return
    shown = table("category", "images", "good", "defects", "unsure", "at random", "missed", "last")
    for each in found:
        numbers = (each.images, each.good, each.defect, each.unsure, each.whatever_the_score)
        last = f"{each.last_at:%Y-%m-%d}" if each.last_at else "-"
        shown.add_row(
            escape(each.category) or "(none)",
            *(f"{n:,}" for n in numbers),
            _of_audits(each.missed),
            last,
        )
    Console().print(shown)
    for each in found:
        name = each.category or "(none)"
        _say(
            each.contradicted, f"of {name} labelled differently by people; the latest label counts"
        )
        _say(each.gone, f"of {name} labelled and there no more; labels stay")


def _of_audits(missed: Any) -> str:
    """Say which share of the audited images are missed defects, and how sure that is."""
    if missed.share is None:
        return "-"
    low, high = map(percent, missed.interval)
    return f"{percent(missed.share)} of {missed.images:,} ({low} to {high})"


@app.command()
def export(
    out: Out,
    to: Annotated[str, typer.Option(help="File to write, local or s3://.")],
    kind: Annotated[
        Literal["jsonl", "coco", "fiftyone"], typer.Option("--format", help="File format.")
    ] = "jsonl",
    only: Only = None,
) -> None:
    """Write the labels that count to a file; each format can be imported again."""
    from pipeline import storage  # noqa: PLC0415
    from pipeline.labels.export import export_labels  # noqa: PLC0415
    from pipeline.labels.label_table import table_beside  # noqa: PLC0415

    content = export_labels(table_beside(out), kind, only or [])
    if not content:
        typer.echo(f"{to} is not written: there is no label{' of these categories' * bool(only)}")
        return
    storage.write_bytes(storage.absolute(to), content)
    typer.echo(f"{to}: {len(content):,} bytes")
