"""``nightshift prune``: room in the folder of all nights."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from jobs.cli.options import Json
from jobs.terminal.tables import print_json, table

MB = 10**6


def prune(
    out: Annotated[str, typer.Argument(help="Folder or s3:// prefix of all nights, as of score.")],
    keep_nights: Annotated[int, typer.Option(help="The last nights, which stay whole.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove rows, pictures, listing and page of old nights; summaries, fleets and labels stay."""
    from pipeline import storage  # noqa: PLC0415
    from pipeline.night.prune import prune as prune_nights  # noqa: PLC0415

    out = storage.absolute(out)
    pruned = list(prune_nights(out, keep_nights, dry_run=dry_run))
    if as_json:
        print_json({"out": out, "dry_run": dry_run, "nights": [asdict(night) for night in pruned]})
        return
    if pruned:
        shown = table("night", "files", "MB")
        for night in pruned:
            shown.add_row(night.night, f"{night.num_files:,}", f"{night.size_bytes / MB:,.1f}")
        Console().print(shown)
    size = sum(night.size_bytes for night in pruned) / MB
    done = "would go" if dry_run else "removed"
    typer.echo(f"{out}: {len(pruned):,} nights, {size:,.1f} MB {done}")
