"""Images that show the same moment: saved again, or the next frame of a camera at rest.

Fingerprints find what was only coded again, whatever happened to its noise; where they differ a
little more, the features must be far nearer than two different parts' are. What was turned or
shifted by several pixels is found by neither.

Shapes: N images, F values of each, B of them at a time.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.images.fingerprint import as_words, differing_bits
from pipeline.inspection.category_summary import Floats

SAME_BITS = 10  # of 256: saved again; two parts, well aligned, differ in 12 and more
SIMILAR_BITS = 24
SIMILAR_DISTANCE = 0.3  # of the median distance to the others
BLOCK = 256
BURST_DISTANCE = 0.5  # of the median distance of images far apart in the order of names
BURST_SHARE = 0.3  # of neighbours that are so near: then names tell of bursts
LEAST_FOR_BURSTS = 20  # images

DIGITS = re.compile(r"(\d+)")

Pair = tuple[int, int, int]  # image, an earlier one, bits in which their fingerprints differ


def near_pairs(fingerprints: Sequence[str], pooled_NF: Floats) -> list[Pair]:
    """Return near-duplicates, each image with the earlier one that it is most like.

    Args:
        fingerprints: of images of different contents; an empty one is like no other.
        pooled_NF: the images as ``image_set.pool`` describes them, or (N, 0).
    """
    known = np.array([index for index, each in enumerate(fingerprints) if each], dtype=np.int64)
    words = as_words([fingerprints[index] for index in known])
    rows_NF = _standardised(pooled_NF[known])
    pairs = []
    for start, bits_BN in _blocks(words):
        near_BN = bits_BN <= SAME_BITS
        near_BN |= (bits_BN <= SIMILAR_BITS) & _are_close(rows_NF, start, len(bits_BN))
        for row in range(len(bits_BN)):
            earlier = np.flatnonzero(near_BN[row, : start + row])
            if len(earlier):
                nearest = earlier[bits_BN[row, earlier].argmin()]
                bits = int(bits_BN[row, nearest])
                pairs.append((int(known[start + row]), int(known[nearest]), bits))
    return sorted(pairs, key=lambda pair: pair[2])


def near_neighbours(names: Sequence[str], pooled_NF: Floats) -> list[tuple[int, int]]:
    """Return neighbours by name that are much nearer than others, if names tell of bursts at all.

    Args:
        names: of images; numbers in them count as numbers.
        pooled_NF: the images as ``image_set.pool`` describes them, or (N, 0).
    """
    rows_NF = _standardised(pooled_NF)
    if len(names) < LEAST_FOR_BURSTS or not rows_NF.shape[1]:
        return []
    order = np.array(sorted(range(len(names)), key=lambda index: _natural(names[index])))
    sorted_NF = rows_NF[order]
    next_N = np.linalg.norm(np.diff(sorted_NF, axis=0), axis=1)
    far_N = np.linalg.norm(sorted_NF - np.roll(sorted_NF, len(names) // 2, axis=0), axis=1)
    near = np.flatnonzero(next_N < BURST_DISTANCE * np.median(far_N))
    if len(near) < BURST_SHARE * len(next_N):
        return []
    nearest_first = near[np.argsort(next_N[near], kind="stable")]
    return [(int(order[place + 1]), int(order[place])) for place in nearest_first]


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key by which 10 comes after 9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in DIGITS.split(name)]


def _blocks(words: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(words), BLOCK):
        yield start, differing_bits(words[start : start + BLOCK], words)


def _standardised(pooled_NF: Floats) -> Floats:
    if not pooled_NF.size:
        return pooled_NF
    spread = pooled_NF.std(axis=0)
    scaled: Floats = pooled_NF[:, spread > 0] / spread[spread > 0]
    return scaled


def _are_close(rows_NF: Floats, start: int, count: int) -> np.ndarray:
    """Which of all images are close to each of a block, (B, N)."""
    if not rows_NF.shape[1]:
        return np.zeros((count, len(rows_NF)), dtype=bool)
    block_BF = rows_NF[start : start + count]
    squares_N = (rows_NF**2).sum(axis=1)
    squares_BN = squares_N[start : start + count, None] + squares_N - 2 * block_BF @ rows_NF.T
    limit_B1 = SIMILAR_DISTANCE**2 * np.median(squares_BN, axis=1, keepdims=True)
    close: np.ndarray = squares_BN <= limit_B1
    return close
