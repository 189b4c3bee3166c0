"""Options that several commands share."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Night = Annotated[str, typer.Option(help="The night's date, YYYY-MM-DD.")]
Out = Annotated[str, typer.Argument(help="Folder or s3:// prefix of the results.")]
