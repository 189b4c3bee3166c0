"""``nightshift inspect``: what a person should know of images before training or scoring."""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.cli.exit_codes import ExitCode
from jobs.cli.options import Features, FeaturesGb, Json
from jobs.terminal.tables import print_json
from pipeline.feature_store.place import DEFAULT_GB, named_place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.data_report.category_reading import Reader
    from pipeline.data_report.inspection import Inspection
    from pipeline.inspection.found import Line

CATALOGUE_SUFFIXES = (".yaml", ".yml")
CATALOGUE_OUT = "nightshift-inspection"
MOST_IMAGES = 200


def inspect(  # noqa: PLR0913, PLR0917  options of a command
    what: Annotated[
        str, typer.Argument(help="Catalogue file (YAML), or a dump: a prefix or a manifest.")
    ],
    only: Annotated[list[str] | None, typer.Option(help="Only this category; repeatable.")] = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="Folder or s3:// prefix of the page [default: nightshift-inspection]; for a dump "
            "that of the nights' results, as in `score`."
        ),
    ] = None,
    most: Annotated[
        int, typer.Option(min=0, help="Images of each category of a dump to look at; 0: all.")
    ] = MOST_IMAGES,
    defect_sizes: Annotated[
        bool,
        typer.Option(
            "--defect-sizes",
            help="Of a catalogue: train each category on some of its images, as it is and with "
            "tiles (or without), and say which sizes of made defects are found.",
        ),
    ] = False,
    features: Features = None,
    features_gb: FeaturesGb = DEFAULT_GB,
    as_json: Json = False,
) -> None:
    """Look at images before training or scoring: copies, strangers, suspected defects.

    Of a catalogue all images are looked at, of a dump some of each category, compared with what
    its champion was trained on. Writes a page with pictures and inspect.json, and logs both to
    MLflow. Registers nothing and scores nothing.
    """
    from pipeline import storage  # noqa: PLC0415  torch loads in seconds

    if _is_catalogue(what):
        from pipeline.data_report.category_reading import Reader  # noqa: PLC0415

        reader = Reader(named_place(features, features_gb), measures_sizes=defect_sizes)
        _inspect_catalogue(
            what, only or [], storage.absolute(out or CATALOGUE_OUT), reader, as_json
        )
        return
    if defect_sizes:
        raise typer.BadParameter("only of a catalogue", param_hint="--defect-sizes")
    if out is None:
        raise typer.BadParameter(
            "a dump needs the place of the nights' results", param_hint="--out"
        )
    _inspect_dump(what, only or [], storage.absolute(out), most, as_json)


def _is_catalogue(what: str) -> bool:
    """Whether an address is a catalogue: by its suffix, or a local file that is no manifest."""
    from pipeline.datasets.image_lists import is_manifest  # noqa: PLC0415

    if what.lower().endswith(CATALOGUE_SUFFIXES):
        return True
    return not is_manifest(what) and Path(what).is_file()


def _inspect_catalogue(
    catalogue: str, only: list[str], out: str, reader: "Reader", as_json: bool
) -> None:
    from pipeline.catalogue.catalogue import load_catalogue, select  # noqa: PLC0415

    categories = select(load_catalogue(catalogue), only)
    from pipeline.data_report.inspection import inspect_catalogue  # noqa: PLC0415
    from pipeline.data_report.inspection_files import connect, write  # noqa: PLC0415

    with redirect_stdout(sys.stderr):
        connect()
        done = inspect_catalogue(catalogue, categories, reader, _tell)
        page = write(done, out)
    _answer(done, page, as_json)


def _inspect_dump(dump: str, only: list[str], out: str, most: int, as_json: bool) -> None:
    from pipeline.data_report.dump_inspection import DumpRequest, inspect_dump  # noqa: PLC0415
    from pipeline.data_report.dump_reading import DumpReader  # noqa: PLC0415
    from pipeline.data_report.inspection_files import connect, place_of_dump, write  # noqa: PLC0415

    request = DumpRequest(dump=dump, out=out, only=only)
    with redirect_stdout(sys.stderr):
        connect()
        done = inspect_dump(request, DumpReader(most), _tell)
        page = write(done, place_of_dump(out, done.place))
    _answer(done, page, as_json)


def _tell(report: Any) -> None:
    typer.echo(f"{report.name}: {report.verdict}", err=True)


def _answer(done: "Inspection", page: str, as_json: bool) -> None:
    if as_json:
        print_json(done.to_json())
    else:
        for name, line in _lines(done):
            typer.echo(_line(name, line.check))
        typer.echo(f"page: {page}")
    for name, error in done.errors.items():
        typer.echo(f"nightshift: {name}: {error}", err=True)
    if done.errors:
        raise typer.Exit(ExitCode.PARTLY)
    for sentence in _faults(done, page):
        typer.echo(f"nightshift: {sentence}", err=True)
    raise typer.Exit(ExitCode.MEND if done.verdict == "FAIL" else ExitCode.DONE)


def _lines(done: "Inspection") -> "Iterator[tuple[str, Line]]":
    yield from (("dump", line) for line in done.whole)
    for name, report in done.reports.items():
        yield from ((name, line) for line in report.lines)


def _faults(done: "Inspection", page: str) -> "Iterator[str]":
    failed = [name for name, report in done.reports.items() if report.verdict == "FAIL"]
    if failed:
        what = f"{len(failed)} of {len(done.reports)} categories"
        yield f"{what} need mending, first {failed[0]}; see {page}"
    for line in done.whole:
        if line.check.verdict == "FAIL":
            yield f"{line.check.finding}. {line.check.advice}"


def _line(name: str, check: Any) -> str:
    advice = f" {check.advice}" if check.advice else ""
    return f"{check.verdict}  {name}: {check.name}: {check.finding}.{advice}"
