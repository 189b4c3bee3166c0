"""The images that are labelled whatever their score: a random sample of each category and night.

What people label because it was flagged was chosen by its score, and says nothing of what was not
flagged. The audit sample is drawn among all scored images of a category, flagged or not, by a hash
of their addresses: anybody can draw it again, and nobody can choose it. It counts where every image
that was drawn has a label; otherwise those with a label might be the flagged ones among them.
"""

import hashlib
from collections.abc import Iterable

AUDIT_IMAGES = 5  # of a category and night: what a person labels every morning without pain


def audit_sample(night: str, image_uris: Iterable[str], count: int = AUDIT_IMAGES) -> list[str]:
    """Draw the audit sample of one category's scored images, in an order that means nothing.

    Args:
        night: its date; each night draws anew.
        image_uris: all scored images of the category, in any order.
        count: images to draw; all where there are fewer.
    """

    def place(uri: str) -> bytes:
        return hashlib.sha256(f"{night} {uri}".encode(errors="surrogatepass")).digest()

    return sorted(image_uris, key=place)[:count]
