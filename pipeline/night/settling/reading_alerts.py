"""Alerts about a category's files: bit depth, mode, what its range does not hold, and their size.

They join the category's drift alert, as the cause of what the scores say. As for drift, a share of
MAX_SHARE of the images may differ: a few files of another kind are told by their counts alone.
Images that are cut into tiles may be larger than the middle one of the onboarding, as half of those
were; where most are much larger, the highest of their tiles is so as well.
"""

from pipeline.night.settling.drift import MIN_IMAGES, TRIM
from pipeline.night.summary import CategorySummary

MAX_SHARE = TRIM
LARGER_SHARE = 0.5


def add_reading_alerts(entry: CategorySummary, num_larger: int = 0) -> None:
    """Raise a category's alert where too many of its scored images are of another kind.

    ``num_larger`` have many more tiles than the middle one at onboarding.
    """
    reasons = _reasons(entry)
    if entry["ok"] >= MIN_IMAGES and num_larger > LARGER_SHARE * entry["ok"]:
        reasons["image_size"] = (
            f"{num_larger} of {entry['ok']} images have over a quarter more tiles than the middle "
            f"image at onboarding, and with each tile a chance of a false alarm; onboard again"
        )
    if not reasons:
        return
    drift = entry["drift"]
    drift["alert"] = True
    drift["shifted"] = [*reasons, *drift["shifted"]]
    drift["reason"] = "; ".join(
        [*reasons.values(), *([drift["reason"]] if drift["reason"] else [])]
    )


def _reasons(entry: CategorySummary) -> dict[str, str]:
    num_ok, reasons = entry["ok"], {}
    if num_ok < MIN_IMAGES:
        return {}
    num_other = sum(entry["other_modes"].values())
    if num_other > MAX_SHARE * num_ok:
        modes = ", ".join(sorted(entry["other_modes"]))
        reasons["image_mode"] = (
            f"{num_other} of {num_ok} images are coded as {modes}, which no image was at onboarding"
        )
    if entry["outside_range"] > MAX_SHARE * num_ok:
        reasons["pixel_range"] = (
            f"{entry['outside_range']} of {num_ok} images have pixels outside of the range that "
            f"was set at onboarding"
        )
    return reasons
