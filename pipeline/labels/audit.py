"""The images that are labelled whatever their score: a random sample of each category and night.

What people label because it was flagged was chosen by its score, and says nothing of what was not
flagged. The audit sample is drawn among all scored images of a category, flagged or not, by a hash
of their addresses: anybody can draw it again, and nobody can choose it. It counts where every image
that was drawn has a label; otherwise those with a label might be the flagged ones among them.

Whoever labels flags alone must not complete a choice by it: of a category with one image a night
every flag would be a whole sample, and only nights with a flag would be counted. So a category
needs a few scored images, and a choice one that was not flagged.

Which images can be scored is known when the whole night is. Pictures are kept earlier, of the
first of all listed images: a larger sample, so that some of it may fail.
"""

import hashlib
import heapq
from collections.abc import Collection, Iterable
from dataclasses import dataclass

AUDIT_IMAGES = 5  # of a category and night: what a person labels every morning without pain
LEAST_SCORED = 5  # images of a category and night; of fewer no choice counts
KEPT = 2  # times as many pictures are kept: as many images may fail


def place(night: str, image_uri: str) -> bytes:
    """Where an image stands in the draw of its category and night; the first ones are drawn."""
    return hashlib.sha256(f"{night} {image_uri}".encode(errors="surrogatepass")).digest()


def audit_sample(night: str, image_uris: Iterable[str], count: int = AUDIT_IMAGES) -> list[str]:
    """Draw the audit sample of one category's scored images, in an order that means nothing.

    Args:
        night: its date; each night draws anew.
        image_uris: all scored images of the category, in any order.
        count: images to draw; all where there are fewer.
    """
    return heapq.nsmallest(count, image_uris, key=lambda uri: place(night, uri))


def counts_as_random(chosen: Collection[str], num_scored: int, flagged: Collection[str]) -> bool:
    """Whether images that all have a label were chosen whatever their score, and not as flags.

    Args:
        chosen: addresses of one category's and night's images.
        num_scored: images of the category that were scored that night.
        flagged: addresses of those that were flagged.
    """
    is_enough = num_scored >= LEAST_SCORED and len(chosen) > 1
    return is_enough and any(uri not in flagged for uri in chosen)


@dataclass(frozen=True, slots=True)
class Draw:
    """Which images of a category may be drawn, as far as its listing tells before it is scored."""

    night: str
    limit: bytes  # the last place of which pictures are kept

    def may_have(self, image_uri: str) -> bool:
        """Whether an image, or a page of a file, may be in the audit sample."""
        return place(self.night, image_uri) <= self.limit


def draw(night: str, image_uris: Iterable[str], count: int) -> Draw:
    """Prepare the draw of a category's audit sample.

    Args:
        night: its date.
        image_uris: all listed images of the category.
        count: images of the sample.
    """
    kept = audit_sample(night, image_uris, KEPT * count)
    return Draw(night, place(night, kept[-1]) if kept else b"")
