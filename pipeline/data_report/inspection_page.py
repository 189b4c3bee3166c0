"""The page of an inspection: one static file with its pictures, nothing else to fetch.

Its one script collects the images that a person ticks into a file for ``exclude:``. The content
policy knows it by its digest and lets no other run.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.checks import Verdict
from pipeline.data_report.category_report import CategoryReport
from pipeline.data_report.thumbnails import Order, png_address, thumbnails
from pipeline.inspection.data_checks import SUSPECTS
from pipeline.pages.environment import render_page

SCRIPT = Path(__file__).with_name("static") / "exclude.js"
TEMPLATE = "data_report/static/inspection.html.j2"
MOST_OF_LINE, MOST_PICTURES = 12, 240  # images shown of one line, and on the page
MOST_ZONES = MOST_CURVES = 48  # categories whose zones, or sizes of defects, are drawn
MOST_ROWS = 2_000  # categories in the table

COUNTED: Mapping[str, Mapping[str, Sequence[str]]] = {  # lines whose images the page counts
    "catalogue": {"suspected": (SUSPECTS,)},
    "dump": {"unreadable": ("unreadable",), "strangers": ("another category", "no category")},
}

Category = Mapping[str, Any]


def inspection_page(answer: Mapping[str, Any], reports: Mapping[str, CategoryReport]) -> str:
    """Return the page of an answer (``inspect.json``); reports say how pictures are read."""
    order = list(Verdict)
    ranked = sorted(
        answer["categories"].items(), key=lambda item: -order.index(Verdict(item[1]["verdict"]))
    )
    shown = choose(ranked)
    pictures = thumbnails(_orders(shown, reports))
    values = {
        "answer": answer,
        "headline": headline(answer),
        "totals": totals(answer),
        "ranked": ranked[:MOST_ROWS],
        "num_more": len(ranked) - len(ranked[:MOST_ROWS]),
        "shown": shown,
        "pictures": pictures,
        "zones": [(n, r.zones_picture) for n, r in reports.items() if r.zones_picture][:MOST_ZONES],
    }
    curves = [(n, r.sizes) for n, r in reports.items() if r.sizes]
    values["curves"] = [(n, c.sentence, png_address(c.picture)) for n, c in curves[:MOST_CURVES]]
    script = SCRIPT if answer["kind"] != "dump" else None  # a dump has no catalogue to change
    return render_page(TEMPLATE, values, script=script)


def choose(
    ranked: Sequence[tuple[str, Category]],
) -> list[tuple[str, list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]]]:
    """Return categories with the lines that did not pass and the images to show of each.

    There is room for so many pictures; what comes later is named without them.
    """
    room, chosen = MOST_PICTURES, []
    for name, category in ranked:
        lines = []
        for line in category["checks"]:
            if line["verdict"] == Verdict.PASS:
                continue
            images = line["images"][: min(MOST_OF_LINE, room)]
            room -= len(images)
            lines.append((line, images))
        if lines:
            chosen.append((name, lines))
    return chosen


def headline(answer: Mapping[str, Any]) -> str:
    """Say in one sentence what was found."""
    verdicts = [each["verdict"] for each in answer["categories"].values()]
    bad, doubtful = verdicts.count(Verdict.FAIL), verdicts.count(Verdict.WARN)
    if bad:
        return f"{bad} of {len(verdicts)} categories cannot stay so."
    if doubtful:
        then = "they are scored" if answer["kind"] == "dump" else "training on them"
        return f"Look at {doubtful} of {len(verdicts)} categories before {then}."
    if answer["verdict"] == Verdict.FAIL:
        return "The dump cannot stay so."
    return "Nothing stands out." if answer["verdict"] == Verdict.PASS else "Look at the dump."


def totals(answer: Mapping[str, Any]) -> dict[str, int]:
    """Return the page's large numbers."""
    categories = answer["categories"].values()
    verdicts = [each["verdict"] for each in categories]
    return {
        "images": answer["images"],
        "categories": len(verdicts),
        "fail": verdicts.count(Verdict.FAIL),
        "warn": verdicts.count(Verdict.WARN),
        **{
            name: sum(len(_line(each, line)["images"]) for each in categories for line in lines)
            for name, lines in COUNTED[answer["kind"]].items()
        },
    }


def _line(category: Category, name: str) -> Mapping[str, Any]:
    found = (line for line in category["checks"] if line["name"] == name)
    return next(found, {"images": ()})


def _orders(shown: Any, reports: Mapping[str, CategoryReport]) -> Iterator[Order]:
    for name, lines in shown:
        preprocessing = reports[name].preprocessing
        for _, images in lines:
            for image in images:
                for uri in (image["uri"], image["beside"]):
                    if uri and preprocessing:
                        yield uri, preprocessing
