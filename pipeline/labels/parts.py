"""Which labelled images a model may learn from, and which only judge it.

By a hash of the address, so that an image is on one side for good, whatever is labelled later.
"""

import hashlib

SALT = "gate"


def is_for_gate(image_uri: str) -> bool:
    """Whether a labelled image is kept for the gate; the other half may be learned from."""
    digest = hashlib.sha256(f"{SALT} {image_uri}".encode(errors="surrogatepass")).digest()
    return digest[0] % 2 == 0
