"""Labels from a file into the table: all of it or nothing.

Every label of a night is checked against the results that it speaks of; one bad entry refuses the
whole file, so that nobody has to find out which half of it was taken. How an image was chosen is
found out here and asked of nobody: the results say what was flagged, and a night's audit sample or
whole dump counts once all of its images have a label, unless flags alone may have completed it.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.labels.audit import audit_sample, counts_as_random
from pipeline.labels.foreign import Source
from pipeline.labels.label import (
    LABEL_SCHEMA,
    Chosen,
    Label,
    LabelsError,
    contradicted,
    labels_of,
    latest,
)
from pipeline.labels.label_table import LabelTable
from pipeline.labels.reading import read_labels
from pipeline.night.feedback.judged_night import JudgedNight, Rows
from pipeline.night.folder import NightError, NightFolder

MAX_SHOWN = 20  # bad entries in one message
NOBODY = dict.fromkeys(("image_etag", "flagged"))  # of an image that is in no results


class Precision(TypedDict):
    """How often people agreed with the flags of one category, so far."""

    labelled: int
    defects: int
    flagged_labelled: int
    flagged_defects: int
    precision: float | None  # of the flags that have a label; None without any


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What one night's labels of a file came to; of those without a night, the night is None."""

    night: str | None
    num_new: int  # images that had no label
    num_changed: int  # images whose label is another one now
    num_unchanged: int
    num_undone: int  # images whose label was taken back
    gone: list[str]  # images that the night's results have no more; their labels are kept
    contradicted: list[str]  # images that people label differently; the latest label counts
    precision: Mapping[str, Precision]  # by category, of all labels of the night


@dataclass(frozen=True, kw_only=True)
class ImportedFile:
    """What a file of labels came to."""

    nights: list[Imported]
    num_unlabelled: int  # images of a manifest of which it says nothing
    num_taken_in: int  # files of an earlier release that are in the table now


def import_labels(source: Source, out: str) -> ImportedFile:
    """Check a file of labels and store it in the table beside its results: all of it or nothing.

    A command that was killed is run again: what is stored already is not stored twice.

    Raises:
        LabelsError: at least one entry is bad.
        ResultsError: the results of a night cannot be read.
    """
    read = read_labels(storage.read_bytes(source.uri), source)
    nights, problems = _nights(out, read.labels)
    problems = {**read.problems, **problems, **_mismatches(read.labels, nights)}
    if problems:
        raise LabelsError(_refusal(source.uri, problems, len(read.labels.keys() | problems.keys())))
    table = LabelTable(out)
    num_taken_in = table.take_in()
    by_night: dict[str, list[Label]] = defaultdict(list)
    for label in read.labels.values():
        by_night[label.night or ""].append(label)
    done = [
        _store(table, nights.get(night), by_night[night], source.read_at)
        for night in sorted(by_night)
    ]
    return ImportedFile(nights=done, num_unlabelled=read.num_unlabelled, num_taken_in=num_taken_in)


def _nights(out: str, labels: Mapping[str, Label]) -> tuple[dict[str, JudgedNight], dict[str, str]]:
    """The nights that labels name, and the labels that name none that could be."""
    nights: dict[str, JudgedNight] = {}
    problems = {}
    for place, label in labels.items():
        if label.night is None or label.night in nights:
            continue
        try:
            nights[label.night] = JudgedNight(NightFolder(out, label.night))
        except NightError:
            problems[place] = f"night {label.night!r} is no date YYYY-MM-DD"
    return nights, problems


def _mismatches(labels: Mapping[str, Label], nights: Mapping[str, JudgedNight]) -> dict[str, str]:
    """What does not belong to the results of its night."""
    by_night: dict[str, list[str]] = defaultdict(list)
    for label in labels.values():
        by_night[label.night or ""].append(label.image_uri)
    rows = {name: nights[name].rows_of(by_night[name]) for name in nights}
    told = {
        place: _mismatch(label, rows[name].get(label.image_uri), nights[name])
        for place, label in labels.items()
        if (name := label.night or "") in nights
    }
    return {place: problem for place, problem in told.items() if problem}


def _mismatch(label: Label, row: Mapping[str, Any] | None, night: JudgedNight) -> str:
    """Why a label does not belong to its night's results; empty when it does, or the image is gone.

    An image can be gone because the night was scored again without it, or its rows were removed.
    """
    if row is None:
        if label.category in night.categories:
            return ""
        return (
            f"no image {label.image_uri!r} of category {label.category!r} in the results of night "
            f"{label.night} under {night.folder.out}"
        )
    if row["category"] != label.category:
        return f"category {label.category!r}, but the results say {row['category']!r}"
    if label.image_etag and row["image_etag"] and label.image_etag != row["image_etag"]:
        return (
            f"{label.image_uri!r} has changed since it was labelled "
            f"(etag {label.image_etag!r}, now {row['image_etag']!r})"
        )
    return ""


def _refusal(file: str, problems: Mapping[str, str], num_entries: int) -> str:
    ordered = sorted(problems.items(), key=lambda item: int(item[0].split()[1]))
    shown = [f"{place}: {problem}" for place, problem in ordered[:MAX_SHOWN]]
    if len(problems) > MAX_SHOWN:
        shown.append(f"and {len(problems) - MAX_SHOWN:,} more")
    noun = f"{ordered[0][0].split()[0]}s"
    return (
        f"{file}: {len(problems):,} of {num_entries:,} {noun} cannot be imported, so none was "
        f"({'; '.join(shown)}). A line needs image_uri, category, label (defect, good, unsure or "
        f"undo), night and labelled_at (with its time zone) of an image that was scored that "
        f"night; mend or remove these {noun} and import the file again"
    )


def _store(
    table: LabelTable, night: JudgedNight | None, labels: list[Label], read_at: dt.datetime
) -> Imported:
    """Store the labels of one night, or those without one."""
    rows = _to_rows(labels, night)
    name = night.folder.night if night else None
    categories = sorted({*rows["category"].to_pylist()})
    before = table.of_night(name, categories)
    rows = _without_known(rows, before, read_at)
    after = pa.concat_tables([before, rows])
    if night is not None:
        rows = pa.concat_tables([rows, _chosen_at_random(latest(after), night, categories)])
    table.append(rows)
    return _count(night, labels, before, pa.concat_tables([before, rows]))


def _to_rows(labels: Iterable[Label], night: JudgedNight | None) -> pa.Table:
    """Labels as rows; of several of one image at the same moment the last counts."""
    labels = list(labels)
    results = night.rows_of(label.image_uri for label in labels) if night else {}
    entries = {}
    for label in labels:
        row = results.get(label.image_uri, NOBODY)
        entry = label.model_dump() | {"image_etag": label.image_etag or row["image_etag"]}
        if row["flagged"] is not None:  # a claim counts only where nobody can look
            entry["chosen"] = "flagged" if row["flagged"] else "not_flagged"
        elif label.night and label.chosen == "unknown":
            entry["chosen"] = "not_scored"
        entries[label.image_uri, label.labelled_at] = entry
    return pa.Table.from_pylist(list(entries.values()), schema=LABEL_SCHEMA)


def _without_known(rows: pa.Table, before: pa.Table, read_at: dt.datetime) -> pa.Table:
    """Leave out what is in the table word for word.

    Labels of a manifest that says no times have that of its reading: those that only repeat what
    counts already are left out too.
    """
    known = {_identity(row) for row in before.to_pylist()}
    known |= {_identity(row | {"labelled_at": read_at}) for row in latest(before).to_pylist()}
    return rows.filter(pa.array([_identity(row) not in known for row in rows.to_pylist()], "bool"))


def _identity(row: Mapping[str, Any]) -> str:
    """All of a label but how its image was chosen, which may turn out later."""
    said = {name: value for name, value in row.items() if name != "chosen"}
    return repr(said | {"labelled_at": row["labelled_at"].timestamp()})


def _chosen_at_random(last: pa.Table, night: JudgedNight, categories: Sequence[str]) -> pa.Table:
    """Labels again, now known to be of images that were chosen whatever their score."""
    told: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in last.filter(pc.not_equal(last["label"], "undo")).to_pylist():
        told[row["category"]].append(row)
    again = []
    for category in categories:
        labelled = {row["image_uri"] for row in told[category]}
        found = _at_random(labelled, night, category)
        again += [
            {**row, "chosen": found[row["image_uri"]]}
            for row in told[category]
            if found.get(row["image_uri"], row["chosen"]) != row["chosen"]
        ]
    return pa.Table.from_pylist(again, schema=LABEL_SCHEMA)


def _at_random(labelled: set[str], night: JudgedNight, category: str) -> dict[str, Chosen]:
    """Images of a category that were chosen whatever their score, by the labelled ones."""
    found: dict[str, Chosen] = {}
    scored = night.scored.get(category, ())
    sample = audit_sample(night.folder.night, scored, night.audit_images)
    choices: tuple[tuple[Chosen, Sequence[str]], ...] = (("audit", sample), ("whole_dump", scored))
    for name, own in choices:
        if labelled.issuperset(own) and counts_as_random(own, len(scored), night.flagged):
            found |= dict.fromkeys(own, name)
    return found


def _count(
    night: JudgedNight | None, labels: list[Label], before: pa.Table, after: pa.Table
) -> Imported:
    uris = {label.image_uri for label in labels}
    rows = night.rows_of({*after["image_uri"].to_pylist()}) if night else {}
    etags = {uri: row["image_etag"] for uri, row in rows.items()}
    earlier, now = labels_of(before, etags), labels_of(after, etags)
    num_new = len(uris & (now.keys() - earlier.keys()))
    num_undone = len(uris & (earlier.keys() - now.keys()))
    num_changed = sum(now[uri] != earlier[uri] for uri in uris & now.keys() & earlier.keys())
    return Imported(
        night=night.folder.night if night else None,
        num_new=num_new,
        num_changed=num_changed,
        num_undone=num_undone,
        num_unchanged=len(uris) - num_new - num_changed - num_undone,
        gone=sorted(uris - rows.keys()) if night else [],
        contradicted=[uri for uri in contradicted(after) if uri in uris],
        precision=precision(now, rows),
    )


def precision(labels: Mapping[str, str], rows: Rows) -> dict[str, Precision]:
    """Count, by category, how many flagged images people call a defect.

    Args:
        labels: what counts of each image; images that the results lack are left out, and those of
            which people are unsure.
        rows: what ``JudgedNight.rows_of`` returns.
    """
    pairs: dict[str, list[tuple[bool, bool]]] = defaultdict(list)  # (defect, flagged)
    for uri in labels.keys() & rows.keys():
        row = rows[uri]
        if labels[uri] != "unsure":
            pairs[row["category"]].append((labels[uri] == "defect", bool(row["flagged"])))
    return {category: _of_category(pairs[category]) for category in sorted(pairs)}


def _of_category(pairs: list[tuple[bool, bool]]) -> Precision:
    flagged = [is_defect for is_defect, is_flagged in pairs if is_flagged]
    return {
        "labelled": len(pairs),
        "defects": sum(is_defect for is_defect, _ in pairs),
        "flagged_labelled": len(flagged),
        "flagged_defects": sum(flagged),
        "precision": sum(flagged) / len(flagged) if flagged else None,
    }
