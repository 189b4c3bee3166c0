"""``nightshift replay``: past nights with other detectors."""

import sys
from contextlib import redirect_stdout
from typing import Annotated, Any

import typer
from rich.console import Console

from jobs.cli.exit_codes import ExitCode
from jobs.cli.options import Json, Out
from jobs.terminal.tables import print_json, table


def replay(  # noqa: PLR0913, PLR0917  options of a command
    out: Out,
    nights: Annotated[str, typer.Option(help="First and last night, YYYY-MM-DD..YYYY-MM-DD.")],
    fleet: Annotated[
        str, typer.Option("--with", help="challenger, or the digest of a fleet stored there.")
    ] = "challenger",
    only: Annotated[list[str] | None, typer.Option(help="Only this category; repeatable.")] = None,
    to: Annotated[
        str | None, typer.Option(help="Folder or s3:// prefix of replays; else OUT/replay.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Score past nights with other detectors and compare: what would have been flagged and was not.

    The nights themselves stay as they are. A replay that is cut off is gone on with.
    """
    from jobs.night import replay as job  # noqa: PLC0415  torch and Ray load in seconds

    options = job.ReplayOptions(out=out, nights=nights, fleet=fleet, only=only or [], place=to)
    with redirect_stdout(sys.stderr):
        done = job.replay(options)
    if as_json:
        print_json(done.to_json())
    else:
        _print(done)
    for name, why in done.unusable.items():
        typer.echo(f"nightshift: {name}: {why}", err=True)
    raise typer.Exit(ExitCode.PARTLY if done.unusable else ExitCode.DONE)


def _print(done: Any) -> None:
    shown = table("category", "then", "now", "images", "flagged", "now", "only now", "only then")
    for each in done.found:
        counts = each.flagged_then, each.flagged_now, each.newly.total(), each.no_longer.total()
        shown.add_row(
            each.category,
            ", ".join(sorted(each.versions_then)),
            each.version_now,
            *(f"{count:,}" for count in (each.num_images, *counts)),
        )
    Console().print(shown)
    typer.echo(f"{done.num_scored:,} images scored now, nights {', '.join(done.nights)}")
    typer.echo(f"page: {done.page}")
