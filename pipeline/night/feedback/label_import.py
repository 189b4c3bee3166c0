"""Labels from a file of JSON Lines, as the report lets people download them.

Every line is checked against the results that it speaks of; one bad line refuses the whole file,
so that nobody has to find out which half of it was taken.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from pipeline import storage
from pipeline.night.feedback.labels import Label, LabelsError, read_labels, store_labels
from pipeline.night.folder import NightError, NightFolder
from pipeline.night.results import each_shard

MAX_SHOWN = 20  # bad lines in one message
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # some editors put it in front
Rows = dict[str, dict[str, Any]]  # by image_uri: image_etag, category, flagged


class Precision(TypedDict):
    """How often people agreed with the flags of one category, so far."""

    labelled: int
    defects: int
    flagged_labelled: int
    flagged_defects: int
    precision: float | None  # of the flags that have a label; None without any


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What one night's labels of a file came to."""

    night: str
    num_new: int  # images that had no label
    num_changed: int  # images whose label is another one now
    num_unchanged: int
    precision: Mapping[str, Precision]  # by category, of all labels of the night


def import_labels(file: str, out: str) -> list[Imported]:
    """Check a file of labels and store it beside its nights: all of it or nothing.

    Args:
        file: JSON Lines, local or s3://.
        out: where the scoring job wrote its nights.

    Raises:
        LabelsError: at least one line is bad.
        ResultsError: the results of a night cannot be read.
    """
    labels, problems = _parse(storage.read_bytes(file), out)
    nights: dict[NightFolder, list[Label]] = defaultdict(list)
    for label in labels.values():
        nights[NightFolder(out, label.night)].append(label)
    rows = {folder: _rows(folder, own) for folder, own in nights.items()}
    for number, label in labels.items():
        if problem := _mismatch(label, rows[NightFolder(out, label.night)], out):
            problems[number] = problem
    if problems:
        raise LabelsError(_refusal(file, problems, len(labels.keys() | problems.keys())))
    by_date = sorted(nights, key=lambda folder: folder.night)
    return [_store(folder, nights[folder], rows[folder]) for folder in by_date]


def _parse(data: bytes, out: str) -> tuple[dict[int, Label], dict[int, str]]:
    """Labels and problems by line number, counted from 1."""
    labels, problems = {}, {}
    for number, line in enumerate(data.removeprefix(BYTE_ORDER_MARK).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            label = Label.model_validate_json(line)
            NightFolder(out, label.night)
            labels[number] = label
        except ValidationError as error:
            problems[number] = ", ".join(map(_explain, error.errors()))
        except NightError:
            problems[number] = f"night {label.night!r} is no date YYYY-MM-DD"
    return labels, problems


def _explain(problem: Mapping[str, Any]) -> str:
    field = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"unknown key {field!r}"
    if problem["type"] == "missing":
        return f"{field} is missing"
    if problem["type"] == "literal_error":
        return f"{field} {problem['input']!r} is neither 'defect' nor 'good'"
    return f"{field}: {problem['msg']}" if field else str(problem["msg"])


def _rows(folder: NightFolder, labels: Iterable[Label]) -> Rows:
    """The results of the images that have a label, now or from before: the night is read once."""
    before = read_labels(folder)["image_uri"].to_pylist()
    return rows_of(folder, {*before, *(label.image_uri for label in labels)})


def rows_of(folder: NightFolder, uris: Iterable[str]) -> Rows:
    """The results of these images, as far as the night has them."""
    wanted = pa.array(sorted(uris), pa.string())
    rows: Rows = {}
    for shard in each_shard(folder):
        own = shard.filter(pc.is_in(shard["image_uri"], value_set=wanted))
        for row in own.select(["image_uri", "image_etag", "category", "flagged"]).to_pylist():
            rows[row["image_uri"]] = row
    return rows


def _mismatch(label: Label, rows: Rows, out: str) -> str:
    """Why a label does not belong to its night's results; empty when it does."""
    row = rows.get(label.image_uri)
    if row is None:
        return f"no image {label.image_uri!r} in the results of night {label.night} under {out}"
    if row["category"] != label.category:
        return f"category {label.category!r}, but the results say {row['category']!r}"
    if label.image_etag and row["image_etag"] and label.image_etag != row["image_etag"]:
        return (
            f"{label.image_uri!r} has changed since it was labelled "
            f"(etag {label.image_etag!r}, now {row['image_etag']!r})"
        )
    return ""


def _refusal(file: str, problems: Mapping[int, str], num_lines: int) -> str:
    shown = [f"line {number}: {problems[number]}" for number in sorted(problems)[:MAX_SHOWN]]
    if len(problems) > MAX_SHOWN:
        shown.append(f"and {len(problems) - MAX_SHOWN:,} more")
    return (
        f"{file}: {len(problems):,} of {num_lines:,} lines cannot be imported, so none was "
        f"({'; '.join(shown)}). A line needs image_uri, category, label (defect or good), night "
        f"and labelled_at (with its time zone) of an image that was scored that night; "
        f"mend or remove these lines and import the file again"
    )


def _store(folder: NightFolder, labels: list[Label], rows: Rows) -> Imported:
    before = _values(read_labels(folder))
    num_images = store_labels(folder, labels)
    after = _values(read_labels(folder))
    num_new = len(after.keys() - before.keys())
    num_changed = sum(after[uri] != label for uri, label in before.items())
    return Imported(
        night=folder.night,
        num_new=num_new,
        num_changed=num_changed,
        num_unchanged=num_images - num_new - num_changed,
        precision=precision(after, rows),
    )


def _values(labels: pa.Table) -> dict[str, str]:
    uris, values = labels["image_uri"].to_pylist(), labels["label"].to_pylist()
    return dict(zip(uris, values, strict=True))


def precision(labels: Mapping[str, str], rows: Rows) -> dict[str, Precision]:
    """Count, by category, how many flagged images people call a defect.

    Args:
        labels: defect or good by image_uri; images that the results lack are left out.
        rows: what ``rows_of`` returns.
    """
    pairs: dict[str, list[tuple[bool, bool]]] = defaultdict(list)  # (defect, flagged)
    for uri in labels.keys() & rows.keys():
        row = rows[uri]
        pairs[row["category"]].append((labels[uri] == "defect", bool(row["flagged"])))
    return {category: _count(pairs[category]) for category in sorted(pairs)}


def _count(pairs: list[tuple[bool, bool]]) -> Precision:
    flagged = [is_defect for is_defect, is_flagged in pairs if is_flagged]
    return {
        "labelled": len(pairs),
        "defects": sum(is_defect for is_defect, _ in pairs),
        "flagged_labelled": len(flagged),
        "flagged_defects": sum(flagged),
        "precision": sum(flagged) / len(flagged) if flagged else None,
    }
