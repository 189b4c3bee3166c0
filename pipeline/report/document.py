"""The report's page as text: template, style and scripts in one document, nothing else to fetch.

Its content policy knows style and script by their digests. Besides these only files of the page's
own origin are let in, pictures and data; the page asks for nothing else.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipeline.images import heatmap
from pipeline.pages.environment import content_digest, page_environment
from pipeline.pages.words import visible
from pipeline.report import alerts

PARTS = Path(__file__).with_name("static")  # where the scripts lie
SCRIPTS = ("data", "labels", "images", "review", "start")  # in this order
MAX_CARDS = 24  # categories with a chart; the others are rows of a table
MAX_NAMES = 200  # of categories without images
FILTERS = {"category": lambda name: visible(name) or "(no category)"}


def render(context: Mapping[str, Any], **more: Any) -> str:
    """The page of a night.

    Args:
        context: the night's parts as plain values, not escaped.
        more: further values, not escaped.
    """
    environment = page_environment(FILTERS)
    style = environment.get_template("report/static/report.css").render(
        legend=heatmap.legend_gradient()
    )
    script = _script()
    return environment.get_template("report/static/report.html.j2").render(
        {**context, **more},
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own files
        policy=_policy(style, script),
        tables=heatmap.filter_tables(),
        max_names=MAX_NAMES,
        max_alerts=alerts.MAX_SHOWN,
    )


def _policy(style: str, script: str) -> str:
    """What the page may do; a file's own origin is its disk, so 'self' works there too."""
    rules = {
        "default-src": "'none'",
        "img-src": "'self' data:",
        "style-src": content_digest(style),
        "script-src": f"{content_digest(script)} 'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "nightshift",
    }
    return "; ".join(f"{name} {sources}" for name, sources in rules.items())


def _script() -> str:
    parts = [(PARTS / f"{name}.js").read_text() for name in SCRIPTS]
    return "\n".join(['(() => {\n"use strict";', *parts, "})();"])
