"""``nightshift score``: a dump into its night."""

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli.exit_codes import ExitCode
from jobs.cli.options import Json, Night
from jobs.cli.printing import print_night
from jobs.terminal.tables import print_json

if TYPE_CHECKING:
    from pipeline.night.error_budget import ErrorBudget


def score(  # noqa: PLR0913, PLR0917  options of a command
    dump: Annotated[str, typer.Argument(help="Prefix of images, or a manifest.")],
    out: Annotated[str, typer.Option(help="Folder or s3:// prefix of the results.")],
    night: Night,
    error_budget: Annotated[
        tuple[float, float],
        typer.Option(metavar="NIGHT CATEGORY", help="Shares of images that may fail."),
    ] = (0.01, 0.1),
    csv: Annotated[
        str | None, typer.Option(help="Also write the night's rows to this file, local or s3://.")
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Forget the night's other dumps and its champions."),
    ] = False,
    inventory: Annotated[
        str | None,
        typer.Option(help="manifest.json of an S3 Inventory: read instead of listing the prefix."),
    ] = None,
    audit_images: Annotated[
        int,
        typer.Option(min=0, max=1000, help="Of each category, drawn to be labelled by chance."),
    ] = 5,
    as_json: Json = False,
) -> None:
    """Score every image of a dump with its category's champion.

    Dumps of one night add up: another prefix or manifest adds its images. A prefix that is scored
    again has the images that are there now. A manifest that gives an image of the night another
    category or etag is refused. A category keeps the champion that the night began with. With
    --replace this dump alone is the night, scored with today's champions.
    """
    from pipeline import storage  # noqa: PLC0415
    from pipeline.night.folder import NightFolder  # noqa: PLC0415
    from pipeline.night.inventory import InventoriedDump  # noqa: PLC0415

    folder = NightFolder(out, night)
    budget = _budget(error_budget)
    from jobs.night import score as job  # noqa: PLC0415
    from pipeline.night.rows_csv import write_csv  # noqa: PLC0415

    source = InventoriedDump(prefix=dump, inventory=inventory) if inventory else dump
    with redirect_stdout(sys.stderr):
        done = job.score(source, folder, budget, replace=replace, audit_images=audit_images)
        if csv is not None:
            write_csv(folder, storage.absolute(csv))
    if as_json:
        print_json(done.to_json())
    else:
        print_night(done)
    for sentence in done.overruns:
        typer.echo(f"nightshift: {sentence}", err=True)
    raise typer.Exit(
        ExitCode.MEND if done.overruns else ExitCode.PARTLY if done.num_failed else ExitCode.DONE
    )


def _budget(shares: tuple[float, float]) -> "ErrorBudget":
    from pipeline.night.error_budget import ErrorBudget  # noqa: PLC0415

    try:
        return ErrorBudget(night=shares[0], category=shares[1])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
