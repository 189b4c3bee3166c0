"""What settling a night needs to know of its rows, counted as they stream by.

Kept are counts per category, 8 bytes per image to see that none is there twice, and 9 bytes for
each image that may be a discovery (about ``fdr`` of the good ones).

Shapes: N rows of a batch.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model.preprocessing import Preprocessing
from pipeline.images.decode import ImageStatus
from pipeline.images.image_statistics import STATISTICS
from pipeline.images.placement import size_cut
from pipeline.night.fleet.fleet import Fleet
from pipeline.night.results import ResultsError, is_final
from pipeline.night.settling.benjamini_hochberg import (
    Discoveries,
    benjamini_hochberg,
    p_value_ranks,
)
from pipeline.night.settling.drift import SCORE, Sample
from pipeline.night.settling.rank_counts import RankCounts, StreamingMedians

SIDES = ("image_height", "image_width")
COLUMNS = (
    *("image_uri", "image_etag", "category", "status", "score", "p_value", "flagged"),
    *("flagged_fdr", "image_mode", "outside_range"),
    *SIDES,
    *STATISTICS,
)
OUTSIDE = 0.001  # share of an image's pixels outside of the range from which on it is counted
LARGER = 1.25  # times the tiles of the middle good image, from which on an image is counted
TOLERANCE = 1e-6  # of a rank that is read from a p-value
LARGEST_SHARE = 1 + 1e-9  # of fdr: no p-value above fdr is ever a discovery


@dataclass(kw_only=True)
class CategoryCounts:
    """One category's images."""

    statuses: dict[str, int] = field(default_factory=dict)  # by status, in alphabetical order
    num_flagged: int = 0
    median_score: float | None = None  # to a 4,096th of itself
    other_modes: dict[str, int] = field(default_factory=dict)  # scored images by a mode that no
    # good image of the onboarding had
    num_outside: int = 0  # scored images with many pixels that the category's range does not hold
    num_larger: int = 0  # scored images with many more tiles than the middle one at onboarding


class NightCounts:
    """Counts of a night's rows."""

    def __init__(self, fleet: Fleet) -> None:
        self.routed = sorted(
            fleet.champions
        )  # a category's number is its position; others come behind
        self._names = self.routed.copy()
        self._numbers = {name: number for number, name in enumerate(self._names)}
        known = [fleet.champions[name].reference for name in self.routed]
        self._known_modes = [reference.modes for reference in known]
        ways = [fleet.champions[name].preprocessing for name in self.routed]
        self._tiled = {number: way for number, way in enumerate(ways) if way.tiles}
        self._larger: Counter[int] = Counter()
        self._num_calibration = np.array([len(r.calibration.scores) for r in known], np.int64)
        self._fdr = np.array([r.calibration.fdr for r in known], np.float64)
        self._ends = np.cumsum(self._num_calibration + 1)
        self._ranks = np.zeros(int(self._ends[-1]) if known else 0, np.int64)
        self.references = {SCORE: [np.array(r.calibration.scores, np.float32) for r in known]}
        for name in STATISTICS:
            values = [np.array(r.statistics.get(name, ()), np.float32) for r in known]
            self.references[name] = values
        self._rank_counts = {name: RankCounts(values) for name, values in self.references.items()}
        self._medians = {name: StreamingMedians() for name in self.references}
        self._statuses: Counter[tuple[int, str]] = Counter()
        self._flagged = np.zeros(len(known), np.int64)
        self._modes: Counter[tuple[int, str]] = Counter()
        self._outside = np.zeros(len(known), np.int64)
        self._with_failures: set[int] = set()
        self._hashes: list[NDArray[np.uint64]] = []
        self._candidates: list[tuple[NDArray[np.integer], ...]] = []

    def add(self, rows: pa.Table, shards: NDArray[np.int32]) -> None:
        """Count rows of COLUMNS; ``shards`` (N,) numbers the shard of each.

        Raises:
            ResultsError: an image was scored by a champion that is not in the fleet.
        """
        self._hashes.append(uri_hashes(rows))
        numbers = self._number(rows)
        self._statuses += _pairs(numbers, rows["status"])
        self._with_failures |= set(shards[~is_final(rows).to_numpy()].tolist())
        is_ok = pc.equal(rows["status"], ImageStatus.OK.value).to_numpy()
        rows, numbers, shards = rows.filter(pa.array(is_ok)), numbers[is_ok], shards[is_ok]
        if len(numbers) and numbers.max() >= len(self.routed):
            raise ResultsError(
                f"category {self._names[numbers.max()]!r} has scored images, but the night's fleet "
                f"file has no champion for it; score the night again"
            )
        flagged = rows["flagged"].to_numpy()
        self._flagged += np.bincount(numbers[flagged], minlength=len(self.routed))
        self._count_p_values(numbers, rows, shards)
        self._modes += _pairs(numbers, rows["image_mode"])
        is_outside = pc.fill_null(pc.greater(rows["outside_range"], OUTSIDE), False).to_numpy()
        self._outside += np.bincount(numbers[is_outside], minlength=len(self.routed))
        for number, way in self._tiled.items():
            self._larger[number] += _num_larger(rows.filter(pa.array(numbers == number)), way)
        for name in self.references:
            values = rows[name].to_numpy()
            known = ~np.isnan(values)
            self._rank_counts[name].add(numbers[known], values[known])
            self._medians[name].add(numbers[known], values[known])

    @property
    def num_rows(self) -> int:
        """Rows of the whole night."""
        return self._statuses.total()

    def categories(self) -> dict[str, CategoryCounts]:
        """Return the counts of each category that has images, in alphabetical order."""
        counted: dict[str, CategoryCounts] = defaultdict(CategoryCounts)
        named = [(self._names[number], status) for number, status in self._statuses]
        for (name, status), count in sorted(zip(named, self._statuses.values(), strict=True)):
            counted[name].statuses[status] = count
        medians = self._medians[SCORE].of_all()
        for number, name in enumerate(self.routed):
            if name in counted:
                counted[name].num_flagged = int(self._flagged[number])
                counted[name].median_score = medians.get(number)
                counted[name].num_outside = int(self._outside[number])
                counted[name].num_larger = self._larger[number]
        for (number, mode), count in sorted(self._modes.items()):
            if self._known_modes[number] and mode not in self._known_modes[number]:
                counted[self.routed[number]].other_modes[mode] = count
        return dict(counted)

    def discoveries(self) -> dict[str, Discoveries]:
        """Return what Benjamini-Hochberg finds, by category of the fleet."""
        counts = np.split(self._ranks, self._ends[:-1])
        every = zip(self.routed, counts, self._fdr.tolist(), strict=True) if self.routed else ()
        return {name: benjamini_hochberg(own, fdr) for name, own, fdr in every}

    def samples(self) -> list[Sample]:
        """Return each statistic of each category beside its calibration values."""
        return [
            Sample(
                category=name,
                statistic=statistic,
                calibration=values[number],
                cells=self._rank_counts[statistic].of(number),
                median=medians.get(number),
            )
            for statistic, values in self.references.items()
            for medians in [self._medians[statistic].of_all()]
            for number, name in enumerate(self.routed)
        ]

    def with_failures(self) -> set[int]:
        """Return the numbers of the shards that hold rows worth trying again."""
        return self._with_failures

    def unsettled(self, discoveries: Mapping[str, Discoveries]) -> list[int]:
        """Return the numbers of the shards whose flagged_fdr does not say what was found."""
        last = np.array([discoveries[name].rank for name in self.routed], np.int64)
        wrong = [np.zeros(0, np.int32)]
        for shards, numbers, ranks, flags in self._candidates:
            wrong.append(shards[(ranks <= last[numbers]) != flags])
        shards_wrong: list[int] = np.unique(np.concatenate(wrong)).tolist()
        return shards_wrong

    def repeated(self) -> NDArray[np.uint64]:
        """Return hashes of addresses that are there more than once, sorted."""
        hashes = np.sort(np.concatenate([np.zeros(0, np.uint64), *self._hashes]))
        return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])

    def _number(self, rows: pa.Table) -> NDArray[np.int64]:
        encoded = rows["category"].combine_chunks().dictionary_encode()
        for name in encoded.dictionary.to_pylist():
            if name not in self._numbers:
                self._numbers[name] = len(self._names)
                self._names.append(name)
        numbers = np.array([self._numbers[name] for name in encoded.dictionary.to_pylist()], int)
        of_rows: NDArray[np.int64] = numbers[encoded.indices.to_numpy()]
        return of_rows

    def _count_p_values(
        self, numbers: NDArray[np.int64], rows: pa.Table, shards: NDArray[np.int32]
    ) -> None:
        p_values = rows["p_value"].to_numpy()
        num_calibration = self._num_calibration[numbers]
        ranks = p_value_ranks(p_values, num_calibration)
        belongs = np.abs(p_values * (num_calibration + 1) - ranks) <= TOLERANCE
        if not (belongs & (ranks > 0)).all():
            name = self.routed[numbers[np.argmin(belongs & (ranks > 0))]]
            raise ResultsError(
                f"category {name!r} has p-values that are not of its champion's "
                f"{len(self.references[SCORE][self._numbers[name]])} calibration scores; "
                f"score the night again"
            )
        np.add.at(self._ranks, self._ends[numbers] - num_calibration + ranks - 2, 1)
        flags = rows["flagged_fdr"].to_numpy()
        kept = (p_values <= self._fdr[numbers] * LARGEST_SHARE) | flags
        small = (numbers[kept].astype(np.int32), ranks[kept].astype(np.int32), flags[kept])
        self._candidates.append((shards[kept], *small))


def _num_larger(rows: pa.Table, way: Preprocessing) -> int:
    """Count images that are cut into many more tiles than the category's middle good image."""
    if way.tiles is None or way.tiles.image is None:
        return 0
    usual = way.tiles.num_tiles(way.size_read)
    sizes = Counter(zip(*(rows[side].to_pylist() for side in SIDES), strict=True))
    return sum(
        count
        for size, count in sizes.items()
        if None not in size and way.tiles.num_tiles(size_cut(size, way)) > LARGER * usual
    )


def _pairs(numbers: NDArray[np.int64], texts: pa.ChunkedArray) -> Counter[tuple[int, str]]:
    """Count pairs of a category's number and a text, (N,) each; without a text none is made."""
    encoded = texts.combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    is_there = encoded.indices.is_valid().to_numpy(zero_copy_only=False)
    indices = encoded.indices.drop_null().to_numpy()
    codes, counts = np.unique(numbers[is_there] * len(names) + indices, return_counts=True)
    return Counter(
        {
            (code // len(names), names[code % len(names)]): count
            for code, count in zip(codes.tolist(), counts.tolist(), strict=True)
        }
    )


def uri_hashes(rows: pa.Table) -> NDArray[np.uint64]:
    """Return 64-bit hashes of the rows' addresses, (N,)."""
    uris = rows["image_uri"].to_numpy()
    hashes: NDArray[np.uint64] = pd.util.hash_array(uris, categorize=False)
    return hashes
