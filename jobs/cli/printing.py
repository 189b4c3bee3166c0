"""What commands answer a person."""

import json
from typing import Any

import typer
from rich.console import Console

from jobs.terminal.tables import number, table
from pipeline.feature_store.place import in_words
from pipeline.images.file_names import kinds_in_words
from pipeline.onboarding.size_words import sizes_in_words
from pipeline.pages.words import percent


def print_outcomes(outcomes: list[dict[str, Any]]) -> None:
    """Print a row for each category of an onboarding, and what was left out."""
    shown = table("category", "status", "version", "train", "held out", "threshold", "AUROC")
    for outcome in outcomes:
        counts, metrics = outcome["counts"] or {}, outcome["metrics"] or {}
        shown.add_row(
            outcome["category"],
            outcome["status"],
            f"{outcome['version'] or '-'}{' champion' if outcome['is_champion'] else ''}",
            str(counts.get("train", "-")),
            str(counts.get("calibration", "-")),
            number(metrics.get("threshold")),
            number(metrics.get("image_auroc")),
        )
    Console().print(shown)
    for outcome in outcomes:
        note, features = _note(outcome["counts"] or {}), outcome["features"]
        notes = [*([note] if note else []), *([in_words(features)] if features else [])]
        notes += [f"gate: {outcome['gate']}"] if outcome["gate"] else []
        if sizes := outcome["defect_sizes"]:
            kept = percent((outcome["metrics"] or {}).get("pixels_kept"))
            notes.append(f"made defects found: {sizes_in_words(sizes)}; pixels kept: {kept}")
        for line in [*notes, *(outcome["findings"] or ())]:
            typer.echo(f"{outcome['category']}: {line}")


def print_study(study: dict[str, Any]) -> None:
    """Print what a study found for each category, and why it chose what it chose."""
    shown = table("category", "as it was", "best", "better by", "regret of one for all")
    for name, own in study["categories"].items():
        shown.add_row(
            name,
            number(own["default_objective"]["mean"]),
            number(own["best"]["objective"]["mean"]),
            f"{own['best']['over_default']['mean']:+.4f}",
            f"{own['regret_of_one_for_all']['mean']:.4f}",
        )
    Console().print(shown)
    for name, own in {**study["categories"], "all together": study["overall"]}.items():
        typer.echo(f"{name}: {json.dumps(own['configuration'])}: {own['reason']}")
    if features := study["cost"].get("features"):
        typer.echo(in_words(features))


def print_night(done: Any) -> None:
    """Print a row for each category of a night, its alerts, and where the report is."""
    shown = table("category", "images", "flagged", "discoveries", "failed", "threshold", "version")
    for name, category in done.summary["categories"].items():
        shown.add_row(
            name or "(none)",
            str(category["images"]),
            str(category["flagged"]),
            str(category["flagged_fdr"]),
            str(sum(category["failed"].values()) + category["unrouted"]),
            number(category["threshold"]),
            category["model_version"] or "no champion",
        )
    Console().print(shown)
    for name, category in done.summary["categories"].items():
        if category["drift"]["alert"]:
            typer.echo(f"{name} has shifted: {category['drift']['reason']}")
    change = done.change
    if change.num_before and (change.num_added or change.num_removed or change.num_changed):
        typer.echo(
            f"the night had {change.num_before:,} images: {change.num_added:,} added, "
            f"{change.num_removed:,} removed, {change.num_changed:,} changed"
        )
    if others := done.summary["other_files"]:
        typer.echo(f"no images, not read: {kinds_in_words(others)}")
    typer.echo(
        f"{done.num_scored:,} images scored now, {done.images_per_s:.1f} images/s; "
        f"{done.seconds:.0f} s in all"
    )
    typer.echo(f"report: {done.report}")


def _note(counts: dict[str, int]) -> str:
    """Say which good images were left out of an onboarding."""
    words = {
        "unreadable": "unreadable",
        "duplicate": "in there twice",
        "suspect": "left out as suspected defects",
        "left_out": "left out for their labels",
        "beyond_max_images": "beyond max_images",
    }
    notes = [f"{counts[name]} {word}" for name, word in words.items() if counts.get(name)]
    return ", ".join(notes)
