"""Answers of a command: JSON, and tables that a person reads on a terminal of 80 columns."""

import json
from typing import Any

import typer
from rich import box
from rich.table import Table


def table(first: str, *columns: str) -> Table:
    """An empty table; only its first column may be long, and folds."""
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    made.add_column(first, overflow="fold")
    for column in columns:
        made.add_column(column, no_wrap=True)
    return made


def print_json(answer: Any) -> None:
    """Print an answer for machines."""
    typer.echo(json.dumps(answer, indent=1, default=str))


def number(value: float | None) -> str:
    """Four digits that count; a dash where there is no number."""
    return "-" if value is None else f"{value:.4g}"
