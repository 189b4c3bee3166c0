"""``nightshift cache``: what the feature store holds, and making room in it."""

from typing import Annotated, Any

import typer
from rich.console import Console

from jobs.cli.options import Features, FeaturesGb, Json
from jobs.terminal.tables import print_json, table
from pipeline.feature_store.place import DEFAULT_GB, GB, required_place

cache_app = typer.Typer(no_args_is_help=True, help="The features that are kept: show, trim.")


@cache_app.command()
def show(
    features: Features = None, features_gb: FeaturesGb = DEFAULT_GB, as_json: Json = False
) -> None:
    """Show what is kept for each category, what was used last first."""
    from pipeline.feature_store.stored_groups import stored_groups  # noqa: PLC0415

    place = required_place(features, features_gb)
    groups = [_to_json(group) for group in reversed(stored_groups(place.uri))]
    size = sum(group["size_bytes"] for group in groups)
    if as_json:
        answer = {"features": place.uri, "max_bytes": place.max_bytes, "size_bytes": size}
        print_json({**answer, "groups": groups})
        return
    if groups:
        _print_groups(groups)
    images = sum(group["images"] for group in groups)
    typer.echo(f"{place.uri}: {images:,} images, {size / GB:.3g} of {place.max_gb:g} GB")


@cache_app.command()
def trim(
    features: Features = None,
    to: Annotated[
        float | None,
        typer.Option(min=0, help="What the rest may take, 10^9 bytes; else --features-gb."),
    ] = None,
    features_gb: FeaturesGb = DEFAULT_GB,
    as_json: Json = False,
) -> None:
    """Remove what was used least recently until the rest fits, and what killed commands left."""
    from pipeline.feature_store import stored_groups  # noqa: PLC0415

    place = required_place(features, features_gb)
    max_bytes = place.max_bytes if to is None else int(to * GB)
    num_lost = stored_groups.remove_unmarked(place.uri)
    groups = [_to_json(group) for group in stored_groups.stored_groups(place.uri)]
    paths = {group.path for group in stored_groups.trim(place.uri, max_bytes)}
    removed = [group for group in groups if group["group"] in paths]
    size = sum(group["size_bytes"] for group in groups if group["group"] not in paths)
    if as_json:
        print_json({"removed": removed, "unfinished_images": num_lost, "size_bytes": size})
        return
    if removed:
        _print_groups(removed)
    images = sum(group["images"] for group in removed) + num_lost
    typer.echo(f"{place.uri}: {images:,} images removed, {size / GB:.3g} GB left")


def _to_json(group: Any) -> dict[str, Any]:
    """Return a stored group as plain values."""
    about = group.about()
    return {
        "group": group.path,
        "category": group.category,
        "backbone": about.get("backbone"),
        "precision": about.get("precision"),
        "preprocessing": about.get("preprocessing"),
        "planes": about.get("planes", []),
        "images": group.num_images,
        "size_bytes": group.size_bytes,
        "last_used": group.last_used.isoformat(timespec="seconds"),
    }


def _print_groups(groups: list[dict[str, Any]]) -> None:
    """Print a row for each group."""
    shown = table("category", "backbone", "crop", "images", "MB", "last used (UTC)")
    for group in groups:
        crop = (group["preprocessing"] or {}).get("crop", "-")
        shown.add_row(
            group["category"],
            group["backbone"] or "-",
            str(crop) if not isinstance(crop, list) else " x ".join(map(str, crop)),
            f"{group['images']:,}",
            f"{group['size_bytes'] / 1e6:.1f}",
            group["last_used"][:16].replace("T", " "),
        )
    Console().print(shown)
