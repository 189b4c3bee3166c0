"""What a replayed night flags and the night itself did not, and the reverse."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.images.decode import ImageStatus

MOST_KEPT = 200  # images of a category on each side; all are counted
LABELS = ("defect", "good", "unsure", "")  # the last: nobody has said


@dataclass(frozen=True, kw_only=True)
class ChangedImage:
    """An image that one of the two flags."""

    night: str
    image_uri: str
    label: str  # one of LABELS
    p_then: float
    p_now: float


@dataclass(kw_only=True)
class CategoryDifference:
    """One category over all replayed nights."""

    category: str
    versions_then: set[str] = field(default_factory=set)
    version_now: str = ""
    num_images: int = 0  # with a score in both
    num_gone: int = 0  # that had a score, and have none any more
    flagged_then: int = 0
    flagged_now: int = 0
    newly: Counter[str] = field(default_factory=Counter)  # flagged only now, by label
    no_longer: Counter[str] = field(default_factory=Counter)  # flagged only then, by label
    newly_flagged: list[ChangedImage] = field(default_factory=list)
    no_longer_flagged: list[ChangedImage] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """All of it in plain JSON types."""
        return {
            **vars(self),
            "versions_then": sorted(self.versions_then),
            "newly": {label or "no label": self.newly[label] for label in LABELS},
            "no_longer": {label or "no label": self.no_longer[label] for label in LABELS},
            "newly_flagged": [vars(image) for image in self.newly_flagged],
            "no_longer_flagged": [vars(image) for image in self.no_longer_flagged],
        }


@dataclass(frozen=True, kw_only=True)
class ReplayedNight:
    """A night's rows then and now, and what people have said of its images since."""

    night: str
    then: pa.Table  # as results.RESULT_SCHEMA
    now: pa.Table
    labels: Mapping[str, str]  # by address


def differences(nights: Iterable[ReplayedNight]) -> list[CategoryDifference]:
    """Compare night after night; one difference for each category that was replayed, by name."""
    found: dict[str, CategoryDifference] = {}
    for night in nights:
        for row in _paired(night.then, night.now):
            category = row["category"]
            own = found.setdefault(category, CategoryDifference(category=category))
            _count(own, row, night)
    for own in found.values():  # what was least like good images to whoever flags it comes first
        own.newly_flagged = sorted(own.newly_flagged, key=lambda image: image.p_now)[:MOST_KEPT]
        own.no_longer_flagged = sorted(own.no_longer_flagged, key=lambda image: image.p_then)
        del own.no_longer_flagged[MOST_KEPT:]
    return [found[name] for name in sorted(found)]


def _paired(then: pa.Table, now: pa.Table) -> list[dict[str, Any]]:
    """Rows of the images that had a score then and were looked at again."""
    columns = ["image_uri", "category", "p_value", "flagged", "model_version"]
    scored = then.filter(pc.equal(then["status"], ImageStatus.OK.value))
    places = pc.index_in(scored["image_uri"], value_set=now["image_uri"].combine_chunks())
    before = scored.filter(pc.is_valid(places)).select(columns)
    after = now.take(places.drop_null()).select([*columns[2:], "status"])
    renamed = after.rename_columns([f"{name}_now" for name in after.column_names])
    return [row | other for row, other in zip(before.to_pylist(), renamed.to_pylist(), strict=True)]


def _count(own: CategoryDifference, row: Mapping[str, Any], night: ReplayedNight) -> None:
    if row["status_now"] != ImageStatus.OK:
        own.num_gone += 1
        return
    own.versions_then.add(row["model_version"])
    own.version_now = row["model_version_now"]
    own.num_images += 1
    own.flagged_then += row["flagged"]
    own.flagged_now += row["flagged_now"]
    if row["flagged"] == row["flagged_now"]:
        return
    image = ChangedImage(
        night=night.night,
        image_uri=row["image_uri"],
        label=night.labels.get(row["image_uri"], ""),
        p_then=row["p_value"],
        p_now=row["p_value_now"],
    )
    counts, images = (
        (own.newly, own.newly_flagged)
        if row["flagged_now"]
        else (own.no_longer, own.no_longer_flagged)
    )
    counts[image.label] += 1
    images.append(image)
