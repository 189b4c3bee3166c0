"""Detectors beside each other: per category and on the mean, accuracy and what it costs."""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from pipeline.evaluation.protocol import CategoryResult
from pipeline.evaluation.tables import QUALITY, RATES, Evaluation, cells, markdown_table
from pipeline.pages import plot_style as style
from pipeline.pages.words import decimal

COSTS = {
    "fit_s": "seconds to fit",
    "ms_per_image": "CPU ms per image",
    "megabytes": "MB per category",
}
EXPLANATION = """\
Percent, mean ± standard deviation over seeds, measured once after the last pass. Detectors of a \
category that see the same features share one backbone pass over its images. Time of an image is \
that of one image alone, backbone included; on a shared machine times compare within a table."""
PICTURE_SIZE = (1400, 720)  # pixels
PICTURE_BOX = (130, 136, 980, 620)  # left, top, right, bottom
LEGEND = 0.73  # of the width, where it starts
LEAST_MARGIN = 0.01  # of AUROC around the points


def comparison(evaluations: Mapping[str, Evaluation]) -> dict[str, bytes]:
    """Return the comparison as files by name, of evaluations of the same categories by detector."""
    document = json.dumps(_to_json(evaluations), indent=1, ensure_ascii=False, allow_nan=False)
    files = {
        "comparison.md": to_markdown(evaluations).encode(),
        "comparison.json": f"{document}\n".encode(),
    }
    points = _points(evaluations)
    return files | ({"comparison.png": _picture(points)} if points else {})


def to_markdown(evaluations: Mapping[str, Evaluation]) -> str:
    """Return one table per category, and one of the means."""
    names = list(next(iter(evaluations.values())).categories)
    parts = ["# Comparison", EXPLANATION]
    for name in names:
        found = {d: e.results.get(name) for d, e in evaluations.items()}
        parts += [f"## {name}", _table({d: _row(r) for d, r in found.items()})]
    whole = {d: e for d, e in evaluations.items() if len(e.results) == len(names)}
    if len(names) > 1 and whole:
        parts += [f"## Mean of {len(names)}", _table({d: _mean_row(e) for d, e in whole.items()})]
    errors = [f"- {d}, {n}: {t}" for d, e in evaluations.items() for n, t in e.errors.items()]
    if errors:
        parts += ["## Failed", "\n".join(errors)]
    return "\n\n".join(parts) + "\n"


def costs(result: CategoryResult) -> dict[str, float | None]:
    """Return what a category's detector costs by name of COSTS; None is not known."""
    cost = result.cost
    return {
        "fit_s": statistics.fmean(seed.fit_s for seed in result.seeds),
        "ms_per_image": cost.ms_per_image if cost else None,
        "megabytes": cost.megabytes if cost else None,
    }


def _table(rows: Mapping[str, Sequence[str]]) -> str:
    columns = ["detector", *QUALITY.values(), *RATES.values(), *COSTS.values()]
    return markdown_table(columns, [[name, *row] for name, row in rows.items()])


def _row(result: CategoryResult | None) -> list[str]:
    if result is None:
        return ["failed"]
    accuracy = cells(result.summary(), (*QUALITY, *RATES))
    return [*accuracy, *(decimal(value) for value in costs(result).values())]


def _mean_row(evaluation: Evaluation) -> list[str]:
    accuracy = cells(evaluation.mean(), (*QUALITY, *RATES))
    return [*accuracy, *(decimal(value) for value in _mean_costs(evaluation).values())]


def _mean_costs(evaluation: Evaluation) -> dict[str, float | None]:
    every = [costs(result) for result in evaluation.results.values()]
    means = {}
    for name in COSTS:
        known = [value for each in every if (value := each[name]) is not None]
        means[name] = statistics.fmean(known) if known else None
    return means


def _to_json(evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    return {
        detector: evaluation.to_json()
        | {"costs": {name: costs(result) for name, result in evaluation.results.items()}}
        for detector, evaluation in evaluations.items()
    }


def _points(evaluations: Mapping[str, Evaluation]) -> dict[str, tuple[float, float]]:
    """Return mean time of an image and mean image AUROC, of detectors that have both."""
    points = {}
    for detector, evaluation in evaluations.items():
        mean, time = evaluation.mean(), _mean_costs(evaluation)["ms_per_image"]
        if "image_auroc" in mean and time is not None:
            points[detector] = time, mean["image_auroc"][0]
    return points


def _picture(points: Mapping[str, tuple[float, float]]) -> bytes:
    """Draw accuracy against cost: numbered points, the best first, and what they are."""
    figure = style.new_figure(*PICTURE_SIZE)
    style.headings(figure, "Accuracy and cost", "means over the categories of each detector")
    axes = style.panel(figure, PICTURE_BOX)
    axes.set_xlabel("CPU ms per image, backbone included", **style.LABEL)
    axes.set_ylabel("image AUROC", **style.LABEL)
    axes.set_xlim(0, 1.2 * max(time for time, _ in points.values()))
    aurocs = [auroc for _, auroc in points.values()]
    margin = max(0.2 * (max(aurocs) - min(aurocs)), LEAST_MARGIN)
    axes.set_ylim(min(aurocs) - margin, max(aurocs) + margin)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    best_first = sorted(points.items(), key=lambda point: -point[1][1])
    for number, (detector, (time, auroc)) in enumerate(best_first, start=1):
        axes.plot(time, auroc, "o", color=style.FLAG, markersize=13, clip_on=False)
        centred: dict[str, Any] = {"ha": "center", "va": "center", "size": style.SMALL}
        axes.text(time, auroc, str(number), color=style.SURFACE, **centred)
        about = f"{number}   {detector}   {100 * auroc:.1f} %, {time:.0f} ms"
        down = 1 - (PICTURE_BOX[1] + 36 * number) / PICTURE_SIZE[1]
        figure.text(LEGEND, down, about, color=style.INK, size=style.TEXT, parse_math=False)
    return style.png(figure)
