"""What data sets call a good part: one list of words, for folders and for labels of manifests.

A word counts in any case, with blanks around it, and with blanks or underscores for hyphens. A word
that is none of these is a kind of defect, unless it stands for a missing value, or is so near to
a word for good that it must be a slip: both are refused, for a good part taken for a defect spoils
what is measured, and a defect taken for a good part spoils the model.
"""

import difflib
import re

GOOD_WORDS = frozenset(
    """
    good goods ok okay normal pass passed accept accepted io i.o gut fehlerfrei in-ordnung intact
    perfect faultless flawless undamaged defect-free defectfree no-defect no-defects nodefect
    non-defective anomaly-free no-anomaly 0 0.0 false
    """.split()  # noqa: SIM905  a list of words reads best as one
)
# How tools write a value that is not there. `none` may mean no defect as well as no label.
WORDS_FOR_NOTHING = frozenset(
    """
    none nan null nil na n/a n.a ? - undefined unlabeled unlabelled not-labeled not-labelled
    unclassified tbd todo
    """.split()  # noqa: SIM905
)
# Folders that hold no good images, beside those that other layouts have.
BAD_WORDS = frozenset(
    """
    bad ng nok nio n.i.o ko not-ok not-okay not-good defect defects defective anomaly anomalies
    anomalous abnormal anormal fail failed failure failures faulty broken damaged reject rejects
    rejected scrap ausschuss fehler schlecht
    """.split()  # noqa: SIM905
)
# Near to a good word by their letters, and the opposite of it.
BAD_BEGINNINGS = ("ab", "an", "un", "im", "no-", "non", "not", "n.")
OFTEN_MISSPELT = ("good", "okay", "normal", "passed", "intact", "perfect", "defect-free", "false")
NEAR = 0.8  # similarity from which on a word must be a slip
WITH_A_NOUN = re.compile(r"([a-z.]+)-?(parts?|pieces?|samples?|images?|imgs?|\d+)")


def is_good_word(word: str) -> bool:
    """Whether a folder or a label says that a part is good."""
    return plain_word(word) in GOOD_WORDS


def is_bad_word(word: str) -> bool:
    """Whether a folder says for certain that its parts are not good."""
    return plain_word(word) in BAD_WORDS


def says_nothing(word: str) -> bool:
    """Whether a word stands for a missing value."""
    return plain_word(word) in WORDS_FOR_NOTHING


def meant_word(word: str) -> str | None:
    """Return the good word that a word is so near to that it must be a slip; None of others."""
    plain = plain_word(word)
    if plain in GOOD_WORDS or plain.startswith(BAD_BEGINNINGS):
        return None
    noun = WITH_A_NOUN.fullmatch(plain)
    if noun and noun[1].rstrip(".") in GOOD_WORDS:
        return noun[1].rstrip(".")
    close = difflib.get_close_matches(plain, OFTEN_MISSPELT, n=1, cutoff=NEAR)
    return close[0] if close else None


def plain_word(word: str) -> str:
    """Return a word as it is compared."""
    together = re.sub(r"\.\s+", ".", word.strip().casefold())
    return re.sub(r"[\s_-]+", "-", together).rstrip(".!")
