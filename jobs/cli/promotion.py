"""``nightshift promote`` and ``nightshift recalibrate``: new versions beside a champion."""

import sys
from contextlib import redirect_stdout
from typing import Annotated, Any, NoReturn

import typer

from jobs.cli.exit_codes import ExitCode
from jobs.cli.options import Json
from jobs.terminal.tables import number, print_json

Category = Annotated[str, typer.Argument(help="Category with a champion.")]


def recalibrate(
    category: Category,
    false_alarm_rate: Annotated[
        float | None, typer.Option(help="Share of good images flagged; else the champion's.")
    ] = None,
    with_labels: Annotated[
        list[str] | None,
        typer.Option(help="Results (as score --out) whose labels join in; repeatable."),
    ] = None,
    promote: Annotated[bool, typer.Option(help="Make the new version the champion.")] = True,
    as_json: Json = False,
) -> None:
    """Register the champion's heads with another threshold, in seconds, with the same guarantee."""
    from pipeline.promotion.versions import recalibrate_champion  # noqa: PLC0415
    from pipeline.registry import connection  # noqa: PLC0415

    if false_alarm_rate is not None and not 0 < false_alarm_rate < 1:
        raise typer.BadParameter(f"--false-alarm-rate must be in (0, 1), got {false_alarm_rate}")
    with redirect_stdout(sys.stderr):
        connection.connect(connection.ONBOARDINGS)
        made = recalibrate_champion(category, false_alarm_rate, with_labels or [], promote=promote)
    answer = _to_json(made)
    if as_json:
        print_json(answer)
        return
    typer.echo(
        f"{category}: version {answer['version']}{' champion' if answer['is_champion'] else ''}, "
        f"heads of version {answer['heads_of_version']}; threshold {number(answer['threshold'])} "
        f"(was {number(answer['threshold_before'])}), at most {answer['false_alarm_rate']:g} of "
        f"good images flagged on average, by {answer['num_images']:,} good images, "
        f"{answer['num_labelled']:,} of them labelled"
    )
    if made.challenger:
        stays = "is challenger no longer, this one is" if made.took_place else "stays challenger"
        typer.echo(f"version {made.challenger} {stays}")
    for reason, count in answer["left_out"].items():
        typer.echo(f"{count:,} labelled good images did not count: {reason.replace('_', ' ')}")


def _to_json(made: Any) -> dict[str, Any]:
    now, before = made.done.package.reference.calibration, made.done.before
    return {
        "category": made.version.category,
        "version": made.version.version,
        "is_champion": made.version.is_champion,
        "is_new": made.is_new,
        "heads_of_version": made.base.version,
        "threshold": now.threshold,
        "threshold_before": before.threshold,
        "false_alarm_rate": now.false_alarm_rate,
        "false_alarm_rate_before": before.false_alarm_rate,
        "num_images": len(now.scores),
        "num_labelled": made.done.num_labelled,
        "left_out": made.done.left_out,
        "challenger": made.challenger,
        "took_challengers_place": made.challenger is not None and made.took_place,
    }


def promote(  # noqa: PLR0913  options of a command
    category: Annotated[
        str | None, typer.Argument(help="Category with a challenger; none with --all.")
    ] = None,
    *,
    out: Annotated[str, typer.Option(help="Folder or s3:// prefix of the results.")],
    nights: Annotated[int, typer.Option(min=1, help="Last nights whose images are drawn.")] = 5,
    images: Annotated[int, typer.Option(min=1, help="Images drawn of them in all.")] = 500,
    margin: Annotated[
        float | None, typer.Option(help="Rise of false alarms; else the champion's rate.")
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="Version to judge; else the challenger.")
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Ask about every category that has a challenger.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Promote whatever the verdict; needs --because.")
    ] = False,
    because: Annotated[str, typer.Option(help="Why it is forced, for the record.")] = "",
    as_json: Json = False,
) -> None:
    """Compare a category's challenger with its champion; promote it where the evidence says so.

    The verdict is PROMOTE, KEEP or NEEDS LABELS; each of them is a success. With --all at most 5 %
    of the promotions of one call are no better than their champion, on average.
    """
    if all_ == (category is not None):
        raise typer.BadParameter("name one category, or give --all")
    if all_ and (force or version is not None):
        raise typer.BadParameter("--force and --version are for one category")
    because = because.strip()
    if force != bool(because):
        raise typer.BadParameter("--force and --because go together, and the reason is not empty")
    if margin is not None and not 0 < margin < 1:
        raise typer.BadParameter(f"--margin must be in (0, 1), got {margin}")
    from pipeline.promotion.gate import GateOptions, ask  # noqa: PLC0415  torch loads in seconds
    from pipeline.registry import connection  # noqa: PLC0415

    options = GateOptions(
        out=out,
        nights=nights,
        images=images,
        margin=margin,
        version=version,
        force_because=because,
    )
    with redirect_stdout(sys.stderr):
        connection.connect(connection.ONBOARDINGS)
        if category is None:
            from pipeline.promotion.fleet_gate import ask_all  # noqa: PLC0415

            done = ask_all(options)
        else:
            answer = ask(category, options)
    if category is None:
        _answer_all(done, as_json=as_json)
    if as_json:
        print_json(answer.to_json())
        return
    _print(answer)


def _answer_all(done: Any, *, as_json: bool) -> NoReturn:
    from pipeline.promotion.fleet_gate import headline  # noqa: PLC0415

    if as_json:
        print_json(done.to_json())
    else:
        for answer in done.answers:
            promoted = "; it is champion now" if answer.promoted else ""
            typer.echo(f"{answer.category}: {answer.verdict}. {answer.reason}{promoted}")
        typer.echo(headline(done))
        typer.echo(f"page: {done.page}")
    for name, why in done.failed.items():
        typer.echo(f"nightshift: {name}: {why}", err=True)
    raise typer.Exit(ExitCode.PARTLY if done.failed else ExitCode.DONE)


def _print(answer: Any) -> None:
    category = answer.category
    promoted = "; it is champion now" if answer.promoted else ""
    typer.echo(
        f"{category}: {answer.verdict}. Version {answer.challenger} against "
        f"{answer.champion or 'none'}: {answer.reason}{promoted}"
    )
    if answer.evidence and answer.evidence.left_out:
        left_out = ", ".join(f"{n:,} {why}" for why, n in answer.evidence.left_out.items())
        typer.echo(f"images left out: {left_out}")
    typer.echo(f"page: {answer.page}")
