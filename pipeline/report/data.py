"""The night's images as small script files beside the page, which loads what it shows.

A page opened from a disk may not fetch files, but it may load scripts; so each file is one call
that hands over JSON. The index holds a few numbers of every image, so that the page can sort and
filter all of them; addresses and texts lie in pages of at most ``PAGE_ROWS``, one category each.

The files of one report share a prefix that is a digest of their content: a page never meets the
data of another one.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from os.path import commonprefix
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike

from pipeline.night.fleet.fleet import Champion
from pipeline.night.folder import picture_name
from pipeline.report.boxes import boxes_of
from pipeline.report.rows import MODEL

FOLDER = "data"
SUFFIX = ".js"
PAGE_ROWS = 200  # images or failures in one file
MAX_ERROR = 500  # characters of an error text
FLAGGED, DISCOVERY, DEFECT, GOOD, AUDIT, USUAL, UNSURE = 1, 2, 4, 8, 16, 32, 64  # in the index
LABEL_BITS = {"defect": DEFECT, "good": GOOD, "unsure": UNSURE}
STATISTICS = ("brightness", "contrast", "sharpness")


def data_files(  # noqa: PLR0913, PLR0917  all that the page may show
    categories: Sequence[str],
    notable: pa.Table,
    failed: pa.Table,
    labels: Mapping[str, str],
    champions: Mapping[str, Champion] | None = None,
    queue: Sequence[str] = (),
) -> dict[str, bytes]:
    """The files by name, the index first.

    Args:
        categories: all of the night, in the order of the page.
        notable: images, as ``rows.worst_images`` orders them; columns ``audit`` and ``usual``, if
            there, say which are in the audit sample and which are there for nothing else.
        failed: images without a score, as ``rows.first_failures`` orders them.
        labels: what people said so far, by image_uri.
        champions: by category; boxes are drawn by how they read images.
        queue: addresses of images, those whose label is worth most first.
    """
    notable, failed = _in_order(notable, categories), _in_order(failed, categories)
    pages = dict(_image_pages(notable, categories, labels, champions or {})) | dict(
        _failure_pages(failed)
    )
    index = {
        "categories": list(categories),
        "page_rows": PAGE_ROWS,
        "images": _image_index(notable, categories, labels),
        "failures": _failure_index(failed, categories),
        "queue": _places(notable, queue),
    }
    contents = {name: _call(name, content) for name, content in [("index", index), *pages.items()]}
    digest = hashlib.sha256(b"".join(contents.values())).hexdigest()[:12]
    return {f"{FOLDER}/{digest}-{name}{SUFFIX}": data for name, data in contents.items()}


def _call(name: str, content: Any) -> bytes:
    """A script of plain ASCII that can stand anywhere, even inside a page."""
    text = json.dumps([name, content], separators=(",", ":"), allow_nan=False)
    return f"nightshift({text[1:-1]})\n".replace("<", "\\u003c").encode("ascii")


def _in_order(rows: pa.Table, categories: Sequence[str]) -> pa.Table:
    """Categories as they stand on the page; within one nothing moves."""
    positions = pc.index_in(rows["category"], value_set=pa.array(categories, pa.string()))
    return rows.take(np.argsort(positions.to_numpy(), kind="stable"))


def _image_index(
    rows: pa.Table, categories: Sequence[str], labels: Mapping[str, str]
) -> dict[str, Any]:
    uris = rows["image_uri"].to_pylist()
    bits = np.fromiter((LABEL_BITS.get(labels.get(uri, ""), 0) for uri in uris), np.uint8)
    bits |= rows["flagged"].to_numpy() * np.uint8(FLAGGED)
    bits |= rows["flagged_fdr"].to_numpy() * np.uint8(DISCOVERY)
    for name, bit in (("audit", AUDIT), ("usual", USUAL)):
        if name in rows.column_names:
            bits |= rows[name].to_numpy() * np.uint8(bit)
    return {
        "counts": _counts(rows, categories),
        "score": _base64(rows["score"].to_numpy(), "<f4"),
        "p_value": _base64(rows["p_value"].to_numpy(), "<f4"),
        "bits": _base64(bits, "u1"),
        "key": _base64([int(picture_name(uri)[:8], 16) for uri in uris], "<u4"),
    }


def _places(rows: pa.Table, uris: Sequence[str]) -> list[int]:
    """Numbers of images in the index."""
    numbers: list[int] = pc.index_in(
        pa.array(uris, pa.string()), value_set=rows["image_uri"].combine_chunks()
    ).to_pylist()
    return numbers


def _failure_index(rows: pa.Table, categories: Sequence[str]) -> dict[str, Any]:
    statuses, codes = np.unique(rows["status"].to_pylist(), return_inverse=True)
    return {
        "counts": _counts(rows, categories),
        "statuses": statuses.tolist(),
        "status": _base64(codes, "u1"),
    }


def _counts(rows: pa.Table, categories: Sequence[str]) -> list[int]:
    counts = {entry["values"]: entry["counts"] for entry in _value_counts(rows["category"])}
    return [counts.get(name, 0) for name in categories]


def _value_counts(column: pa.ChunkedArray) -> list[dict[str, Any]]:
    counts: list[dict[str, Any]] = column.value_counts().to_pylist()
    return counts


def _base64(values: ArrayLike, kind: str) -> str:
    return base64.b64encode(np.asarray(values, dtype=kind).tobytes()).decode("ascii")


def _image_pages(
    rows: pa.Table,
    categories: Sequence[str],
    labels: Mapping[str, str],
    champions: Mapping[str, Champion],
) -> Iterator[tuple[str, dict[str, Any]]]:
    start = 0
    for number, count in enumerate(_counts(rows, categories)):
        for page, first in enumerate(range(0, count, PAGE_ROWS)):
            own = rows.slice(start + first, min(PAGE_ROWS, count - first))
            champion = champions.get(categories[number])
            yield f"images-{number}-{page}", _image_page(own, labels, champion)
        start += count


def _image_page(
    rows: pa.Table, labels: Mapping[str, str], champion: Champion | None
) -> dict[str, Any]:
    columns = rows.to_pydict()
    models = list(zip(*(columns[name] for name in MODEL), strict=True))
    distinct = sorted(set(models), key=str)
    statistics = [name for name in STATISTICS if any(v is not None for v in columns[name])]
    return {
        **_addresses(columns["image_uri"]),
        "etag": columns["image_etag"],
        "picture": [picture_name(uri) for uri in columns["image_uri"]],
        "score": _short(columns["score"]),
        "p_value": _short(columns["p_value"]),
        "models": distinct,
        "model": [distinct.index(model) for model in models],
        "label": [labels.get(uri) for uri in columns["image_uri"]],
        "statistics": {name: _short(columns[name]) for name in statistics},
        **boxes_of(columns, champion),
    }


def _failure_pages(rows: pa.Table) -> Iterator[tuple[str, dict[str, Any]]]:
    for page, start in enumerate(range(0, rows.num_rows, PAGE_ROWS)):
        columns = rows.slice(start, PAGE_ROWS).to_pydict()
        errors = [(error or "")[:MAX_ERROR] for error in columns["error"]]
        yield f"failures-{page}", {**_addresses(columns["image_uri"]), "error": errors}


def _addresses(uris: Sequence[str]) -> dict[str, Any]:
    """What all addresses begin with, once, and the rest of each."""
    folder = commonprefix(list(uris))  # noqa: RUF071 - by characters, not by folders
    return {"folder": folder, "uri": [uri[len(folder) :] for uri in uris]}


def _short(values: Sequence[float | None]) -> list[float | None]:
    """Six digits that count; JSON has no word for what is not a number."""
    return [
        None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
        for value in values
    ]
