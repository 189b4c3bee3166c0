"""Static pages: whatever comes from outside is text to them, and escaped."""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.images import heatmap
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


def render_page(
    template: str,
    values: Mapping[str, Any],
    *,
    filters: Mapping[str, Any] | None = None,
    script: Path | None = None,
) -> str:
    """Return a page that is one file: nothing to fetch, and no script runs but its own.

    The template extends ``pages/static/page.html.j2`` and is named from the folder of this package;
    values are not escaped yet, and the content policy knows the one script by its digest.
    """
    text = "" if script is None else script.read_text()
    return (
        page_environment(filters or {})
        .get_template(template)
        .render(
            values,
            legend=heatmap.legend_gradient(),  # of the style that it shares with the report
            script=Markup(text),  # noqa: S704 - our own file
            script_source=content_digest(text) if text else "'none'",
        )
    )


def content_digest(text: str) -> str:
    """Return how a content policy names a style or a script that stands in the page."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
