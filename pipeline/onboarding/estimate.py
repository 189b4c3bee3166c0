"""How long the onboarding of many categories takes, and what it costs: an estimate.

A category that was onboarded before takes as long for each file as it did. One that was not takes
as long as a probe of a few images says, of its own or of a category with the same backbone, kind of
detector and size of images; what cannot be probed takes the mean time of a file on record.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from pipeline.catalogue.catalogue import Category
from pipeline.onboarding.health import NUM_ANOMALIES
from pipeline.onboarding.overview import Outcomes, seconds_of
from pipeline.onboarding.probe import MOST_IMAGES, Probed, kind_of_work


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds that one slot is at work on each category, and where they come from."""

    recorded: Mapping[str, float]  # by category, from what is on record of it, or of others
    probed: Mapping[str, float]  # by category, from the probes
    unknown: tuple[str, ...]  # categories of which nothing is known
    probes: tuple[str, ...]  # categories that were looked at
    tiled: tuple[Probed, ...] = ()  # those of them whose images are cut into tiles

    @property
    def seconds(self) -> float:
        """Of one slot, for all that is known."""
        return sum(self.recorded.values()) + sum(self.probed.values())

    def duration(self, slots: int) -> float:
        """Seconds until the last slot is done: the next largest goes to whichever is free."""
        ends = [0.0] * slots
        for each in sorted((*self.recorded.values(), *self.probed.values()), reverse=True):
            heapq.heapreplace(ends, ends[0] + each)
        return max(ends)


def estimate(
    categories: Sequence[Category],
    num_files: Mapping[str, int],
    on_record: Outcomes,
    probes: Sequence[Probed],
) -> Estimate:
    """Put together what is known of each category; ``num_files`` are by name, masks included."""
    names = {category.name: kind_of_work(category) for category in categories}
    mean = _mean_rate(on_record)
    recorded, probed, unknown = {}, {}, []
    for name, kind in names.items():
        own = [each for each in probes if each.category == name]
        alike = own or [each for each in probes if names[each.category] == kind]
        rate = recorded_rate(on_record.get(name, {}))
        if rate is None and alike:
            probed[name] = fmean(_of_files(each, num_files[name]) for each in alike)
        elif (known := rate if rate is not None else mean) is not None:
            recorded[name] = known * num_files[name]
        else:
            unknown.append(name)
    looked_at = tuple(each.category for each in probes)
    return Estimate(
        recorded=recorded,
        probed=probed,
        unknown=tuple(unknown),
        probes=looked_at,
        tiled=tuple(each for each in probes if each.inputs > 1),
    )


def recorded_rate(outcome: Mapping[str, object]) -> float | None:
    """Return how long a category took for each of its files; None where that is not on record."""
    seconds, num_files = seconds_of(outcome), outcome.get("num_files")
    return seconds / num_files if seconds and isinstance(num_files, int) and num_files else None


def _mean_rate(on_record: Outcomes) -> float | None:
    """Return the mean time of a file, over all files that are on record."""
    known = [each for each in on_record.values() if recorded_rate(each) is not None]
    num_files = sum(each["num_files"] for each in known)
    return sum(seconds_of(each) or 0.0 for each in known) / num_files if known else None


def _of_files(probed: Probed, num_files: int) -> float:
    """Return what so many files take: every one read and embedded, the anomalies, the training."""
    on = probed.num_images
    grown = 1.0 if on is None else max(min(num_files, MOST_IMAGES) / on, 1.0)
    return (num_files + NUM_ANOMALIES) * probed.image_s + grown * probed.training_s
