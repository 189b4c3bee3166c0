"""The page of a study: one static file that needs nothing beside itself.

Names and values come from a catalogue and are text to the page: autoescaped, and under a content
policy that lets no script run at all.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.pages.environment import render_page
from pipeline.pages.words import NONE, decimal, duration
from pipeline.study.charts import cloud
from pipeline.study.space import label

TEMPLATE = "study/static/study.html.j2"
METRIC_WORDS = {
    "image_auroc": "image AUROC",
    "pixel_ap": "pixel average precision",
    "aupro": "AUPRO at 0.3",
    "balanced": "the mean of image AUROC and pixel average precision",
}
SHOWN_TRIALS = 200


def study_page(found: Mapping[str, Any]) -> str:
    """Return the page of a study's answer (``study.json``)."""
    filters = {
        "interval": interval,
        "settings": settings_line,
        "correlation": correlation,
        "decision": decision,
        "metric": lambda name: METRIC_WORDS.get(name, name),
    }
    values = {
        "found": found,
        "headline": headline(found),
        "totals": totals(found),
        "clouds": clouds(found),
        "check_clouds": check_clouds(found),
        "trials": ranked_trials(found),
        "stages": sorted(found["cost"]["seconds"].items(), key=lambda item: -item[1]),
    }
    return render_page(TEMPLATE, values, filters=filters)


def headline(found: Mapping[str, Any]) -> str:
    """Say in one sentence what the study found."""
    own = found["categories"].values()
    gain = sum(each["best"]["over_default"]["mean"] for each in own) / len(own)
    regret = sum(each["regret_of_one_for_all"]["mean"] for each in own) / len(own)
    changed = sum(each["configuration"] != {} for each in own)
    told = f"The best settings raise the objective by {gain:.3f} on the mean over categories"
    if not changed:
        return f"{told}, which chance may explain: all stay as they are."
    return (
        f"{told}; {changed} of {len(own)} change beyond chance, and one for all costs {regret:.3f}."
    )


def decision(own: Mapping[str, Any]) -> str:
    """Say whether the best settings are chosen."""
    return "the best found" if own["configuration"] else "as it was"


def totals(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the study's large numbers in words."""
    states = [trial["status"] for trial in found["trials"]]
    return {
        "trials": str(len(states)),
        "stopped early": str(states.count("stopped")),
        "failed": str(states.count("failed")),
        "backbone passes": f"{sum(found['cost']['backbone_passes'].values()):,}",
        "time": duration(sum(found["cost"]["seconds"].values())),
    }


def clouds(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return a picture of sigma and the objective for every category."""
    pictures = []
    for name, own in found["categories"].items():
        points = own["curves"].get("sigma", [])
        if points:
            places = [(point["value"], point["objective"], point["share"] == 1) for point in points]
            pictures.append((name, cloud(places, "sigma", "objective", log=True)))
    return pictures


def check_clouds(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return a picture of the objective and test image AUROC for every category with labels."""
    return [
        (
            name,
            cloud(
                [(p["objective"], p["image_auroc"], p["share"] == 1) for p in own["points"]],
                "objective, without a label",
                "test image AUROC",
            ),
        )
        for name, own in found.get("check", {}).items()
    ]


def ranked_trials(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the trials for the table, those that went furthest and did best first."""

    def rank(trial: Mapping[str, Any]) -> tuple[float, float]:
        last = trial["rungs"][-1] if trial["rungs"] else {"share": 0.0, "objective": 0.0}
        return -last["share"], -last["objective"]

    return sorted(found["trials"], key=rank)[:SHOWN_TRIALS]


def settings_line(configuration: Mapping[str, Any]) -> str:
    """Write a configuration in one line."""
    if not configuration:
        return "as the catalogue has it"
    return ", ".join(
        f"{name} {decimal(value) if isinstance(value, float) else label(value)}"
        for name, value in configuration.items()
    )


def interval(told: Mapping[str, float | None], sign: str = "") -> str:
    """Write a mean and its interval."""
    mean, low, high = (told[name] for name in ("mean", "low", "high"))
    around = "" if low is None or high is None else f" [{low:{sign}.3f}, {high:{sign}.3f}]"
    return f"{mean:{sign}.3f}{around}"


def correlation(told: Mapping[str, Any] | None) -> str:
    """Write a rank correlation with its interval and the trials behind it."""
    if told is None or told["value"] is None:
        return NONE
    return (
        f"{told['value']:+.2f} [{told['low']:+.2f}, {told['high']:+.2f}], {told['trials']} trials"
    )
