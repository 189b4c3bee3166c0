"""A fingerprint of what an image shows: nearly the same where it was saved again, in any format.

256 bits of the signs of low frequencies. Recompression, another size or brightness and faint noise
change a few of them; another image of the same kind of part changes more than a dozen; a shift by
a few pixels changes many.

Source: pHash, Zauner 2010, as the package imagehash computes it.

Shapes: N images, M others, H x W pixels.
"""

from collections.abc import Sequence

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 64  # pixels that frequencies are taken of
BITS_ALONG = 16
WORDS = BITS_ALONG**2 // 64  # of a fingerprint as whole numbers


def fingerprint(pixels_HW3: NDArray[np.uint8]) -> str:
    """Return an image's fingerprint in hex."""
    grey = Image.fromarray(pixels_HW3).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return str(imagehash.phash(grey, hash_size=BITS_ALONG, highfreq_factor=SIDE // BITS_ALONG))


def as_words(fingerprints: Sequence[str]) -> NDArray[np.uint64]:
    """Return fingerprints (N, 4) as whole numbers."""
    data = b"".join(bytes.fromhex(each) for each in fingerprints)
    return np.frombuffer(data, np.uint64).reshape(-1, WORDS)


def differing_bits(
    words_NW: NDArray[np.uint64], others_MW: NDArray[np.uint64]
) -> NDArray[np.uint16]:
    """Return in how many bits each fingerprint differs from each other one, (N, M)."""
    total_NM = np.zeros((len(words_NW), len(others_MW)), np.uint16)
    for word in range(WORDS):
        total_NM += np.bitwise_count(words_NW[:, word, None] ^ others_MW[None, :, word])
    return total_NM
