"""The command line: ``nightshift`` or ``python -m jobs``.

Answers go to stdout, progress and logs to stderr. What exit codes say: ``jobs/cli/exit_codes.py``.
"""

import logging
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Literal

import typer

from jobs.cli import labels
from jobs.cli.cache import cache_app
from jobs.cli.category import category_app
from jobs.cli.champions import history, rollback
from jobs.cli.exit_codes import ExitCode
from jobs.cli.fleet import fleet_app
from jobs.cli.inspect_command import inspect
from jobs.cli.night import score
from jobs.cli.onboarding import onboard
from jobs.cli.options import Features, FeaturesGb, Json, Night, WithLabels
from jobs.cli.printing import print_study
from jobs.cli.promotion import promote, recalibrate
from jobs.cli.prune import prune
from jobs.cli.regions import regions_app
from jobs.cli.replay_command import replay
from jobs.cli.synthesis import synthesise
from jobs.terminal.tables import number, print_json
from model.errors import NightshiftError
from pipeline.feature_store.place import DEFAULT_GB, named_place
from pipeline.version import version

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(labels.app, name="labels")
app.add_typer(regions_app, name="regions")
app.add_typer(fleet_app, name="fleet")
app.add_typer(cache_app, name="cache")
app.add_typer(category_app, name="category")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"nightshift {version()}")
        raise typer.Exit(ExitCode.DONE)


@app.callback()
def nightshift(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and end."
        ),
    ] = False,
) -> None:
    """One SimpleNet anomaly detector per product category, trained and run every night."""


@app.command()
def init(
    prefix: Annotated[
        str, typer.Argument(help="Folder or s3:// prefix with a folder for each category.")
    ],
) -> None:
    """Write a first catalogue of the data sets below a folder: nightshift init PREFIX > FILE."""
    from pipeline.catalogue.first_draft import draft  # noqa: PLC0415
    from pipeline.datasets.layouts import LAYOUTS, LayoutError  # noqa: PLC0415
    from pipeline.datasets.recognise import DataSet, recognise  # noqa: PLC0415

    everything = recognise(prefix)
    for each in everything:
        if not isinstance(each, DataSet):
            typer.echo(f"nightshift: {each.uri}: {each.reason}", err=True)
    found = [each for each in everything if isinstance(each, DataSet)]
    if not found:
        raise LayoutError(
            f"no category found below {prefix}; needed is a folder for each, laid out as one of "
            f"{', '.join(sorted(LAYOUTS))}. Name another folder, or write the catalogue by hand."
        )
    typer.echo(draft(prefix, found), nl=False)


app.command()(inspect)
app.command()(onboard)


@app.command()
def evaluate(  # noqa: PLR0913, PLR0917  options of a command
    catalogue: Annotated[str, typer.Argument(help="Catalogue file (YAML), local or s3://.")],
    only: Annotated[list[str] | None, typer.Option(help="Only this category; repeatable.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings per category.")] = 3,
    detectors: Annotated[
        str, typer.Option(help="Compare these kinds or presets, with commas between.")
    ] = "",
    out: Annotated[str, typer.Option(help="Folder or s3:// prefix.")] = "nightshift-evaluation",
    features: Features = None,
    features_gb: FeaturesGb = DEFAULT_GB,
    as_json: Json = False,
) -> None:
    """Measure a catalogue's detectors on its labelled test images; registers nothing."""
    from pipeline import storage  # noqa: PLC0415
    from pipeline.catalogue.catalogue import load_catalogue, select  # noqa: PLC0415

    categories = select(load_catalogue(catalogue), only or [])
    from jobs.evaluate import evaluate as job  # noqa: PLC0415  not before the catalogue is known to be right

    names = [name.strip() for name in detectors.split(",") if name.strip()]
    out, store = storage.absolute(out), named_place(features, features_gb)
    with redirect_stdout(sys.stderr):
        if names:
            answer = job.compare(categories, names, seeds, out, store)
        else:
            answer = {"": job.evaluate(categories, seeds, out, store)}
    if as_json:
        documents = {name: done.to_json() for name, done in answer.items()}
        print_json(documents if names else documents[""])
    else:
        typer.echo(job.to_markdown(answer) if names else answer[""].to_markdown())
    errors = [(name, *each) for name, done in answer.items() for each in done.errors.items()]
    for name, category, error in errors:
        typer.echo(f"nightshift: {category}{f' with {name}' if name else ''}: {error}", err=True)
    raise typer.Exit(ExitCode.PARTLY if errors else ExitCode.DONE)


@app.command()
def tune(  # noqa: PLR0913, PLR0917  options of a command
    catalogue: Annotated[str, typer.Argument(help="Catalogue file (YAML), local or s3://.")],
    study: Annotated[str, typer.Option(help="Name of the study; its folder below --out.")],
    only: Annotated[list[str] | None, typer.Option(help="Only this category; repeatable.")] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Configurations; else the catalogue's, or 60.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a study.")] = False,
    out: Annotated[str, typer.Option(help="Folder or s3:// prefix.")] = "nightshift-studies",
    write_catalogue: Annotated[
        str | None, typer.Option(help="Also write the winners as a catalogue here.")
    ] = None,
    with_labels: WithLabels = None,
    features: Features = None,
    features_gb: FeaturesGb = DEFAULT_GB,
    as_json: Json = False,
) -> None:
    """Search training settings for each category and for all; registers and promotes nothing."""
    from pipeline import storage  # noqa: PLC0415
    from pipeline.catalogue.catalogue import load_catalogue, select  # noqa: PLC0415
    from pipeline.labels.told import with_labels_of  # noqa: PLC0415
    from pipeline.study.settings import load_study  # noqa: PLC0415

    categories = with_labels_of(select(load_catalogue(catalogue), only or []), with_labels or [])
    asked = load_study(catalogue, study, categories, {"trials": trials} if trials else {})
    from jobs.study import tune as job  # noqa: PLC0415  not before the catalogue is known to be right

    with redirect_stdout(sys.stderr):
        store = named_place(features, features_gb)
        done = job.tune(asked, storage.absolute(out), resume=resume, features=store)
    if write_catalogue:
        storage.write_bytes(storage.absolute(write_catalogue), done.catalogue)
    if as_json:
        print_json(done.answer)
    else:
        print_study(done.answer)
        typer.echo(f"page: {done.page}")
    for name, error in done.errors.items():
        typer.echo(f"nightshift: {name}: {error}", err=True)
    raise typer.Exit(ExitCode.PARTLY if done.errors else ExitCode.DONE)


app.command()(synthesise)
app.command()(promote)
app.command()(recalibrate)
app.command()(history)
app.command()(rollback)
app.command()(prune)
app.command()(replay)
app.command()(score)


@app.command()
def report(
    out: Annotated[str, typer.Argument(help="Folder or s3:// prefix of the results.")],
    night: Night,
) -> None:
    """Write the morning report of a scored night again."""
    from pipeline.night.folder import NightFolder  # noqa: PLC0415
    from pipeline.report.writing import write_report  # noqa: PLC0415

    typer.echo(write_report(NightFolder(out, night)))


@app.command()
def explain(
    image: Annotated[str, typer.Argument(help="Address of the image, as in the results.")],
    out: Annotated[str, typer.Option(help="Folder or s3:// prefix of the results.")],
    night: Night,
    picture: Annotated[
        Path | None, typer.Option(help="Write the image beside its map to this PNG file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Score one image of a night again with the files that scored it, and say what they say."""
    from jobs.cli.explain import print_explanation, write_picture  # noqa: PLC0415
    from pipeline import storage  # noqa: PLC0415
    from pipeline.night.feedback.explanation import explain as make  # noqa: PLC0415
    from pipeline.night.folder import NightFolder  # noqa: PLC0415

    explanation = make(storage.absolute(image), NightFolder(out, night))
    if picture is not None:
        write_picture(explanation, picture)
    if as_json:
        print_json(explanation.to_json())
    else:
        print_explanation(explanation)
    raise typer.Exit(ExitCode.DONE if explanation.score is not None else ExitCode.PARTLY)


@app.command()
def export(
    category: Annotated[str, typer.Argument(help="Category with a registered model.")],
    kind: Annotated[Literal["onnx"], typer.Option("--format", help="File format.")] = "onnx",
    out: Annotated[
        str | None, typer.Option(help="File, local or s3://; without it CATEGORY.onnx here.")
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="Registered version; without it the champion.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a category's model as one file that scores without Nightshift."""
    from pipeline.registry.onnx_export import export_onnx  # noqa: PLC0415

    with redirect_stdout(sys.stderr):
        done = export_onnx(category, out or f"{category}.{kind}", version)
    about = done.metadata
    if as_json:
        print_json({"file": done.uri, "size_bytes": done.size_bytes, **about})
    else:
        typer.echo(
            f"{done.uri}: {category} version {about['model_version']}, flagged above "
            f"{number(about['threshold'])}, false-alarm rate {number(about['false_alarm_rate'])}"
        )


@app.command()
def doctor(
    out: Annotated[
        str | None, typer.Option(help="Folder or s3:// prefix whose rights are tried out.")
    ] = None,
    catalogue: Annotated[
        str | None, typer.Option(help="Catalogue file whose backbones' weights are loaded.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check machine, MLflow, object storage and Ray cluster; say how to mend what fails."""
    from jobs.doctor import doctor as job  # noqa: PLC0415

    with redirect_stdout(sys.stderr):
        checks = list(job.examine(out, catalogue))
    if as_json:
        print_json(job.to_json(checks))
    else:
        typer.echo(job.to_text(checks))
    raise typer.Exit(ExitCode.MEND if job.to_json(checks)["verdict"] == "FAIL" else ExitCode.DONE)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("nightshift-demo"),
    shell: Annotated[
        bool, typer.Option("--shell", help="Start its object store again, and a shell beside it.")
    ] = False,
) -> None:
    """Show the whole story on real solar cells; needs no server and no download."""
    from jobs.demo.demo import open_shell, run_demo  # noqa: PLC0415

    if shell:
        raise typer.Exit(open_shell(out.resolve()))
    raise typer.Exit(ExitCode.DONE if run_demo(out.resolve()) else ExitCode.MEND)


def main() -> None:
    """Run the command line; an error that a user can act on is one line."""
    _set_up_logging()
    try:
        app()
    except NightshiftError as error:
        typer.echo(f"nightshift: {error}", err=True)
        sys.exit(ExitCode.MEND)


def _set_up_logging() -> None:
    level = os.environ.get("NIGHTSHIFT_LOG", "WARNING").upper()
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for chatty in ("mlflow", "alembic", "ray"):  # their own handlers say INFO whatever we ask for
        logging.getLogger(chatty).setLevel(level)
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", level)  # it sets its level again when imported
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
