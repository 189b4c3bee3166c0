"""The page of a gate: the verdict, its numbers, and the images whose label would decide it.

One static file with its pictures. Its one script writes labels as JSON Lines, as the report does.
"""

import json
from pathlib import Path

from model.preprocessing import Preprocessing
from pipeline import storage
from pipeline.catalogue.category_name import file_name
from pipeline.data_report.thumbnails import thumbnails
from pipeline.pages.environment import render_page
from pipeline.promotion.gate_answer import GateAnswer

SCRIPT = Path(__file__).with_name("static") / "gate.js"
TEMPLATE = "promotion/static/gate.html.j2"
MOST_SHOWN = 500  # images; all are to be labelled before the gate is asked again


def write_gate_page(answer: GateAnswer, out: str, preprocessing: Preprocessing) -> str:
    """Write a verdict beside the results, as a page and as JSON; return the page's address.

    Args:
        answer: what the gate said.
        out: folder of results.
        preprocessing: how the category's images are read.
    """
    name = f"version={answer.challenger}"
    folder = storage.join(
        storage.absolute(out), "promotion", f"category={file_name(answer.category)}", name
    )
    content = json.dumps(answer.to_json(), indent=1).encode()
    storage.write_bytes(storage.join(folder, "gate.json"), content)
    page = storage.join(folder, "index.html")
    storage.write_bytes(page, gate_page(answer, preprocessing).encode())
    return page


def gate_page(answer: GateAnswer, preprocessing: Preprocessing) -> str:
    """Return the page; an image that cannot be read any more stands there without a picture."""
    images = list(answer.evidence.open_images) if answer.evidence else []
    shown = images[:MOST_SHOWN]
    pictures = thumbnails((image.image_uri, preprocessing) for image in shown)
    values = {
        "answer": answer,
        "numbers": numbers(answer),
        "shown": shown,
        "num_more": len(images) - len(shown),
        "pictures": pictures,
    }
    return render_page(TEMPLATE, values, script=SCRIPT)


def numbers(answer: GateAnswer) -> list[tuple[str, str, str]]:
    """What both came to, as rows: name, champion, challenger."""
    evidence = answer.evidence
    if evidence is None:
        return []
    tally, champion, challenger = evidence.tally, evidence.champion, evidence.challenger
    rows: list[tuple[object, ...]] = [
        ("flagged images", f"{champion.flagged:,}", f"{challenger.flagged:,}"),
        ("images taken for good", tally.taken_for_good, tally.taken_for_good),
        ("labelled defects that it alone flags", tally.defects_lost, tally.defects_gained),
        ("labelled good images that it alone flags", tally.goods_fewer, tally.goods_more),
        ("images without a label that it alone flags", tally.open_lost, tally.open_gained),
        (
            "promised share of good images flagged",
            f"{champion.promised:g}",
            f"{challenger.promised:g}",
        ),
        ("distance of scores from calibration (KS)", _short(champion.ks), _short(challenger.ks)),
    ]
    cost = answer.cost or {}
    if {"champion", "challenger"} <= cost.keys():
        both = cost["champion"], cost["challenger"]
        rows.append(
            ("milliseconds for an image", *(f"{each['ms_per_image']:.3g}" for each in both))
        )
        rows.append(("megabytes of heads", *(f"{each['megabytes']:.3g}" for each in both)))
    return [(str(name), str(first), str(second)) for name, first, second in rows]


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"
