"""The images in the order of what their label is worth, for whoever has time for a few of them.

Half of the places go to the audit sample, since nothing else says what is missed: whole categories,
in an order that a hash makes anew every night, so that each has its turn and none is chosen for
what it shows. The other half goes to images near their threshold, where a label tells the
most; each category has its nearest one there before any has its second.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, islice

import pyarrow as pa

from pipeline.labels.audit import place

MOST = 500  # images, and the rest of a sample; a person labels fewer in a morning


def review_queue(
    night: str,
    images: pa.Table,
    audit: Mapping[str, Sequence[str]],
    labelled: Collection[str],
    rates: Mapping[str, float],
) -> list[str]:
    """Return addresses of images without a label, those whose label is worth most first.

    Args:
        night: its date.
        images: that are flagged or nearly so, with category, image_uri and p_value.
        audit: the audit sample of each category.
        labelled: addresses of images that have a label.
        rates: false-alarm rates of the categories to look at; the images of others wait.
    """
    drawn = {*chain.from_iterable(audit.values())}
    turns = sorted(audit.keys() & rates.keys(), key=lambda category: place(night, category))
    samples = [[uri for uri in audit[name] if uri not in labelled] for name in turns]
    near = iter(_nearest(images, rates, drawn | {*labelled}))
    queue: list[str] = []
    for sample in samples:
        if len(queue) < MOST:  # a sample that has begun counts only as a whole
            queue += [*sample, *islice(near, len(sample))]
    return queue + list(islice(near, max(MOST - len(queue), 0)))


def _nearest(images: pa.Table, rates: Mapping[str, float], without: Collection[str]) -> list[str]:
    columns = (images[name].to_pylist() for name in ("category", "image_uri", "p_value"))
    by_category: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for category, uri, p_value in zip(*columns, strict=True):
        if category in rates and uri not in without:
            distance = abs(math.log(p_value / rates[category]))
            by_category[category].append((distance, uri))
    ranked = (
        (rank, *image)
        for own in by_category.values()
        for rank, image in enumerate(sorted(own)[:MOST])
    )
    return [uri for _, _, uri in sorted(ranked)[:MOST]]
