"""What an evaluation found: tables for people (Markdown) and for programs (JSON, CSV).

Shares are shares in JSON and percent in Markdown. What is undefined is null, never NaN. What a
look at the test set would have claimed stands apart from the results.
"""

import csv
import io
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.evaluation.protocol import ORACLE, CategoryResult, MeanStd, SeedResult, mean_and_std
from pipeline.feature_store.place import in_words

QUALITY = {
    "image_auroc": "image AUROC",
    "image_average_precision": "image AP",
    "image_f1_max": "image F1 max",
    "pixel_auroc": "pixel AUROC",
    "pixel_average_precision": "pixel AP",
    "pixel_aupro_30": "AUPRO 0.3",
    "pixel_aupro_05": "AUPRO 0.05",
}
RATES = {"test_false_alarm_rate": "good images flagged", "test_recall": "defective images flagged"}
METRICS = (*QUALITY, *RATES)
INTERVALS = tuple(f"{name}_{end}" for name in RATES for end in ("low", "high"))

EXPLANATION = """\
Percent, mean ± standard deviation over {seeds}. Measured once, after the last pass: no pass, \
threshold or setting was chosen by a test label. F1 max is at the best of all thresholds, not at \
the one in use. AP is average precision; AUPRO the per-region overlap up to a false-positive rate \
of 0.3 and 0.05."""
AT_THRESHOLD = """\
The threshold comes from good images that the model has not seen. Promised is the share of good \
images flagged on average, if new ones are like those; beside it stands what happened. In brackets \
the 95 % Clopper-Pearson interval, the widest over seeds."""
BY_ORACLE = """\
What picking the training pass on the test set would have claimed. Nobody can have this number in \
production: it needs the labels of the images it is measured on."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What became of every category of one evaluation."""

    categories: Sequence[str]  # in the order of the catalogue
    num_seeds: int
    results: Mapping[str, CategoryResult]
    errors: Mapping[str, str] = field(default_factory=dict)  # why there is no result, or no run
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)  # paths beside the tables

    def mean(self) -> dict[str, MeanStd]:
        """Return each metric's mean over the categories that have it, and its spread over seeds."""
        means = {}
        for name in (*METRICS, ORACLE):
            having = [result for result in self.results.values() if name in result.summary()]
            if having:
                seeds = zip(*(result.seeds for result in having), strict=True)
                means[name] = mean_and_std(
                    [statistics.fmean(each.numbers[name] for each in seed) for seed in seeds]
                )
        return means

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; every key is always there."""
        return {
            "num_seeds": self.num_seeds,
            "categories": {name: self._category(name) for name in self.categories},
            "mean": _summary_json(self.mean()),
        }

    def to_markdown(self) -> str:
        """Return the tables; cells are percent."""
        seeds = "one seed" if self.num_seeds == 1 else f"{self.num_seeds} seeds"
        parts = ["# Evaluation", EXPLANATION.format(seeds=seeds), _quality_table(self)]
        if self.results:
            parts += ["## At the threshold", AT_THRESHOLD, _rates_table(self)]
            parts += ["## Oracle: not a result", BY_ORACLE, _oracle_table(self)]
        if self.errors:
            found = [f"- {name}: {' '.join(text.split())}" for name, text in self.errors.items()]
            parts += ["## Failed", "\n".join(found)]
        findings = [f"- {n}: {line}" for n, r in self.results.items() for line in r.findings]
        if findings:
            parts += ["## The data", "\n".join(findings)]
        counted = {name: r.features for name, r in self.results.items() if r.features}
        if counted:
            found = [f"- {name}: {in_words(counts)}" for name, counts in counted.items()]
            parts += ["## The feature store", "\n".join(found)]
        if any(self.files.values()):
            parts += ["## Pictures and scores", "\n".join(_links(self.files))]
        return "\n\n".join(parts) + "\n"

    def _category(self, name: str) -> dict[str, Any]:
        result = self.results.get(name)
        return {
            "status": "failed" if result is None else "measured",
            "error": self.errors.get(name),
            "counts": dict(result.counts) if result else None,
            **_summary_json(result.summary() if result else {}),
            "seeds": [_seed_json(seed) for seed in result.seeds] if result else [],
            "findings": list(result.findings) if result else [],
            "features": result.features if result else None,
            "files": list(self.files.get(name, ())),
        }


def tables(evaluation: Evaluation) -> dict[str, bytes]:
    """Return both documents as files by name."""
    document = json.dumps(evaluation.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
    return {
        "evaluation.json": f"{document}\n".encode(),
        "evaluation.md": evaluation.to_markdown().encode(),
    }


def scores_csv(result: CategoryResult) -> str:
    """Return every test image's score and decision, a row per image and seed."""
    buffer = io.StringIO(newline="")
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(["image_uri", "defect", "seed", "score", "threshold", "flagged"])
    for seed in result.seeds:
        flags = seed.calibration.flagged(seed.scores)
        for sample, score, flagged in zip(result.samples, seed.scores, flags, strict=True):
            decision = [float(score), seed.calibration.threshold, bool(flagged)]
            rows.writerow([sample.uri, sample.defect, seed.seed, *decision])
    return buffer.getvalue()


def with_spread(mean: float, std: float | None) -> str:
    """Return ``99.8 ± 0.1`` percent; the spread of one value alone is a dash."""
    return f"{100 * mean:.1f} ± {'–' if std is None else f'{100 * std:.1f}'}"


def _summary_json(summary: Mapping[str, MeanStd]) -> dict[str, Any]:
    """Mean and standard deviation of all metrics, the oracle's apart from the results."""
    names = {"results": METRICS, "oracle": (ORACLE,)}
    return {
        group: {
            name: {"mean": _finite(mean), "std": _finite(std)}
            for name in members
            for mean, std in [summary.get(name, (None, None))]
        }
        for group, members in names.items()
    }


def _seed_json(seed: SeedResult) -> dict[str, Any]:
    return {
        "seed": seed.seed,
        "false_alarm_rate": seed.calibration.false_alarm_rate,
        "threshold": _finite(seed.calibration.threshold),
        "results": {name: _finite(seed.metrics.get(name)) for name in (*METRICS, *INTERVALS)},
        "oracle": {ORACLE: _finite(seed.oracle_image_auroc)},
    }


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _quality_table(evaluation: Evaluation) -> str:
    rows = []
    for name in evaluation.categories:
        result = evaluation.results.get(name)
        rows.append([name, *(cells(result.summary(), QUALITY) if result else ["failed"])])
    if evaluation.results:
        rows.append([_mean_of(evaluation), *cells(evaluation.mean(), QUALITY)])
    return markdown_table(["category", *QUALITY.values()], rows)


def _rates_table(evaluation: Evaluation) -> str:
    rows = []
    for name, result in evaluation.results.items():
        promised = result.seeds[0].calibration.false_alarm_rate
        shares = cells(result.summary(), RATES)
        intervals = [_widest(result, rate) for rate in RATES]
        counts = [str(result.counts[kind]) for kind in ("test_good", "test_defective")]
        pairs = (f"{cell} {interval}" for cell, interval in zip(shares, intervals, strict=True))
        rows.append([name, f"≤ {100 * promised:g}", *pairs, *counts])
    rows.append([_mean_of(evaluation), "", *cells(evaluation.mean(), RATES), "", ""])
    return markdown_table(["category", "promised", *RATES.values(), "good", "defective"], rows)


def _oracle_table(evaluation: Evaluation) -> str:
    summaries = {name: result.summary() for name, result in evaluation.results.items()}
    summaries[_mean_of(evaluation)] = evaluation.mean()
    rows = []
    for name, summary in summaries.items():
        last, oracle = summary["image_auroc"], summary[ORACLE]
        more = f"{100 * (oracle[0] - last[0]):+.1f}"
        rows.append([name, with_spread(*last), with_spread(*oracle), more])
    columns = ["image AUROC, last pass", "oracle: pass picked on the test set", "difference"]
    return markdown_table(["category", *columns], rows)


def _widest(result: CategoryResult, rate: str) -> str:
    low = min(seed.metrics[f"{rate}_low"] for seed in result.seeds)
    high = max(seed.metrics[f"{rate}_high"] for seed in result.seeds)
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def cells(summary: Mapping[str, MeanStd], names: Iterable[str]) -> list[str]:
    """Return metrics as a table shows them."""
    return [with_spread(*summary[name]) if name in summary else "no masks" for name in names]


def _mean_of(evaluation: Evaluation) -> str:
    found, asked = len(evaluation.results), len(evaluation.categories)
    return f"mean of {found}" if found == asked else f"mean of {found} out of {asked}"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; numbers are right-aligned, a row that is too short is filled up."""
    filled = [[*row, *[""] * (len(columns) - len(row))] for row in rows]
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [columns, rule, *filled])


def _links(files: Mapping[str, Sequence[str]]) -> list[str]:
    return [
        f"- {name}: " + ", ".join(f"[{path.rpartition('/')[2]}]({path})" for path in paths)
        for name, paths in files.items()
        if paths
    ]
