"""How many defects are not flagged: what the audit samples say of a category.

The missed share of a category and night is that of its scored images that are defects and were not
flagged. A sample that was drawn whatever the score and is labelled whole estimates it without bias:
its own missed share. (Samples that are flagged as a whole are left out, see ``audit.py``: with many
of them the estimate is too high.) Several samples together estimate the mean over their categories
and nights, each with the weight of its sample and not of all its images, and their count of missed
images spreads less than a binomial one with that mean. So the exact binomial interval covers that
mean at its level at least.

An image of which people are unsure counts as good for the share and its lower end, and as missed
for the upper end.

Sources: Clopper and Pearson 1934, Biometrika 26; Hoeffding 1956, Annals of Mathematical Statistics
27, theorem 4, for samples of nights whose shares differ and for draws without replacement.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from scipy import special

from pipeline.labels.label import WHATEVER_THE_SCORE, Image, latest

LEVEL = 0.95  # of the interval


@dataclass(frozen=True)
class Missed:
    """Audited images, counted."""

    images: int = 0  # of samples that are labelled whole
    missed: int = 0  # defects that were not flagged
    unsure: int = 0  # of which people are unsure, and that were not flagged

    @property
    def share(self) -> float | None:
        """Of the images that are missed defects; None without an audit."""
        return self.missed / self.images if self.images else None

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of its interval at LEVEL."""
        return _interval(self.missed, self.unsure, self.images)


def _interval(missed: int, unsure: int, images: int) -> tuple[float, float]:
    tail, most = (1 - LEVEL) / 2, missed + unsure
    low = special.betaincinv(missed, images - missed + 1, tail) if missed else 0.0
    high = special.betaincinv(most + 1, images - most, 1 - tail) if most < images else 1.0
    return float(low), float(high)


def missed_by_night(rows: pa.Table) -> dict[str, Missed]:
    """Count what one category's audits have found, by night.

    Only samples that are labelled whole count, of which it was told whether each image was flagged:
    by an import that finds its score in the night's results. Earlier releases did not tell what was
    not flagged from what had no score; theirs counts as not flagged.

    Args:
        rows: every label of one category, of some nights or of all, LABEL_SCHEMA.
    """
    said = _said(rows)
    samples: dict[str, dict[str, Image]] = defaultdict(dict)  # the images by address
    in_results: dict[str, dict[str, bool]] = defaultdict(dict)  # whether they were flagged
    ordered = rows.sort_by("labelled_at")
    columns = ("night", "image_uri", "image_etag", "chosen")
    for night, uri, etag, chosen in _columns(ordered, *columns):
        if chosen in WHATEVER_THE_SCORE:
            samples[night][uri] = (uri, etag or None)
        elif chosen != "not_scored":
            in_results[night][uri] = in_results[night].get(uri, False) or chosen == "flagged"
    labels = {night: {u: said(image) for u, image in own.items()} for night, own in samples.items()}
    return {
        night: _count([(label, in_results[night][uri]) for uri, label in own.items()])
        for night, own in labels.items()
        if night is not None
        and own.keys() <= in_results[night].keys()
        and "undo" not in own.values()
    }


def _said(rows: pa.Table) -> Callable[[Image], str]:
    """What counts of a drawn image; where one of two etags is not known, what its address has."""
    last = latest(rows)
    drawn = last.filter(pc.is_in(last["chosen"], value_set=pa.array(WHATEVER_THE_SCORE)))
    said: dict[Image, str] = {}
    for uri, etag, label in _columns(drawn, "image_uri", "image_etag", "label"):
        said[uri, etag or None] = said[uri, None] = label
    return lambda image: said.get(image) or said.get((image[0], None), "undo")


def _columns(rows: pa.Table, *names: str) -> Iterable[tuple[Any, ...]]:
    return zip(*(rows[name].to_pylist() for name in names), strict=True)


def _count(sample: Sequence[tuple[str, bool]]) -> Missed:
    """Count a sample by what is said of each image and whether it was flagged."""
    return Missed(
        images=len(sample),
        missed=sample.count(("defect", False)),
        unsure=sample.count(("unsure", False)),
    )


def together(samples: Iterable[Missed]) -> Missed:
    """Return what several samples found."""
    counts = [astuple(sample) for sample in samples]
    return Missed(*map(sum, zip(*counts, strict=True)))
