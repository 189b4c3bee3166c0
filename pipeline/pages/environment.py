"""Static pages: whatever comes from outside is text to them, and escaped."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.pages import words

FOLDER = Path(__file__).parents[1]  # templates are named from here, so that pages can share a style


def page_environment(filters: Mapping[str, Any]) -> Environment:
    """Return what renders this package's templates, with the words of all pages and its own."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {**words.FILTERS, **filters}
    return environment
