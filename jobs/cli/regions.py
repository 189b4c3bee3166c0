"""``nightshift regions``: where the images of a night are anomalous."""

from typing import Annotated, Literal

import typer

from jobs.cli.options import Night, Out

regions_app = typer.Typer(no_args_is_help=True, help="Where images are anomalous.")


@regions_app.callback()
def regions() -> None:
    """Where images are anomalous."""


@regions_app.command()
def export(
    out: Out,
    night: Night,
    to: Annotated[str, typer.Option(help="File to write, local or s3://.")],
    kind: Annotated[
        Literal["coco", "fiftyone", "csv"], typer.Option("--format", help="File format.")
    ] = "coco",
    only: Annotated[list[str] | None, typer.Option(help="Only this category; repeatable.")] = None,
) -> None:
    """Write the regions of a night's images to a file, to look at or correct elsewhere."""
    from pipeline import storage  # noqa: PLC0415  pyarrow loads in seconds
    from pipeline.night.folder import NightFolder  # noqa: PLC0415
    from pipeline.night.region_export import export_regions  # noqa: PLC0415

    content = export_regions(NightFolder(out, night), kind, only or [])
    storage.write_bytes(storage.absolute(to), content)
    typer.echo(f"{to}: {len(content):,} bytes")
