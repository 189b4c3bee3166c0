"""``nightshift onboard``: train, calibrate and register the categories of a catalogue."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console

from jobs.cli.exit_codes import ExitCode
from jobs.cli.options import Features, FeaturesGb, Json, WithLabels
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
    with_labels: WithLabels = None,
    out: Annotated[
        str | None,
        typer.Option(help="Results by which `promote: gate` judges, instead of `results:`."),
    ] = None,
    promote: Annotated[bool, typer.Option(help="Make the new versions champions.")] = True,
    slots: Annotated[
        int, typer.Option(min=1, help="GPUs or CPU slots that a dry run counts on.")
    ] = 1,
    price_per_hour: Annotated[
        float | None, typer.Option(min=0, help="Of a slot, for the cost in a dry run.")
    ] = None,
    runs: Annotated[
        str, typer.Option(envvar="NIGHTSHIFT_RUNS", help="Folder or s3:// prefix of checkpoints.")
    ] = "nightshift-runs",
    features: Features = None,
    features_gb: FeaturesGb = DEFAULT_GB,
    as_json: Json = False,
) -> None:
    """Train, calibrate and register one detector for every category of a catalogue.

    What became of each is in RUNS/onboarding.html and below RUNS/onboardings/.
    """
    from pipeline import storage  # noqa: PLC0415  torch and Ray load in seconds
    from pipeline.catalogue.catalogue import load_catalogue, select  # noqa: PLC0415
    from pipeline.labels.told import with_labels_of  # noqa: PLC0415

    runs = storage.absolute(runs)
    categories = with_labels_of(select(load_catalogue(catalogue), only or []), with_labels or [])
    if out is not None:
        given = {"results": storage.absolute(out)}
        categories = [category.model_copy(update=given) for category in categories]
    if only_failed:
        from pipeline.onboarding.overview import failed_categories  # noqa: PLC0415

        failed = failed_categories(runs)
        categories = [category for category in categories if category.name in failed]
    from jobs.onboard import onboard as job  # noqa: PLC0415  not before the catalogue is known to be right

    options = job.OnboardingOptions(
        runs=runs, promote=promote, features=named_place(features, features_gb)
    )
    if dry_run:
        asked = _Asked(runs=runs, slots=slots, price_per_hour=price_per_hour, as_json=as_json)
        _print_plans(categories, job.plan(categories, options), asked)
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


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What a dry run is asked for."""

    runs: str
    slots: int
    price_per_hour: float | None  # of a slot
    as_json: bool


def _print_plans(categories: Sequence[Any], plans: Mapping[str, Any], asked: _Asked) -> None:
    """Print what there is to do, how long it may take and what it may cost."""
    num_files = {name: p.num_files for name, p in plans.items() if p.num_files is not None}
    todo = [category for category in categories if category.name in num_files]
    with redirect_stdout(sys.stderr):
        guess = _estimate(todo, num_files, asked)
    if asked.as_json:
        listed = {name: vars(plan) for name, plan in plans.items()}
        total = {"categories": listed, "num_files": sum(num_files.values())}
        print_json({**total, **_in_json(guess, asked)})
        return
    Console().print(_table(plans))
    failed: Sequence[tuple[str, str]] = [(n, p.error) for n, p in plans.items() if p.error]
    for name, error in failed:
        typer.echo(f"{name}: {error}")
    total_files = sum(num_files.values())
    typer.echo(f"to do: {len(todo):,} of {len(plans):,} categories, {total_files:,} files")
    for line in _in_words(guess, asked) if todo else ():
        typer.echo(line)


def _estimate(todo: Sequence[Any], num_files: Mapping[str, int], asked: _Asked) -> Any:
    """Take what is on record, and probe some of those that have no record."""
    import torch  # noqa: PLC0415

    from pipeline.onboarding import probe  # noqa: PLC0415
    from pipeline.onboarding.estimate import estimate, recorded_rate  # noqa: PLC0415
    from pipeline.onboarding.overview import outcomes_so_far  # noqa: PLC0415

    record = outcomes_so_far(asked.runs)
    new = [each for each in todo if recorded_rate(record.get(each.name, {})) is None]
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // asked.slots))  # as a slot of this machine has
    try:
        probes = list(probe.probe(probe.choose(new, num_files)))
    finally:
        torch.set_num_threads(threads)
    return estimate(todo, num_files, record, probes)


def _in_json(guess: Any, asked: _Asked) -> dict[str, Any]:
    is_known = bool(guess.recorded or guess.probed)
    return {
        "seconds_of_one_slot": guess.seconds if is_known else None,
        "slots": asked.slots,
        "seconds": guess.duration(asked.slots) if is_known else None,
        "price_per_hour": asked.price_per_hour,
        "cost": _cost(guess, asked) if is_known else None,
        "estimated": {
            "on_record": len(guess.recorded),
            "by_probe": len(guess.probed),
            "unknown": list(guess.unknown),
            "probed": list(guess.probes),
            **({"tiled": [_rate_of(each) for each in guess.tiled]} if guess.tiled else {}),
        },
    }


def _rate_of(probed: Any) -> dict[str, Any]:
    heads = {"heads": probed.heads, "heads_megabytes": probed.megabytes}
    rate = {"inputs": probed.inputs, "images_per_s": 1 / probed.image_s}
    return {"category": probed.category, **rate, **heads}


def _in_words(guess: Any, asked: _Asked) -> Iterator[str]:
    if guess.recorded or guess.probed:
        slots = "one slot" if asked.slots == 1 else f"{asked.slots:,} slots"
        cost, price = _cost(guess, asked), asked.price_per_hour
        paid = "" if cost is None else f", {cost:,.2f} at {price:g} for an hour of a slot"
        yield f"about {_time(guess.duration(asked.slots))} on {slots}{paid}; an estimate:"
    if guess.recorded:
        yield f"  {len(guess.recorded):,} categories by what is on record in {asked.runs}"
    if guess.probed:
        names = ", ".join(guess.probes)
        yield f"  {len(guess.probed):,} by a few images of {names}, on this machine as it is now"
    for each in guess.tiled:
        yield (
            f"  {each.category}: each image is {each.inputs:,} inputs of the network, "
            f"{1 / each.image_s:.3g} images/s read and embedded; {each.heads:,} heads"
            + (f" of {each.megabytes:.3g} MB in all" if each.megabytes else "")
        )
    if guess.unknown:
        yield f"  {len(guess.unknown):,} not counted: nothing is known of {guess.unknown[0]}"


def _cost(guess: Any, asked: _Asked) -> float | None:
    if asked.price_per_hour is None:
        return None
    hours: float = guess.duration(asked.slots) / 3600
    return hours * asked.slots * asked.price_per_hour


def _time(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} hours" if seconds >= 7200 else f"{seconds / 60:,.1f} minutes"


def _table(plans: Mapping[str, Any]) -> Any:
    shown = table("category", "status", "files")
    for name, plan in plans.items():
        shown.add_row(name, plan.status, "-" if plan.num_files is None else f"{plan.num_files:,}")
    return shown
