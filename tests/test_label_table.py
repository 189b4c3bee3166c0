"""The table of labels: later labels win, nothing is lost, and how an image was chosen is known."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled import import_file
from night_maker import NIGHT, NightMaker
from typer.testing import CliRunner

from jobs.cli.app import app
from pipeline import storage
from pipeline.catalogue.rename_table import note_renames
from pipeline.catalogue.renames import Rename
from pipeline.labels.audit import AUDIT_IMAGES, audit_sample
from pipeline.labels.label import (
    LABEL_SCHEMA,
    LATER,
    Label,
    LabelsError,
    contradicted,
    labels_of,
    latest,
    standing,
    to_rows,
)
from pipeline.labels.label_table import LabelTable
from pipeline.labels.week_copies import WeekCopies
from pipeline.night.feedback import label_import

MORNING = dt.datetime(2026, 3, 13, 6, 0, tzinfo=dt.UTC)


def label(name: str, said: str, minute: int = 0, **fields: Any) -> Label:
    known = {
        "image_uri": f"s3://dump/bottle/{name}",
        "category": "bottle",
        "label": said,
        "night": NIGHT,
        "labelled_at": MORNING + dt.timedelta(minutes=minute),
    }
    return Label(**(known | fields))


def said(rows: pa.Table) -> dict[str, str]:
    columns = (rows[name].to_pylist() for name in ("image_uri", "label"))
    return {uri.rpartition("/")[2]: value for uri, value in zip(*columns, strict=True)}


def files(out: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in out.rglob("*.parquet")}


def test_an_undo_takes_back_what_was_said_before_and_not_what_comes_after() -> None:
    rows = to_rows(
        [
            label("a.png", "defect", 1),
            label("a.png", "undo", 2),
            label("b.png", "undo", 1),
            label("b.png", "good", 2),
        ]
    )
    assert said(latest(rows)) == {"a.png": "undo", "b.png": "good"}
    assert said(standing(rows)) == {"b.png": "good"}


def test_a_label_of_a_replaced_file_says_nothing_of_the_new_one() -> None:
    rows = to_rows([label("a.png", "defect", 1, image_etag="old"), label("b.png", "good", 2)])
    uris = ["s3://dump/bottle/a.png", "s3://dump/bottle/b.png"]
    assert labels_of(rows, {uris[0]: "new", uris[1]: "new"}) == {uris[1]: "good"}
    assert labels_of(rows, {uris[0]: "old"}) == {uris[0]: "defect", uris[1]: "good"}
    both = to_rows(
        [label("a.png", "defect", 1, image_etag="old"), label("a.png", "good", 0, image_etag="new")]
    )
    assert labels_of(both, {uris[0]: "new"}) == {uris[0]: "good"}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([("anna", "good"), ("ben", "defect")], ["s3://dump/bottle/a.png"]),
        ([("anna", "good"), ("anna", "defect")], []),
        ([("anna", "good"), ("ben", "unsure")], []),
        ([(None, "good"), (None, "defect")], ["s3://dump/bottle/a.png"]),
        ([(None, "good"), (None, "undo"), (None, "defect")], []),
        ([("anna", "good"), ("ben", "defect"), ("anna", "defect")], []),
    ],
)
def test_people_contradict_each_other_and_nobody_himself(
    labels: list[tuple[str | None, str]], expected: list[str]
) -> None:
    rows = [
        label("a.png", word, minute, labelled_by=who) for minute, (who, word) in enumerate(labels)
    ]
    assert contradicted(to_rows(rows)) == expected


@pytest.mark.parametrize(
    ("labels", "counts"),
    [  # label, minute, etag; what stands afterwards: label and etag
        ([("good", 0, None), ("defect", 1, "e")], [("defect", "e")]),
        ([("good", 0, "e"), ("defect", 1, None)], [("defect", None)]),
        ([("good", 0, None), ("good", 1, "e")], [("good", "e")]),
        ([("good", 0, None), ("undo", 1, "e")], []),
        ([("good", 0, "e"), ("undo", 1, None)], []),
        ([("good", 0, "e"), ("defect", 1, "f")], [("good", "e"), ("defect", "f")]),
        (
            [("good", 0, "e"), ("unsure", 1, None), ("defect", 2, "f")],
            [("unsure", "e"), ("defect", "f")],
        ),
        ([("good", 0, "e"), ("defect", 1, "f"), ("good", 2, None)], [("good", None)]),
    ],
)
def test_a_label_without_an_etag_is_of_the_image_whose_etag_another_label_knows(
    labels: list[tuple[Any, int, str | None]], counts: list[tuple[str, str | None]]
) -> None:
    rows = to_rows([label("a.png", word, at, image_etag=etag) for word, at, etag in labels])
    told = standing(rows)
    pairs = zip(told["label"].to_pylist(), told["image_etag"].to_pylist(), strict=True)
    assert list(pairs) == counts


def test_people_contradict_each_other_also_where_one_knew_no_etag() -> None:
    anna = label("a.png", "good", 0, image_etag=None, labelled_by="anna")
    ben = label("a.png", "defect", 1, image_etag="e", labelled_by="ben")
    assert contradicted(to_rows([anna, ben])) == [anna.image_uri]


def test_categories_and_nights_have_files_of_their_own(tmp_path: Path) -> None:
    table = LabelTable(str(tmp_path))
    labels = [
        label("a.png", "good"),
        label("a.png", "good", night="2026-03-13"),
        label("b.png", "good", night=None),
        label("c.png", "defect", category="Odd/name"),
    ]
    assert table.append(to_rows(labels)) == 4
    assert table.append(to_rows(reversed(labels))) == 0  # the order changes nothing
    again = LabelTable(str(tmp_path))
    assert again.categories() == ["Odd/name", "bottle"]
    assert again.of_category("bottle").num_rows == 3
    assert said(again.of_category("Odd/name")) == {"c.png": "defect"}
    assert again.of_night(NIGHT, ["bottle"]).num_rows == 1
    assert said(again.of_night(None, ["bottle"])) == {"b.png": "good"}
    assert again.of_night(NIGHT, ["cable"]).num_rows == 0


def test_a_table_that_is_not_there_is_empty(tmp_path: Path) -> None:
    table = LabelTable(str(tmp_path / "nowhere"))
    assert (table.categories(), table.of_category("bottle").num_rows) == ([], 0)


def write_by_night(out: Path, labels: list[Label], name: str = "0" * 32) -> None:
    """As the first release stored them."""
    rows = to_rows(labels).drop_columns(sorted(LATER))
    folder = out / "labels" / f"night={labels[0].night}"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, folder / f"{name}.parquet")


def test_labels_of_earlier_releases_are_read_where_they_lie(tmp_path: Path) -> None:
    write_by_night(tmp_path, [label("a.png", "good"), label("b.png", "good", category="cable")])
    table = LabelTable(str(tmp_path))
    assert table.categories() == ["bottle", "cable"]
    [row] = table.of_category("bottle").to_pylist()
    assert (row["label"], row["chosen"], row["regions"]) == ("good", "unknown", None)
    assert said(table.of_night(NIGHT, ["cable"])) == {"b.png": "good"}


def test_labels_of_earlier_releases_are_taken_in_once_and_stay_where_they_are(
    tmp_path: Path,
) -> None:
    write_by_night(tmp_path, [label("a.png", "good", 1)])
    before = files(tmp_path)
    assert LabelTable(str(tmp_path)).take_in() == 1
    assert LabelTable(str(tmp_path)).take_in() == 0
    assert files(tmp_path).items() > before.items()
    assert LabelTable(str(tmp_path)).of_category("bottle").num_rows == 1
    write_by_night(tmp_path, [label("a.png", "defect", 2)], "1" * 32)  # by an older release, since
    assert LabelTable(str(tmp_path)).take_in() == 1
    assert said(standing(LabelTable(str(tmp_path)).of_category("bottle"))) == {"a.png": "defect"}


@pytest.mark.parametrize("written", ["no file", "some files", "no record"])
def test_taking_in_that_was_killed_is_finished_by_the_next(tmp_path: Path, written: str) -> None:
    write_by_night(tmp_path, [label("a.png", "good"), label("b.png", "good", category="cable")])
    LabelTable(str(tmp_path)).take_in()
    whole = files(tmp_path)
    if written != "no record":
        for path in (tmp_path / "labels").glob(
            "category=*/*" if written == "no file" else "*cable/*"
        ):
            path.unlink()
    (tmp_path / "labels/taken_in.json").unlink()
    assert LabelTable(str(tmp_path)).take_in() == 1
    assert files(tmp_path) == whole


@pytest.fixture
def night(tmp_path: Path) -> NightMaker:
    """Twenty scored images of a category, the first two of them flagged."""
    maker = NightMaker(tmp_path / "out")
    maker.add_champion("bottle")
    for index in range(20):
        maker.add_scored("bottle", f"{index:02d}.png", 2.0 if index < 2 else 0.5)
    maker.add_unscored("bottle", "torn.png", "unreadable")
    maker.write()
    return maker


def import_lines(night: NightMaker, names: list[str], word: str = "good", **fields: Any) -> Any:
    lines = [
        label("", word, **({"image_uri": f"{night.out}/dump/bottle/{name}"} | fields))
        for name in names
    ]
    path = night.out / "labels.jsonl"
    path.write_text("\n".join(line.model_dump_json() for line in lines))
    [done] = import_file(str(path), str(night.out))
    return done


def chosen(night: NightMaker) -> dict[str, str]:
    rows = standing(LabelTable(str(night.out)).of_category("bottle"))
    columns = (rows[name].to_pylist() for name in ("image_uri", "chosen"))
    return {uri.rpartition("/")[2]: value for uri, value in zip(*columns, strict=True)}


def drawn(night: NightMaker) -> list[str]:
    uris = [row["image_uri"] for row in night.rows if row["status"] == "ok"]
    return [uri.rpartition("/")[2] for uri in audit_sample(NIGHT, uris)]


def test_how_an_image_was_chosen_is_taken_from_the_results(night: NightMaker) -> None:
    others = [f"{index:02d}.png" for index in range(2, 20)]
    import_lines(night, ["00.png", next(name for name in others if name not in drawn(night))])
    assert sorted(chosen(night).values()) == ["flagged", "not_flagged"]


def test_the_audit_counts_when_all_that_were_drawn_have_a_label(night: NightMaker) -> None:
    sample = drawn(night)
    assert len(sample) == AUDIT_IMAGES
    import_lines(night, sample[:-1])
    assert "audit" not in chosen(night).values()
    import_lines(night, sample[-1:])
    assert chosen(night) == dict.fromkeys(sample, "audit")


def test_the_size_of_the_sample_is_what_the_night_was_scored_with(night: NightMaker) -> None:
    summary = json.loads(Path(night.folder.summary).read_text())
    Path(night.folder.summary).write_text(json.dumps(summary | {"audit_images": 2}))
    import_lines(night, drawn(night)[:2])
    assert chosen(night) == dict.fromkeys(drawn(night)[:2], "audit")


def test_what_a_line_claims_of_its_choice_is_not_believed_where_results_are(
    night: NightMaker,
) -> None:
    import_lines(night, ["00.png"], chosen="whole_dump")
    assert chosen(night) == {"00.png": "flagged"}


def test_a_dump_that_is_labelled_whole_counts_whole_and_failed_images_are_not_missed(
    night: NightMaker,
) -> None:
    names = [f"{index:02d}.png" for index in range(20)]
    import_lines(night, names)
    assert chosen(night) == dict.fromkeys(names, "whole_dump")


def whole_choices(night: NightMaker, scores: dict[str, float], *, only_flags: bool) -> set[str]:
    """What an import takes labels of a small night's images for."""
    maker = NightMaker(night.out / "small")
    maker.add_champion("bottle")
    for name, score in scores.items():
        maker.add_scored("bottle", name, score)
    maker.write()
    import_lines(maker, [name for name in scores if scores[name] > 1 or not only_flags])
    return {*chosen(maker).values()}


@pytest.mark.parametrize(
    "scores", [{"a": 9.0}, dict.fromkeys("abcd", 9.0), dict.fromkeys("abcdefg", 9.0)]
)
def test_whoever_labels_flags_alone_completes_no_choice(
    night: NightMaker, scores: dict[str, float]
) -> None:
    assert whole_choices(night, scores, only_flags=True) == {"flagged"}


def test_a_choice_counts_from_five_scored_images_on_one_of_them_not_flagged(
    night: NightMaker,
) -> None:
    four = dict.fromkeys("abc", 9.0) | {"d": 0.5}
    assert whole_choices(night, four, only_flags=False) == {"flagged", "not_flagged"}
    five = four | {"e": 9.0}
    assert whole_choices(night, five, only_flags=False) == {"whole_dump"}


def test_a_sample_of_one_image_is_none(night: NightMaker) -> None:
    summary = json.loads(Path(night.folder.summary).read_text())
    Path(night.folder.summary).write_text(json.dumps(summary | {"audit_images": 1}))
    import_lines(night, drawn(night)[:1])
    assert "audit" not in chosen(night).values()


def test_the_work_of_an_import_does_not_grow_with_the_square_of_its_categories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counted(rows: pa.Table) -> pa.Table:
        calls.append(rows.num_rows)
        return latest(rows)

    maker = NightMaker(tmp_path / "out")
    for category in ("a", "b", "c", "d"):
        maker.add_champion(category)
        maker.add_scored(category, "x.png", 0.5)
    maker.write()
    monkeypatch.setattr(label_import, "latest", counted)
    lines = [
        label("", "good", image_uri=row["image_uri"], category=row["category"]).model_dump_json()
        for row in maker.rows
    ]
    (tmp_path / "labels.jsonl").write_text("\n".join(lines))
    import_file(str(tmp_path / "labels.jsonl"), str(maker.out))
    assert calls == [0, 4]  # before and after, of all categories at once


def test_how_an_image_was_chosen_stays_when_its_label_changes(night: NightMaker) -> None:
    import_lines(night, drawn(night))
    import_lines(night, drawn(night)[:1], "defect", labelled_at=MORNING + dt.timedelta(1))
    assert set(chosen(night).values()) == {"audit"}


@pytest.mark.parametrize("whole", [False, True])
def test_a_sample_that_lost_a_label_is_none_until_it_has_one_again(
    night: NightMaker, whole: bool
) -> None:
    names = [f"{index:02d}.png" for index in range(20)] if whole else drawn(night)
    import_lines(night, names)
    later = MORNING + dt.timedelta(1)
    import_lines(night, names[-1:], "undo", labelled_at=later)
    kept = chosen(night)
    assert sorted(kept) == sorted(names[:-1])
    assert {*kept.values()} <= {"flagged", "not_flagged"} | ({"audit"} if whole else set())
    assert list(kept.values()).count("audit") in {0, AUDIT_IMAGES}
    import_lines(night, names[-1:], "defect", labelled_at=later + dt.timedelta(1))
    assert chosen(night) == dict.fromkeys(names, "whole_dump" if whole else "audit")


def test_an_undo_breaks_the_sample_of_its_own_night_and_category_only() -> None:
    kept = {"chosen": "audit", "image_etag": "e"}
    rows = [
        label("a.png", "good", **kept),
        label("b.png", "good", **kept),
        label("c.png", "good", **kept, night="2026-03-13"),
        label("d.png", "good", **kept, category="cable"),
        label("e.png", "good", **kept | {"chosen": "whole_dump"}, night=None),
        label("a.png", "undo", 1),
    ]
    told = standing(to_rows(rows))
    found = dict(zip(said(told), told["chosen"].to_pylist(), strict=True))
    assert found.pop("b.png") == "unknown"
    assert found == {"c.png": "audit", "d.png": "audit", "e.png": "whole_dump"}


def test_the_audit_is_the_same_for_everybody_and_another_every_night() -> None:
    uris = [f"s3://dump/{index}.png" for index in range(1000)]
    assert audit_sample("2026-03-12", uris) == audit_sample("2026-03-12", reversed(uris))
    nights = {tuple(audit_sample(f"2026-03-{day:02d}", uris)) for day in range(1, 32)}
    assert len(nights) == 31


def test_the_audit_draws_every_image_equally_often() -> None:
    uris = [f"s3://dump/{index}.png" for index in range(20)]
    counts = dict.fromkeys(uris, 0)
    for night in range(2000):
        for uri in audit_sample(str(night), uris, 5):
            counts[uri] += 1
    # Each is drawn with probability 1/4: 500 of 2000, standard deviation 19.4; 5 of these.
    assert all(403 <= count <= 597 for count in counts.values())


def test_the_label_of_an_image_that_is_gone_is_kept_and_said(night: NightMaker) -> None:
    done = import_lines(night, ["00.png", "gone.png"])
    assert done.gone == [f"{night.out}/dump/bottle/gone.png"]
    assert done.num_new == 2
    assert chosen(night) == {"00.png": "flagged", "gone.png": "not_scored"}


def test_labels_of_a_night_whose_rows_were_removed_are_kept_and_said(night: NightMaker) -> None:
    for path in Path(night.folder.results).glob("*"):
        path.unlink()
    assert len(import_lines(night, ["00.png", "01.png"]).gone) == 2


def test_what_was_taken_back_is_counted_and_a_label_again_is_new(night: NightMaker) -> None:
    import_lines(night, ["00.png"])
    undone = import_lines(night, ["00.png"], "undo", labelled_at=MORNING + dt.timedelta(1))
    assert (undone.num_undone, undone.num_new, undone.num_changed) == (1, 0, 0)
    assert undone.precision == {}
    again = import_lines(night, ["00.png"], "defect", labelled_at=MORNING + dt.timedelta(2))
    assert (again.num_undone, again.num_new) == (0, 1)


def test_labels_that_nobody_is_sure_of_do_not_count_for_precision(night: NightMaker) -> None:
    done = import_lines(night, ["00.png"], "unsure")
    assert done.num_new == 1
    assert done.precision == {}


def test_a_table_on_s3_is_the_same(s3: str) -> None:
    LabelTable(s3).append(to_rows([label("a.png", "good")]))
    assert LabelTable(s3).append(to_rows([label("a.png", "good")])) == 0
    assert said(LabelTable(s3).of_night(NIGHT, ["bottle"])) == {"a.png": "good"}
    [uri] = [item.uri for item in storage.list_objects(f"{s3}/labels")]
    assert uri.startswith(f"{s3}/labels/category=bottle/{NIGHT}-")


def test_labels_are_shown_by_category(night: NightMaker) -> None:
    import_lines(night, ["00.png", "01.png", "gone.png"])
    import_lines(night, ["00.png"], "defect", labelled_at=MORNING + dt.timedelta(1))
    arguments = ["labels", "show", str(night.out), "--gone"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["bottle", "3", "2", "1", "0", "0", "-", "2026-03-14"] in rows
    assert "3 images of bottle labelled and there no more; labels stay" in done.stdout
    assert "1 image of bottle labelled differently by people; the latest" in done.stdout
    [entry] = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert (entry["images"], entry["versions"], entry["undone"]) == (3, 4, 0)


def test_an_audit_shows_what_is_missed_of_a_category(night: NightMaker) -> None:
    import_lines(night, [f"{index:02d}.png" for index in range(20)])
    [entry] = json.loads(
        CliRunner().invoke(app, ["labels", "show", str(night.out), "--json"]).stdout
    )
    assert entry["missed"] == {"images": 20, "missed": 0, "unsure": 0}
    shown = (
        CliRunner().invoke(app, ["labels", "show", str(night.out)], env={"COLUMNS": "200"}).stdout
    )
    assert "to 16.8 %)" in shown  # 1 - .025 ** (1 / 20)


def test_the_columns_of_the_table_are_these() -> None:
    assert LABEL_SCHEMA.names == [
        *("image_uri", "image_etag", "category", "label", "kind", "regions", "night"),
        *("model_name", "model_version", "labelled_by", "labelled_at", "chosen"),
    ]


def test_labels_go_with_a_category_that_is_renamed(tmp_path: Path) -> None:
    """Bottle became flask on the 13th; the bottle of the 20th is another one."""
    table = LabelTable(str(tmp_path))
    last, after = {"night": "2026-03-13"}, {"night": "2026-03-20"}
    rows = [
        label("a.png", "defect"),
        label("b.png", "good", **last),
        label("c.png", "good", **after, model_name="nightshift.bottle"),
        label("d.png", "good", **after, model_name="nightshift.flask"),  # below the old folder
        label("e.png", "defect", **after, category="flask"),
        label("f.png", "good", night=None),
        label("g.png", "good", category="cable"),
    ]
    table.append(to_rows(rows))
    assert LabelTable(str(tmp_path)).categories() == ["bottle", "cable", "flask"]
    renamed = Rename(old="bottle", new="flask", when=dt.datetime(2026, 3, 13, 9, tzinfo=dt.UTC))
    note_renames(str(tmp_path), [renamed])
    table = LabelTable(str(tmp_path))
    assert set(said(table.of_category("flask"))) == {"a.png", "b.png", "d.png", "e.png", "f.png"}
    assert set(said(table.of_category("bottle"))) == {"c.png"}
    assert set(said(table.of_category("cable"))) == {"g.png"}
    assert table.categories() == ["bottle", "cable", "flask"]
    of_night = table.of_night(NIGHT, ["bottle"])  # the names of the night
    assert set(said(of_night)) == {"a.png"}


@pytest.mark.parametrize("copied", [False, True])
def test_labels_of_weeks_have_the_names_of_the_last_night(tmp_path: Path, copied: bool) -> None:
    """Bottle became flask on the 13th; the bottle of the 20th is another one."""
    copies = WeekCopies(f"{tmp_path}/summary/labels") if copied else None
    rows = [
        label("a.png", "defect"),
        label("b.png", "good", night="2026-03-20", category="flask"),
        label("c.png", "good", night="2026-03-20", model_name="nightshift.bottle"),
    ]
    LabelTable(str(tmp_path)).append(to_rows(rows))
    when = dt.datetime(2026, 3, 13, 9, tzinfo=dt.UTC)
    note_renames(str(tmp_path), [Rename(old="bottle", new="flask", when=when)])

    def named(nights: list[str], *names: str) -> set[tuple[str, str]]:
        found = LabelTable(str(tmp_path)).of_nights(nights, names, copies)
        assert found.schema == LABEL_SCHEMA
        return {(row["image_uri"][-5:], row["category"]) for row in found.to_pylist()}

    both = [NIGHT, "2026-03-20"]
    assert named(both, "flask") == {("a.png", "flask"), ("b.png", "flask")}
    assert named(both, "bottle") == {("c.png", "bottle")}
    assert named([NIGHT], "bottle") == {("a.png", "bottle")}
    of_the_day = [
        label("d.png", "good", night="2026-03-13"),
        label("e.png", "good", night="2026-03-13", category="flask"),
    ]
    LabelTable(str(tmp_path)).append(to_rows(of_the_day))
    day = ["2026-03-13"]
    assert named(day, "bottle", "flask") == {("d.png", "bottle"), ("e.png", "flask")}


def test_a_copy_of_a_week_that_is_damaged_anywhere_is_made_anew(tmp_path: Path) -> None:
    LabelTable(str(tmp_path)).append(audits(NIGHT))
    copies = WeekCopies(f"{tmp_path}/summary/labels")

    def read() -> pa.Table:
        return LabelTable(str(tmp_path)).of_nights([NIGHT], ["bottle"], copies)

    rows = read()
    (copy,) = (tmp_path / "summary/labels").iterdir()
    whole = copy.read_bytes()
    for place in range(0, len(whole), len(whole) // 20):
        copy.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert read().equals(rows)
        assert copy.read_bytes() == whole


def test_a_damaged_file_of_labels_is_named(tmp_path: Path) -> None:
    LabelTable(str(tmp_path)).append(audits(NIGHT))
    (file,) = (tmp_path / "labels/category=bottle").iterdir()
    content = bytearray(file.read_bytes())
    content[4:60] = bytes(56)  # of the first column
    file.write_bytes(content)
    with pytest.raises(LabelsError, match="does not hold labels"):
        LabelTable(str(tmp_path)).of_category("bottle")


def test_a_name_that_nobody_has_any_more_is_not_listed(tmp_path: Path) -> None:
    LabelTable(str(tmp_path)).append(to_rows([label("a.png", "defect")]))
    when = dt.datetime(2026, 4, 1, tzinfo=dt.UTC)
    renames = [Rename(old="bottle", new="flask", when=when)]
    note_renames(str(tmp_path), [*renames, Rename(old="flask", new="jar", when=when)])
    table = LabelTable(str(tmp_path))
    assert table.categories() == ["jar"]
    assert set(said(table.of_category("jar"))) == {"a.png"}


@pytest.mark.parametrize("kind", ["jsonl", "coco", "fiftyone"])
def test_results_without_labels_are_exported_to_no_file(night: NightMaker, kind: str) -> None:
    file = night.out / "labels.json"
    arguments = ["labels", "export", str(night.out), "--to", str(file), "--format", kind]
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.stdout.count("\n")) == (0, 1)
    assert "not written: there is no label" in done.stdout
    assert not file.exists()


@pytest.mark.parametrize("command", ["show", "export"])
def test_results_that_are_not_there_have_no_labels_to_show(tmp_path: Path, command: str) -> None:
    more = ["--to", str(tmp_path / "x.jsonl")] if command == "export" else []
    done = CliRunner().invoke(app, ["labels", command, str(tmp_path / "nowhere"), *more])
    assert "nowhere: nothing is there; name the folder" in str(done.exception)
    assert not (tmp_path / "x.jsonl").exists()


def audits(*nights: str) -> pa.Table:
    return to_rows([label("a.png", "good", night=night) for night in nights])


def test_copies_of_weeks_hold_what_the_table_holds_and_only_that(tmp_path: Path) -> None:
    nights = [NIGHT, "2026-03-04", "2026-02-26"]  # of three weeks
    copies = WeekCopies(f"{tmp_path}/summary/labels")

    def read(names: tuple[str, ...] = ("bottle",)) -> list[str]:
        table = LabelTable(str(tmp_path))
        copied, own = (table.of_nights(nights, names, way) for way in (copies, None))
        assert sorted(map(repr, copied.to_pylist())) == sorted(map(repr, own.to_pylist()))
        return sorted(copied["night"].to_pylist())

    LabelTable(str(tmp_path)).append(audits(*nights[:2], "2026-01-01"))
    assert read() == sorted(nights[:2])
    LabelTable(str(tmp_path)).append(audits(*nights))  # one of them is new
    assert read() == sorted(nights)
    assert read(("gear",)) == []
    (of_night,) = (tmp_path / "labels/category=bottle").glob(f"{NIGHT}-*")
    of_night.unlink()
    assert read() == sorted(nights[1:])
    kept = sorted((tmp_path / "summary/labels").iterdir())
    assert [path.name for path in kept] == [
        f"week={day}.copy" for day in ("2026-02-23", "2026-03-02", "2026-03-09")
    ]
    for path, content in zip(kept, (b"", b"PAR1", kept[0].read_bytes()), strict=True):
        path.write_bytes(content)  # the last is another week's
    assert read() == sorted(nights[1:])


def test_what_is_copied_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LabelTable(str(tmp_path)).append(audits(NIGHT))
    copies = WeekCopies(f"{tmp_path}/summary/labels")
    LabelTable(str(tmp_path)).of_nights([NIGHT], ["bottle"], copies)
    monkeypatch.setattr(pq, "write_table", lambda *args, **kwargs: pytest.fail("written again"))
    (of_night,) = (tmp_path / "labels/category=bottle").iterdir()
    of_night.write_bytes(b"damaged since")
    assert LabelTable(str(tmp_path)).of_nights([NIGHT], ["bottle"], copies).num_rows == 1
