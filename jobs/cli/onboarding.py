"""``nightshift onboard``: train, calibrate and register the categories of a catalogue."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Annotated, Any

import typer
from rich.console import Console

from jobs.cli.exit_codes import ExitCode
from jobs.cli.options import Features, FeaturesGb, Json
from jobs.cli.printing import print_outcomes
from jobs.terminal.tables import print_json, table
from pipeline.feature_store.place import DEFAULT_GB, named_place


def onboard(  # noqa: PLR0913, PLR0917  options of a command
    catalogue: Annotated[str, typer.Argument(help="Catalogue file (YAML), local or s3://.")],
    only: Annotated[list[str] | None, typer.Option(help="Only this category; repeatable.")] = None,
    only_failed: Annotated[
        bool, typer.Option("--only-failed", help="Only categories that failed the last time.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what there is to do, and do nothing.")
    ] = False,
    promote: Annotated[bool, typer.Option(help="Make the new versions champions.")] = True,
    runs: Annotated[
        str, typer.Option(envvar="NIGHTSHIFT_RUNS", help="Folder or s3:// prefix of checkpoints.")
    ] = "nightshift-runs",
    features: Features = None,
    features_gb: FeaturesGb = DEFAULT_GB,
    as_json: Json = False,
) -> None:
    """Train, calibrate and register one detector for every category of a catalogue.

    What became of each is in RUNS/onboarding.html and RUNS/onboarding.json.
    """
    from pipeline import storage  # noqa: PLC0415  torch and Ray load in seconds
    from pipeline.catalogue.catalogue import load_catalogue, select  # noqa: PLC0415

    runs = storage.absolute(runs)
    categories = select(load_catalogue(catalogue), only or [])
    if only_failed:
        from pipeline.onboarding.overview import failed_categories  # noqa: PLC0415

        failed = failed_categories(runs)
        categories = [category for category in categories if category.name in failed]
    from jobs.onboard import onboard as job  # noqa: PLC0415  not before the catalogue is known to be right

    options = job.OnboardingOptions(
        runs=runs, promote=promote, features=named_place(features, features_gb)
    )
    if dry_run:
        _print_plans(job.plan(categories, options), runs, as_json=as_json)
        return
    with redirect_stdout(sys.stderr):
        outcomes = job.onboard(categories, options)
    _answer(job.to_json(outcomes), as_json=as_json)


def _answer(outcomes: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(outcomes)
    else:
        print_outcomes(outcomes)
    failed = [outcome for outcome in outcomes if outcome["error"]]
    for outcome in failed:
        typer.echo(f"nightshift: {outcome['category']}: {outcome['error']}", err=True)
    raise typer.Exit(ExitCode.PARTLY if failed else ExitCode.DONE)


def _print_plans(plans: Mapping[str, Any], runs: str, *, as_json: bool) -> None:
    """Print what there is to do, and how long it takes where that is on record."""
    from pipeline.onboarding.overview import seconds_a_file  # noqa: PLC0415

    todo = [plan for plan in plans.values() if plan.num_files is not None]
    num_files = sum(plan.num_files for plan in todo)
    each = seconds_a_file(runs)
    seconds = None if each is None else num_files * each
    if as_json:
        listed = {name: vars(plan) for name, plan in plans.items()}
        print_json({"categories": listed, "num_files": num_files, "seconds_of_one_slot": seconds})
        return
    Console().print(_table(plans))
    failed: Sequence[tuple[str, str]] = [(n, p.error) for n, p in plans.items() if p.error]
    for name, error in failed:
        typer.echo(f"{name}: {error}")
    typer.echo(f"to do: {len(todo):,} of {len(plans):,} categories, {num_files:,} files")
    if seconds is not None and todo:
        typer.echo(f"about {seconds / 60:,.0f} minutes of one slot, by what is on record in {runs}")


def _table(plans: Mapping[str, Any]) -> Any:
    shown = table("category", "status", "files")
    for name, plan in plans.items():
        shown.add_row(name, plan.status, "-" if plan.num_files is None else f"{plan.num_files:,}")
    return shown
