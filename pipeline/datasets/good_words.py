"""What data sets call a good part: one list of words, for folders and for labels of manifests.

A word counts in any case, with blanks around it, and with blanks or underscores for hyphens. A word
that is none of these is a kind of defect, unless it stands for a missing value, is so near to a
word for good that it must be a slip, or has such a word as a part and no bad one (``good_v2``): all
are refused, for a good part taken for a defect spoils what is measured, and a defect taken for a
good part spoils the model.
"""

import difflib
import re
from collections.abc import Sequence

GOOD_WORDS = frozenset(
    """
    good goods ok okay normal pass passed accept accepted io i.o gut fehlerfrei in-ordnung intact
    perfect faultless flawless undamaged defect-free defectfree no-defect no-defects nodefect
    non-defective nondefective anomaly-free no-anomaly fault-free faultfree error-free healthy
    nominal clean einwandfrei acceptable 0 0.0 false
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
NEGATIONS = frozenset("no not non un nicht kein keine".split())  # noqa: SIM905
# These are good as whole words only: a part that counts or denies something says nothing.
WHOLE_ONLY = frozenset(("0", "0.0", "false"))
# Near to a good word by their letters, and the opposite of it.
BAD_BEGINNINGS = ("ab", "an", "un", "im", "no-", "non", "not", "n.")
OFTEN_MISSPELT = ("good", "okay", "normal", "passed", "intact", "perfect", "defect-free", "false")
NEAR = 0.8  # similarity from which on a word must be a slip
NOUNS = "parts?|pieces?|samples?|images?|imgs?|pics?|teile?|bilder|bild"
WITH_A_NOUN = re.compile(rf"([a-z.-]+?)-?({NOUNS}|\d+)")
OK_OR_OKAY = re.compile(r"o+k+([ae]+y+)?")
TOKENS = re.compile(r"[^\W\d_]+|\d+")


def is_good_word(word: str) -> bool:
    """Whether a folder or a label says that a part is good."""
    return plain_word(word) in GOOD_WORDS


def is_bad_word(word: str) -> bool:
    """Whether a folder or a label says for certain that parts are not good: ``NG_parts``."""
    plain = plain_word(word)
    if plain in GOOD_WORDS:
        return False
    return plain in BAD_WORDS or without_noun(plain) in BAD_WORDS or _has_bad(tokens_of(plain))


def sounds_good(word: str) -> bool:
    """Whether a word is one for good, or has one as a part and no bad one."""
    return is_good_word(word) or meant_word(word) is not None


def says_nothing(word: str) -> bool:
    """Whether a word stands for a missing value."""
    return plain_word(word) in WORDS_FOR_NOTHING


def meant_word(word: str) -> str | None:
    """Return the good word that a word is near to or has as a part; None of others."""
    plain = plain_word(word)
    if plain in GOOD_WORDS:
        return None
    bare = without_noun(plain)
    if bare in GOOD_WORDS - WHOLE_ONLY:
        return bare
    tokens = tokens_of(plain)
    return None if _has_bad(tokens) else _good_part(tokens) or _slip(plain)


def without_noun(plain: str) -> str:
    """Return a plain word without the noun or number at its end: ``ng-parts``, ``ok2``."""
    noun = WITH_A_NOUN.fullmatch(plain)
    return noun[1].rstrip(".-") if noun else plain


def tokens_of(plain: str) -> list[str]:
    """Return the words and numbers that a plain word is made of."""
    return TOKENS.findall(
        re.sub(r"\b(n\.?)?i\.o\b", lambda found: found[0].replace(".", ""), plain)
    )


def _slip(plain: str) -> str | None:
    """Return the good word that a plain word misspells."""
    letters = plain.replace("0", "o")
    if plain != letters and letters in GOOD_WORDS:
        return letters
    if OK_OR_OKAY.fullmatch(plain):
        return "okay" if plain.endswith("y") else "ok"
    if plain.startswith(BAD_BEGINNINGS):
        return None
    close = difflib.get_close_matches(plain, OFTEN_MISSPELT, n=1, cutoff=NEAR)
    return close[0] if close else None


def _good_part(tokens: Sequence[str]) -> str | None:
    """Return the longest run of tokens that is a word for good."""
    ends = [(start, end) for end in range(len(tokens) + 1) for start in range(end)]
    runs = ["-".join(tokens[start:end]) for start, end in sorted(ends, key=lambda e: e[0] - e[1])]
    return next((run for run in runs if run in GOOD_WORDS - WHOLE_ONLY), None)


def _has_bad(tokens: Sequence[str]) -> bool:
    """Whether tokens have a bad word, or deny a good one; ``no-defect`` is a good word."""
    good = _good_part(tokens)
    joined = f"-{'-'.join(tokens)}-"
    rest = set((joined.replace(f"-{good}-", "-", 1) if good else joined).split("-"))
    return bool(rest & BAD_WORDS) or (good is not None and bool(rest & NEGATIONS))


def plain_word(word: str) -> str:
    """Return a word as it is compared."""
    together = re.sub(r"\.\s+", ".", word.strip().casefold())
    return re.sub(r"[\s_-]+", "-", together).rstrip(".!")
