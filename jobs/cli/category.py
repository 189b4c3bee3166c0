"""``nightshift category``: a category gets another name, or leaves the nights."""

import datetime as dt
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Annotated, Any

import typer

from jobs.cli.options import Json
from jobs.terminal.tables import print_json

category_app = typer.Typer(
    no_args_is_help=True, help="Give a category another name, or take it out of the nights."
)

Outs = Annotated[
    list[str] | None,
    typer.Option("--out", help="Results whose pinned fleet is looked at; repeatable."),
]
Runs = Annotated[
    str, typer.Option(envvar="NIGHTSHIFT_RUNS", help="Folder or s3:// prefix of onboard --runs.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")
]


@category_app.command()
def rename(  # noqa: PLR0913, PLR0917  options of a command
    old: Annotated[str, typer.Argument(help="Name of the category so far.")],
    new: Annotated[str, typer.Argument(help="Its new name, which no category has.")],
    out: Outs = None,
    runs: Runs = "nightshift-runs",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Give a category another name; its versions go with it, and past nights stay as they are."""
    from pipeline.category_changes import rename_category  # noqa: PLC0415  MLflow loads in seconds

    places, now = _places(out, runs), dt.datetime.now(dt.UTC)
    done = _connected(lambda: rename_category(old, new, places, now, dry_run=dry_run))
    if as_json:
        print_json({"dry_run": dry_run, **done.to_json()})
        return
    would = "would be" if dry_run else "is" if done.in_registry else "was, before,"
    typer.echo(f"nightshift.{old} {would} called nightshift.{new}, {_in_words(done)}")
    _print_places(done, out, dry_run)
    typer.echo(f"left to do in the catalogue: name it {new}, and let its `images` stay {old}'s")
    typer.echo(
        f"left to do in dumps: name its folder {new}/; {old}/ is scored by it too until another "
        f"category is called so"
    )


@category_app.command()
def remove(
    name: Annotated[str, typer.Argument(help="Name of the category.")],
    out: Outs = None,
    runs: Runs = "nightshift-runs",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Take a category out of the nights to come; nothing that is registered is deleted."""
    from pipeline.category_changes import remove_category  # noqa: PLC0415

    places, now = _places(out, runs), dt.datetime.now(dt.UTC)
    done = _connected(lambda: remove_category(name, places, now, dry_run=dry_run))
    if as_json:
        print_json({"dry_run": dry_run, **done.to_json()})
        return
    leaves = "leaves the nights" if done.in_registry else "had left the nights before"
    leaves = leaves if done.num_versions else "was never registered"
    leaves = "would leave the nights" if dry_run and done.num_versions else leaves
    go = "; these aliases go" if done.aliases else ""
    typer.echo(f"{name} {leaves}: {_in_words(done)}{go}")
    _print_places(done, out, dry_run)
    typer.echo(
        f"kept: all versions of nightshift.{name}, their files and runs in MLflow, all results, "
        f"fleets and labels"
    )
    typer.echo("left to do: take it out of the catalogue, or the next onboarding brings it back")


def _places(out: list[str] | None, runs: str) -> Any:
    from pipeline import storage  # noqa: PLC0415
    from pipeline.category_changes import Places  # noqa: PLC0415

    outs = [storage.absolute(each).rstrip("/") for each in out or ()]
    return Places(outs=outs, runs=storage.absolute(runs))


def _connected(change: Callable[[], Any]) -> Any:
    from pipeline.registry import connection  # noqa: PLC0415

    with redirect_stdout(sys.stderr):
        connection.connect()
        return change()


def _in_words(done: Any) -> str:
    aliases = [f"{alias} {version}" for alias, version in sorted(done.aliases.items())]
    versions = "1 version" if done.num_versions == 1 else f"{done.num_versions} versions"
    return ", ".join([versions, *(aliases or ["no alias"])])


def _print_places(done: Any, outs: list[str] | None, dry_run: bool) -> None:
    if not outs:
        typer.echo("no --out was given: whether nights are pinned to it was not looked at")
    for noted in done.noted:
        typer.echo(f"noted in {noted}/fleet/renames.json")
    if done.in_overview and not dry_run:
        typer.echo("its outcome in onboardings/ and onboarding.html is changed too")
