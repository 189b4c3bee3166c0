"""What ``nightshift explain`` answers a person."""

from pathlib import Path

import numpy as np
import typer
from PIL import Image

from jobs.terminal.tables import number
from pipeline.night.feedback.explanation import Explanation


def print_explanation(explanation: Explanation) -> None:
    """Print a row, and how it came about, line by line."""
    row, champion = explanation.row, explanation.champion
    typer.echo(f"{row['image_uri']}: {row['status']}, category {row['category'] or '(none)'}")
    if row["error"]:
        typer.echo(f"error      {row['error']}")
    if row["score"] is not None:
        verdict = "flagged" if row["flagged"] else "not flagged"
        typer.echo(
            f"score      {number(row['score'])}, threshold {number(row['threshold'])}: {verdict}"
        )
        typer.echo(f"p-value    {number(row['p_value'])}, flagged by {row['false_alarm_rate']:g}")
    if champion is not None:
        scores = champion.reference.calibration.scores
        typer.echo(
            f"calibrated on {len(scores)} good images: median {number(float(np.median(scores)))}, "
            f"highest {number(scores[-1])}"
        )
        typer.echo(f"model      {champion.model_name} version {champion.model_version}")
        typer.echo(f"digest     {champion.model_digest}")
        typer.echo(f"package    {champion.package}")
    if row["map_uri"]:
        typer.echo(f"map        {row['map_uri']}")
    for each in explanation.regions.get("regions", ()):
        typer.echo(
            f"region     {each['width']} x {each['height']} at {each['x']}, {each['y']}: "
            f"{each['share']:.2%} of the image, highest {number(each['peak'])}"
        )
    if explanation.score is not None:
        typer.echo(
            f"made again {number(explanation.score)}, difference {number(explanation.difference)}"
        )
    elif champion is not None:
        typer.echo(f"cannot be made again: {explanation.status}, {explanation.error}")


def write_picture(explanation: Explanation, path: Path) -> None:
    """Write what the network saw beside its map; nothing when there is no image any more."""
    if explanation.picture is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(explanation.picture).save(path, format="PNG")
