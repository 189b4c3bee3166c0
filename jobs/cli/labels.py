"""``nightshift labels``: what people said about a night's images comes back in."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from jobs.terminal.tables import table

app = typer.Typer(no_args_is_help=True, help="Labels that people gave to a night's images.")


@app.callback()
def labels() -> None:
    """Labels that people gave to a night's images."""


@app.command("import")
def import_(
    file: Annotated[str, typer.Argument(help="JSON Lines from the report, local or s3://.")],
    out: Annotated[str, typer.Option(help="Folder or s3:// prefix of the results.")],
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Check a file of labels and store it beside its nights: all of it or nothing."""
    from pipeline.night.feedback.label_import import import_labels  # noqa: PLC0415  pyarrow loads in seconds

    nights = import_labels(file, out)
    if as_json:
        typer.echo(json.dumps([asdict(night) for night in nights], indent=1))
        return
    if not nights:
        typer.echo(f"{file} holds no label")
    for night in nights:
        _print(night)


def _print(done: Any) -> None:
    typer.echo(
        f"night {done.night}: {done.num_new:,} new labels, {done.num_changed:,} changed, "
        f"{done.num_unchanged:,} as before"
    )
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
