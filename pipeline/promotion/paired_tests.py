"""Two detectors on the same images: is one better, is it worse by no more than a margin?

Only images on which they differ say anything. Counts in, p-values out; nothing here knows what an
image is.
"""

import math

from scipy import special

FIRST_LOOK = 0.8  # share of the level for the first look; later ones share the rest


def better_p(gained: int, lost: int) -> float:
    """P-value of the hypothesis that a detector is no better than another; exact and one-sided.

    Under it an image on which they differ is won by either with probability 1/2 at most for the
    first: P(Binomial(gained + lost, 1/2) >= gained).

    Args:
        gained: images on which it alone is right.
        lost: images on which the other alone is right.

    Source: McNemar 1947, Psychometrika 12; exact and conditional on the number that differ.
    """
    return float(special.bdtrc(gained - 1, gained + lost, 0.5)) if gained else 1.0


def not_worse_p(more: int, fewer: int, total: int, margin: float) -> float:
    """P-value of the hypothesis that a share is higher than another's by ``margin`` or more.

    The score test for the difference of two paired shares; at margin 0 it is McNemar's.

    Args:
        more: images that count for the first detector alone.
        fewer: images that count for the other alone.
        total: all images.
        margin: difference of the shares, in (0, 1).

    Source: Tango 1998, Statistics in Medicine 17, 891-908, equations 4 to 8.
    """
    if total == 0:
        return 1.0
    a = 2 * total
    b = -more - fewer + (2 * total - more + fewer) * margin
    c = -fewer * margin * (1 - margin)
    share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)  # of ``fewer``, constrained
    variance = total * (2 * share + margin * (1 - margin))
    return float(special.ndtr((more - fewer - total * margin) / math.sqrt(variance)))


def level_of_look(level: float, look: int) -> float:
    """The level at which the k-th look at growing evidence is judged; all looks share ``level``.

    By Bonferroni: 4/5 of it for the first look, the rest as 1 / (k (k - 1)) for the others.

    Args:
        level: probability of a false promotion over all looks.
        look: from 1.
    """
    rest = 1 - FIRST_LOOK
    return level * (FIRST_LOOK if look == 1 else rest / (look * (look - 1)))
