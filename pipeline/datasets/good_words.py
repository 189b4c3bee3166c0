"""What data sets call a good part: one list of words, for folders and for labels of manifests.

A word counts in any case, with blanks around it, and with blanks or underscores for hyphens. A word
that is none of these is a kind of defect, unless it is so near to one that it must be a slip: that
is refused, for a good part taken for a defect spoils what is measured, and a defect taken for a
good part spoils the model.
"""

import difflib
import re

GOOD_WORDS = frozenset(
    """
    good goods ok okay normal pass passed io i.o. i.o gut intact perfect defect-free defectfree
    no-defect no-defects nodefect non-defective anomaly-free no-anomaly none 0 0.0 false
    """.split()  # noqa: SIM905  a list of words reads best as one
)
# Near to a good word by their letters, and the opposite of it.
BAD_BEGINNINGS = ("ab", "an", "un", "im", "no-", "non", "not", "n.")
OFTEN_MISSPELT = ("good", "okay", "normal", "passed", "intact", "perfect", "defect-free", "false")
NEAR = 0.82  # similarity from which on a word must be a slip


def is_good_word(word: str) -> bool:
    """Whether a folder or a label says that a part is good."""
    return _plain(word) in GOOD_WORDS


def meant_word(word: str) -> str | None:
    """Return the good word that a word is so near to that it must be a slip; None of others."""
    plain = _plain(word)
    if plain in GOOD_WORDS or plain.startswith(BAD_BEGINNINGS):
        return None
    close = difflib.get_close_matches(plain, OFTEN_MISSPELT, n=1, cutoff=NEAR)
    return close[0] if close else None


def _plain(word: str) -> str:
    return re.sub(r"[\s_-]+", "-", word.strip().casefold())
