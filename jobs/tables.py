"""Tables that a person reads on a terminal of 80 columns."""

from rich import box
from rich.table import Table


def table(first: str, *columns: str) -> Table:
    """An empty table; only its first column may be long, and folds."""
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    made.add_column(first, overflow="fold")
    for column in columns:
        made.add_column(column, no_wrap=True)
    return made
