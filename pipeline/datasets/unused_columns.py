"""Columns of a list that nobody asked for, and that hold labels or splits by what is in them.

Passed over, a column of labels would make every image a good one, and one of splits would put
images of the test among those that are trained on.
"""

from collections.abc import Collection, Mapping, Sequence

from pipeline.datasets.good_words import is_bad_word, is_good_word, plain_word
from pipeline.datasets.image_lists import ImageList, ManifestError, read_list
from pipeline.datasets.samples import LayoutError

# Columns that say of a part that it is bad, in numbers or in yes and no.
NAMES_OF_BAD = frozenset(
    """
    y bad is-bad faulty is-faulty fault nok is-nok ng is-ng ko reject is-reject rejected is-rejected
    broken damaged fail failed scrap
    """.split()  # noqa: SIM905  a list of words reads best as one
)

NO = frozenset(("no", "n", "nein"))


def refuse_unused(listed: ImageList, uri: str, splits: Collection[str]) -> None:
    """Refuse a list without labels, or without splits, that has them under another name.

    Raises:
        LayoutError: it has, with the column's name.
    """
    missing = {"label", "split"} - listed.used.keys()
    if not missing or not listed.unused:
        return
    for name, words in _words(uri, listed.unused).items():
        if "split" in missing and words and words <= set(splits):
            raise _under_another_name(name, "split", words, uri, "no split would be known")
        if "label" in missing and _are_labels(name, words):
            count = listed.table.num_rows
            raise _under_another_name(
                name, "label", words, uri, f"all {count} images would be good"
            )


def _are_labels(name: str, words: set[str]) -> bool:
    """Whether words say of parts whether they are good, and not that all are."""
    good = {word for word in words if is_good_word(word)}
    if plain_word(name) in NAMES_OF_BAD:
        return bool(words - good - NO)
    spoken = {word for word in good if word != "false" and any(map(str.isalpha, word))}
    return any(map(is_bad_word, words)) or bool(spoken and good != words)


def _words(uri: str, columns: Sequence[str]) -> Mapping[str, set[str]]:
    """Return the plain words in each column, without those that hold no text."""
    try:
        return _read(uri, columns)
    except ManifestError:
        found: dict[str, set[str]] = {}
        for name in columns if len(columns) > 1 else ():
            found |= _words(uri, [name])
        return found


def _read(uri: str, columns: Sequence[str]) -> dict[str, set[str]]:
    table = read_list(uri, {name: (name,) for name in columns}).table
    values = {name: table[name].unique().to_pylist() for name in columns}
    return {
        name: {plain_word(value) for value in found if value and value.strip()}
        for name, found in values.items()
    }


def _under_another_name(
    name: str, meant: str, words: set[str], uri: str, effect: str
) -> LayoutError:
    shown = ", ".join(sorted(words)[:3])
    return LayoutError(
        f"{uri}: is the column {name!r} to mean `{meant}`? It holds {shown}. As it is, {effect}; "
        f"rename it, or leave it out"
    )
