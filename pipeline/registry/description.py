"""What a model version says of itself in MLflow, in Markdown."""

from pipeline.package import Package

DECIDED = ("threshold", "health_")  # on good images alone, so that they are no measured quality
BOUNDS = ("_low", "_high")  # of intervals


def describe(package: Package, key: str) -> str:
    """Say what a version is, what it promises and rests on, and what was measured.

    Args:
        package: the version's files.
        key: of its onboarding.
    """
    header, calibration, record = package.header, package.reference.calibration, package.record
    counts = [f"{count} {name.replace('_', ' ')}" for name, count in record.counts.items() if count]
    figures = [
        f"{name} {value:.4g}"
        for name, value in record.metrics.items()
        if not name.startswith(DECIDED) and not name.endswith(BOUNDS)
    ]
    return f"""\
Anomaly detector of the category `{record.category}`: an image is flagged when its score is above \
{calibration.threshold:.6g}.

- **False alarms:** {_promise(package)}
- **Data:** {record.settings["images"]}: {", ".join(counts)}; sha256 {record.dataset_digest[:12]}.
- **Measured:** {", ".join(figures) or "nothing; there are no labelled images"}.
- **Model:** {header.backbone}, layers {list(header.layers)}, {header.precision}.
- **Settings:** onboarding key {key[:16]}; whole in settings.json of the run.
"""


def _promise(package: Package) -> str:
    """Say which share of good images is flagged, and whether that is guaranteed."""
    calibration = package.reference.calibration
    rate = f"{100 * calibration.false_alarm_rate:.3g} %"
    count = len(calibration.scores)
    if package.record.settings.get("calibration") == "cross":
        return f"{rate} of good images were asked for; `calibration: cross` does not guarantee it."
    return (
        f"at most {rate} of good images on average, by the scores of {count} good images that the "
        f"model has not seen."
    )
