"""Which images are shown to whoever has time for a few, and what the audit says on the page."""

import base64
import datetime as dt
from pathlib import Path

import pyarrow as pa
from night_maker import NIGHT, NightMaker
from test_report import Element, read
from test_report_data import content

from pipeline.labels.audit import audit_sample
from pipeline.labels.label import Label, to_rows
from pipeline.labels.label_table import LabelTable
from pipeline.report.data import AUDIT, FLAGGED, USUAL
from pipeline.report.review_queue import MOST, review_queue
from pipeline.report.writing import write_report

RATES = {"bottle": 0.01, "cable": 0.1}


def images(**p_values: float) -> pa.Table:
    """Images by name; the first letter says the category."""
    rows = [
        {"category": {"b": "bottle", "c": "cable"}[name[0]], "image_uri": name, "p_value": p_value}
        for name, p_value in p_values.items()
    ]
    return pa.Table.from_pylist(rows)


def queue(table: pa.Table, audit: dict[str, list[str]], *labelled: str) -> list[str]:
    return review_queue(NIGHT, table, audit, labelled, RATES)


def test_without_an_audit_each_category_shows_its_nearest_to_the_threshold_first() -> None:
    # Away from its rate, as a ratio: b1 2, b2 1, b3 5; c1 4, c2 1.5.
    table = images(b1=0.005, b2=0.01, b3=0.05, c1=0.025, c2=0.15)
    assert queue(table, {}) == ["b2", "c2", "b1", "c1", "b3"]


def test_half_of_any_budget_is_whole_audit_samples_and_half_images_near_their_threshold() -> None:
    table = images(b1=0.005, b2=0.01, b3=0.05, c1=0.025, c2=0.15)
    audit = {"bottle": ["b8", "b9"], "cable": ["c8", "c9"]}
    found = queue(table, audit)
    assert [uri in {"b8", "b9", "c8", "c9"} for uri in found] == 2 * [True, True, False, False] + [
        False
    ]
    assert {*found[:2]} in ({"b8", "b9"}, {"c8", "c9"})
    nights = {review_queue(f"2026-03-{d:02d}", table, audit, (), RATES)[0] for d in range(1, 29)}
    assert nights == {"b8", "c8"}  # each category is first in some nights


def test_what_has_a_label_or_belongs_to_a_shifted_category_waits() -> None:
    table = images(b1=0.005, b2=0.01, c1=0.1)
    audit = {"bottle": ["b2", "b8"], "tile": ["t1"]}
    assert queue(table, audit, "b1", "b8") == ["b2", "c1"]


def test_the_queue_has_an_end() -> None:
    table = images(**{f"b{n}": 0.01 for n in range(2 * MOST)})
    assert len(queue(table, {"bottle": [f"b{n}" for n in range(5)]})) == MOST


def test_the_end_of_the_queue_cuts_no_sample() -> None:
    audit = {"bottle": [f"b{n}" for n in range(MOST - 3)], "cable": [f"c{n}" for n in range(5)]}
    found = queue(images(b1=0.01), audit)
    assert len(found) == MOST + 2
    assert {"c0", "c1", "c2", "c3", "c4"} <= {*found}


def test_a_category_with_too_few_images_has_no_sample_to_label(tmp_path: Path) -> None:
    maker = NightMaker(tmp_path)
    for category, number in (("bottle", 4), ("cable", 5)):
        maker.add_champion(category)
        for index in range(number):
            maker.add_scored(category, f"{index}.png", 0.5)
    maker.write()
    index = index_of(Path(write_report(maker.folder)))
    assert index["images"]["counts"] == [0, 5]  # type: ignore[index]


def label(name: str, word: str, chosen: str, night: str) -> Label:
    at = dt.datetime.fromisoformat(f"{night}T23:00+00:00")
    fields = {"category": "bottle", "night": night, "chosen": chosen, "labelled_at": at}
    return Label(image_uri=name, label=word, **fields)


def audited(night: str, *words: str) -> list[Label]:
    return [
        label(f"{night} {n}", word, chosen, night)
        for n, word in enumerate(words)
        for chosen in ("unknown", "audit")
    ]


def make_night(folder: Path) -> NightMaker:
    maker = NightMaker(folder)
    maker.add_champion("bottle")
    for index in range(20):
        maker.add_scored("bottle", f"{index:02d}.png", 9.0 if index < 2 else 0.5)
    maker.write()
    return maker


def index_of(page: Path) -> dict[str, object]:
    [file] = (page.parent / "data").glob("*-index.js")
    index: dict[str, object] = content(file.read_bytes())[1]
    return index


def test_the_audit_sample_is_on_the_page_with_its_pictures_and_says_what_is_there_for_it(
    tmp_path: Path,
) -> None:
    maker = make_night(tmp_path)
    index = index_of(Path(write_report(maker.folder)))
    uris = [row["image_uri"] for row in maker.rows]
    sample = {*audit_sample(NIGHT, uris)}
    assert all(Path(row["map_uri"]).is_file() for row in maker.rows if row["image_uri"] in sample)
    bits = [*base64.b64decode(index["images"]["bits"])]  # type: ignore[index]
    flagged = {*uris[:2]}
    assert sum(bool(b & FLAGGED) for b in bits) == 2
    assert sum(bool(b & AUDIT) for b in bits) == 5
    assert sum(bool(b & USUAL) for b in bits) == len(sample - flagged)
    assert sorted(index["queue"]) == list(range(len(sample | flagged)))  # type: ignore[call-overload]


def rows_of(page: str) -> dict[str, list[str]]:
    """The rows of the audit's tables by their first cell."""

    def cells(row: Element) -> list[str]:
        return [cell.text for cell in row.all("td")]

    sections = [s for s in read(page).all("section") if s.attributes["aria-labelledby"] == "audit"]
    rows = [cells(row) for s in sections for row in s.all("tr") if cells(row)]
    return {row[0]: row[1:] for row in rows}


def test_what_is_missed_is_told_by_week_and_category_with_its_interval(tmp_path: Path) -> None:
    maker = make_night(tmp_path)  # 12 March 2026 is a Thursday
    labels = audited("2026-03-03", "defect", "good", "good", "good", "good")
    labels += audited("2026-03-10", *5 * ["good"]) + audited("2026-03-11", *5 * ["good"])
    labels += audited("2025-12-01", *5 * ["defect"])  # longer ago than the weeks that count
    LabelTable(str(tmp_path)).append(to_rows(labels))
    assert rows_of(write_report(maker.folder)) == {
        "2026-03-02": ["5", "1", "20 %", "0.505 % to 71.6 %"],
        "2026-03-09": ["10", "0", "0 %", "0 % to 30.8 %"],
        "all of them": ["15", "1", "6.67 %", "0.169 % to 31.9 %"],
        "bottle": ["0 of 5", "15", "1", "6.67 %", "0.169 % to 31.9 %"],
    }


def test_without_labels_the_page_asks_for_them_and_estimates_nothing(tmp_path: Path) -> None:
    page = write_report(make_night(tmp_path).folder)
    assert rows_of(page) == {}
    assert "Tonight’s sample: 5 images, 0 of them labelled" in read(page).text
