"""``nightshift history`` and ``nightshift rollback``: what became of a category's champions."""

import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from jobs.cli.options import Json
from jobs.terminal.tables import print_json, table

Category = Annotated[str, typer.Argument(help="Category with a registered model.")]


def history(category: Category, as_json: Json = False) -> None:
    """Show every change of a category's champion and challenger: who, when, from, to, and why."""
    from pipeline.registry import aliases, connection  # noqa: PLC0415  MLflow loads in seconds

    with redirect_stdout(sys.stderr):
        connection.connect()
        known = aliases.history(category)
    if as_json:
        print_json({**asdict(known), "moved_elsewhere": known.moved_elsewhere})
        return
    _print(known)


def _print(known: Any) -> None:
    shown = table("why", "when", "alias", "from", "to", "who")
    for change in known.changes:
        why = ": ".join(part for part in (change.by, change.because, change.evidence) if part)
        shown.add_row(
            escape(why),
            change.at[:16].replace("T", " "),
            change.alias,
            change.version_from or "-",
            change.version_to or "-",
            escape(change.who.partition("@")[0]),
        )
    Console().print(shown)
    for name in known.moved_elsewhere:
        typer.echo(
            f"{name} is version {known.aliases[name]}, and no row says so: it was set outside of "
            f"Nightshift, or by an earlier release"
        )


def rollback(
    category: Category,
    because: Annotated[str, typer.Option(help="Why, for the record.")],
    to: Annotated[
        int | None, typer.Option(min=1, help="Version; without it the champion before this one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Give the champion's place back to an earlier version; the coming nights are scored with it.

    Nights below a pinned fleet stay with that: see nightshift fleet.
    """
    if not because.strip():
        raise typer.BadParameter("--because is empty; say why, for the record")
    from pipeline.registry import aliases, connection, models  # noqa: PLC0415

    with redirect_stdout(sys.stderr):
        connection.connect()
        known = aliases.history(category)
        number = to or int(aliases.version_before(known))
        version = models.find_version(category, number)
        if version is None:
            raise aliases.AliasError(
                f"{category}: version {number} is not registered any more; name one with --to"
            )
        reason = aliases.Reason(by="rollback", because=because)
        version = models.promote(version, reason)
    before = known.aliases.get(aliases.CHAMPION)
    if as_json:
        print_json({"category": category, "from": before, "to": version.version})
    else:
        typer.echo(f"{category}: champion is version {version.version}, was {before or 'none'}")
