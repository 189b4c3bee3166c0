"""Options that several commands share."""

from typing import Annotated

import typer

Features = Annotated[
    str | None,
    typer.Option(
        envvar="NIGHTSHIFT_FEATURES", help="Folder or s3:// prefix of features to keep and reuse."
    ),
]
FeaturesGb = Annotated[
    float,
    typer.Option(
        envvar="NIGHTSHIFT_FEATURES_GB", min=0, help="What the features may take there, 10^9 bytes."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Night = Annotated[str, typer.Option(help="The night's date, YYYY-MM-DD.")]
Out = Annotated[str, typer.Argument(help="Folder or s3:// prefix of the results.")]
WithLabels = Annotated[
    list[str] | None,
    typer.Option(
        "--with-labels",
        help="Results (OUT of `score --out`) whose labels count, beside `labels:`; repeatable.",
    ),
]
