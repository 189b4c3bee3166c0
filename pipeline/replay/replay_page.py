"""The page of a replay: counts for each category, then the images on which the two differ."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from model.preprocessing import Preprocessing
from pipeline import storage
from pipeline.data_report.thumbnails import thumbnails
from pipeline.pages.environment import render_page
from pipeline.replay.difference import LABELS, CategoryDifference

TEMPLATE = "replay/static/replay.html.j2"
MOST_SHOWN = 24  # images of a category on each side


def write_replay(
    place: str,
    told: Mapping[str, Any],
    found: Sequence[CategoryDifference],
    preprocessing: Mapping[str, Preprocessing],
) -> str:
    """Write a comparison as page and as JSON into its place; return the page's address.

    ``told`` is what the command has to say: ``nights``, ``fleet`` and more.
    """
    document = {**told, "categories": [each.to_json() for each in found]}
    storage.write_bytes(storage.join(place, "replay.json"), json.dumps(document, indent=1).encode())
    page = storage.join(place, "index.html")
    storage.write_bytes(page, replay_page(told, found, preprocessing).encode())
    return page


def replay_page(
    told: Mapping[str, Any],
    found: Sequence[CategoryDifference],
    preprocessing: Mapping[str, Preprocessing],
) -> str:
    """Return the page; an image that cannot be read any more stands there without a picture."""
    shown = [
        (each.category, image)
        for each in found
        for side in (each.newly_flagged, each.no_longer_flagged)
        for image in side[:MOST_SHOWN]
    ]
    pictures = thumbnails((image.image_uri, preprocessing[name]) for name, image in shown)
    values = {
        "told": told,
        "headline": headline(found),
        "found": found,
        "changed": [each for each in found if each.newly_flagged or each.no_longer_flagged],
        "most": MOST_SHOWN,
        "pictures": pictures,
    }
    return render_page(TEMPLATE, values, filters={"by_label": by_label})


def headline(found: Sequence[CategoryDifference]) -> str:
    """Say in one sentence what would have been otherwise."""
    newly = sum(sum(each.newly.values()) for each in found)
    no_longer = sum(sum(each.no_longer.values()) for each in found)
    images = sum(each.num_images for each in found)
    if not newly and not no_longer:
        return f"Of {images:,} images none would have been decided otherwise."
    return (
        f"Of {images:,} images {newly:,} would have been flagged that were not, and {no_longer:,} "
        f"that were flagged would not."
    )


def by_label(counts: Mapping[str, int]) -> str:
    """Say how many, and what people have called them."""
    total = sum(counts.values())
    said = [f"{counts[label]:,} {label}" for label in LABELS if label and counts.get(label)]
    return f"{total:,} ({', '.join(said)})" if said else f"{total:,}"
