"""``nightshift inspect``: what a person should know of images before training on them."""

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.cli.exit_codes import ExitCode
from jobs.cli.options import Features, FeaturesGb, Json
from jobs.terminal.tables import print_json
from pipeline.feature_store.place import DEFAULT_GB, named_place

if TYPE_CHECKING:
    from pipeline.data_report.inspection import Inspection


def inspect(  # noqa: PLR0913, PLR0917  options of a command
    catalogue: Annotated[str, typer.Argument(help="Catalogue file (YAML), local or s3://.")],
    only: Annotated[list[str] | None, typer.Option(help="Only this category; repeatable.")] = None,
    out: Annotated[str, typer.Option(help="Folder or s3:// prefix.")] = "nightshift-inspection",
    features: Features = None,
    features_gb: FeaturesGb = DEFAULT_GB,
    as_json: Json = False,
) -> None:
    """Look at a catalogue's images before training: copies, strangers, suspected defects.

    Writes a page with pictures and inspect.json, and logs both to MLflow. Registers nothing.
    """
    from pipeline import storage  # noqa: PLC0415  torch loads in seconds
    from pipeline.catalogue.catalogue import load_catalogue, select  # noqa: PLC0415

    categories = select(load_catalogue(catalogue), only or [])
    from pipeline.data_report.category_reading import Reader  # noqa: PLC0415
    from pipeline.data_report.inspection import inspect_catalogue  # noqa: PLC0415
    from pipeline.data_report.inspection_files import connect, write  # noqa: PLC0415

    out = storage.absolute(out)
    with redirect_stdout(sys.stderr):
        connect()
        reader = Reader(named_place(features, features_gb))
        done = inspect_catalogue(catalogue, categories, reader, _tell)
        page = write(done, out)
    _answer(done, page, as_json)


def _tell(report: Any) -> None:
    typer.echo(f"{report.name}: {report.verdict}", err=True)


def _answer(done: "Inspection", page: str, as_json: bool) -> None:
    if as_json:
        print_json(done.to_json())
    else:
        for name, report in done.reports.items():
            for line in report.lines:
                typer.echo(_line(name, line.check))
        typer.echo(f"page: {page}")
    for name, error in done.errors.items():
        typer.echo(f"nightshift: {name}: {error}", err=True)
    if done.errors:
        raise typer.Exit(ExitCode.PARTLY)
    failed = [name for name, report in done.reports.items() if report.verdict == "FAIL"]
    if failed:
        what = f"{len(failed)} of {len(done.reports)} categories"
        typer.echo(f"nightshift: {what} need mending, first {failed[0]}; see {page}", err=True)
    raise typer.Exit(ExitCode.MEND if failed else ExitCode.DONE)


def _line(name: str, check: Any) -> str:
    advice = f" {check.advice}" if check.advice else ""
    return f"{check.verdict}  {name}: {check.name}: {check.finding}.{advice}"
