"""``nightshift fleet``: which champions score the nights, held or rolled back."""

import sys
from contextlib import redirect_stdout
from typing import Annotated, Any

import typer
from rich.console import Console

from jobs.cli.options import Json, Out
from jobs.terminal.tables import number, print_json, table

DIGITS = 12  # of a digest, for people
MOST_NAMES = 20  # of categories, likewise

fleet_app = typer.Typer(
    no_args_is_help=True, help="Which champions score the nights: show, pin, roll back, release."
)


@fleet_app.command()
def show(
    out: Out,
    night: Annotated[str | None, typer.Option(help="The fleet that scored this night.")] = None,
    as_json: Json = False,
) -> None:
    """Show the pinned fleet, or a night's, and which nights were scored with which."""
    from pipeline import storage  # noqa: PLC0415  torch loads in seconds
    from pipeline.night.fleet import hold  # noqa: PLC0415  torch loads in seconds
    from pipeline.night.fleet.fleet import Fleet, stored_fleet  # noqa: PLC0415
    from pipeline.night.folder import NightFolder  # noqa: PLC0415

    out = storage.absolute(out)
    held, nights = hold.read_hold(out), hold.digests_of_nights(out)
    digest = hold.digest_of_night(NightFolder(out, night)) if night else held.digest
    shown = Fleet.read(stored_fleet(out, digest)).champions if digest else {}
    champions = {name: champion.to_json() for name, champion in shown.items()}
    if as_json:
        answer = {"pinned": held.digest, "earlier": held.earlier, "nights": nights}
        print_json({**answer, "digest": digest, "champions": champions})
        return
    typer.echo(
        f"pinned: {held.digest[:DIGITS] if held.digest else 'nothing; nights take champions'}"
    )
    for date, used in sorted(nights.items(), reverse=True):
        typer.echo(f"night {date}: {used[:DIGITS]}")
    if champions:
        _print_champions(champions)


@fleet_app.command()
def pin(
    out: Out,
    night: Annotated[str | None, typer.Option(help="Pin what scored this night.")] = None,
    digest: Annotated[str | None, typer.Option(help="Pin the fleet of this digest.")] = None,
    as_json: Json = False,
) -> None:
    """Score the coming nights with one fleet; without an option with today's champions."""
    from pipeline import storage  # noqa: PLC0415
    from pipeline.night.fleet import hold  # noqa: PLC0415
    from pipeline.night.fleet.fleet import Fleet, stored_fleet  # noqa: PLC0415
    from pipeline.night.folder import NightFolder  # noqa: PLC0415

    if night and digest:
        raise typer.BadParameter("give --night or --digest, not both")
    out = storage.absolute(out)
    if night:
        chosen = hold.digest_of_night(NightFolder(out, night))
    elif digest:
        chosen = hold.full_digest(out, digest)
    else:
        chosen = _store_champions(out)
    held = hold.hold(out, chosen)
    if absent := Fleet.read(stored_fleet(out, chosen)).not_held:
        more = f" and {len(absent) - MOST_NAMES} more" if len(absent) > MOST_NAMES else ""
        typer.echo(
            f"not held: {', '.join(absent[:MOST_NAMES])}{more}; images of these will be unrouted. "
            f"To hold every category's champion of today, pin without --night.",
            err=True,
        )
    _say(held, as_json)


@fleet_app.command()
def rollback(out: Out, as_json: Json = False) -> None:
    """Pin the fleet that was pinned before."""
    from pipeline import storage  # noqa: PLC0415
    from pipeline.night.fleet import hold  # noqa: PLC0415

    _say(hold.rollback(storage.absolute(out)), as_json)


@fleet_app.command()
def release(out: Out, as_json: Json = False) -> None:
    """Let nights take the champions of the registry again."""
    from pipeline import storage  # noqa: PLC0415
    from pipeline.night.fleet import hold  # noqa: PLC0415

    _say(hold.release(storage.absolute(out)), as_json)


def _store_champions(out: str) -> str:
    """Copy every champion's package beside the results and return the fleet's digest."""
    from pipeline.night.fleet.fleet import FleetError  # noqa: PLC0415
    from pipeline.night.fleet.resolve import resolve_fleet  # noqa: PLC0415
    from pipeline.registry import connection, models  # noqa: PLC0415

    with redirect_stdout(sys.stderr):
        connection.connect()
        champions = models.champions()
        if not champions:
            raise FleetError("the registry has no champion to pin; onboard a catalogue first")
        fleet = resolve_fleet(out, champions, champions, models.download)
        if unusable := fleet.unusable:
            why = next(iter(unusable.values()))
            raise FleetError(f"nothing is pinned, {len(unusable)} champions are no good: {why}")
        return fleet.store(out)


def _say(held: Any, as_json: bool) -> None:
    if as_json:
        print_json({"pinned": held.digest, "earlier": held.earlier})
    elif held.digest:
        typer.echo(f"pinned: {held.digest[:DIGITS]}, {len(held.earlier)} before it to roll back to")
    else:
        typer.echo("released: nights take the champions of the registry")


def _print_champions(champions: dict[str, dict[str, Any]]) -> None:
    shown = table("category", "version", "digest", "threshold", "false alarms")
    for name, champion in sorted(champions.items()):
        shown.add_row(
            name,
            champion["model_version"],
            champion["model_digest"][:DIGITS],
            number(champion["threshold"]),
            f"{champion['false_alarm_rate']:g}",
        )
    Console().print(shown)
