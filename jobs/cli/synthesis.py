"""``nightshift synthesise``: a bank of images that deviate from a category's good ones."""

import sys
from contextlib import redirect_stdout
from typing import Annotated

import typer

from jobs.cli.options import Json
from jobs.terminal.tables import print_json


def synthesise(  # noqa: PLR0913, PLR0917  options of a command
    catalogue: Annotated[str, typer.Argument(help="Catalogue file (YAML), local or s3://.")],
    strength: Annotated[
        str, typer.Option(metavar="LOW-HIGH", help="How far images deviate: 0.1-0.5; 0: not.")
    ],
    count: Annotated[int, typer.Option(help="Images to make.")],
    out: Annotated[str, typer.Option(help="Folder or s3:// prefix of the bank.")],
    only: Annotated[str | None, typer.Option(help="The category, of several.")] = None,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 64,
    steps: Annotated[int | None, typer.Option(help="Steps of training.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of training and of every image.")] = 0,
    runs: Annotated[
        str, typer.Option(envvar="NIGHTSHIFT_RUNS", help="Folder or s3:// prefix of checkpoints.")
    ] = "nightshift-runs",
    as_json: Json = False,
) -> None:
    """Train a diffusion model on a category's good images and draw a bank of deviating ones.

    Sizes are 32, 64 (minutes on a CPU), 128 and 256 pixels (for GPUs). Run again it goes on from
    its last checkpoint; a bank that is there already is left as it is.
    """
    from pipeline import storage  # noqa: PLC0415
    from pipeline.catalogue.catalogue import load_catalogue, select  # noqa: PLC0415
    from pipeline.synthesis.bank_order import (  # noqa: PLC0415
        BankOrder,
        SynthesisError,
        read_strength,
        read_training,
    )

    asked, training = read_strength(strength), read_training(size, steps, seed)
    categories = select(load_catalogue(catalogue), [only] if only else [])
    if len(categories) != 1:
        raise SynthesisError(
            f"{catalogue} has {len(categories)} categories and a bank is of one: name it with "
            f"--only."
        )
    order = BankOrder(
        category=categories[0],
        out=storage.absolute(out),
        strength=asked,
        count=count,
        training=training,
    )
    from jobs.synthesise import synthesise as job  # noqa: PLC0415  not before the order is known to be right

    with redirect_stdout(sys.stderr):
        made, was_there = job.synthesise(order, storage.absolute(runs))
    if as_json:
        print_json({"out": order.out, "was_there": was_there, **made})
        return
    low, high = made["strength"]
    said = "was there already" if was_there else f"learned from {made['num_training_images']} good"
    typer.echo(
        f"{order.out}: {made['count']} synthetic images of {made['category']}, {made['size']} "
        f"pixels, strength {low:g} to {high:g}; {said}"
    )
