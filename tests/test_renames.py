"""What a category was called, and is called now: beside the results and on the page."""

import datetime as dt
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.catalogue.rename_table import RenamesError, note_renames, read_renames
from pipeline.catalogue.renames import Rename, earlier_names, name_now, names_on


def rename(old: str, new: str, day: int) -> Rename:
    return Rename(old=old, new=new, when=dt.datetime(2026, 3, day, 12, tzinfo=dt.UTC))


# a became b on the 5th and c on the 10th; another a came on the 12th and became d on the 20th.
TWICE = [rename("b", "c", 10), rename("a", "d", 20), rename("a", "b", 5)]
BACK = [rename("a", "b", 5), rename("b", "a", 10)]


@pytest.mark.parametrize(
    ("category", "night", "today"),
    [
        ("a", "2026-03-04", "c"),
        ("a", "2026-03-05", "c"),  # of the day itself the name means what it meant before
        ("b", "2026-03-06", "c"),
        ("b", "2026-03-11", "b"),  # a third one, which nobody has renamed
        ("a", "2026-03-13", "d"),
        ("a", "2026-03-21", "a"),
        ("c", "2026-03-04", "c"),
        ("other", "2026-03-04", "other"),
    ],
)
def test_a_name_means_what_it_meant_on_its_night(category: str, night: str, today: str) -> None:
    assert name_now(category, night, TWICE) == today


def test_a_category_knows_the_names_it_had_and_until_when() -> None:
    assert earlier_names("c", TWICE) == [("b", "2026-03-10"), ("a", "2026-03-05")]
    assert earlier_names("d", TWICE) == [("a", "2026-03-20")]
    assert earlier_names("a", TWICE) == []
    assert earlier_names("b", TWICE) == []


@pytest.mark.parametrize(
    ("day", "names"), [(4, ["b", "a"]), (6, ["b"]), (10, ["b"]), (11, []), (13, [])]
)
def test_a_category_is_found_by_the_names_that_it_had_on_a_night(
    day: int, names: list[str]
) -> None:
    """And by its own of today, which on these nights nobody else had."""
    assert names_on(f"2026-03-{day:02}", "c", TWICE) == ["c", *names]


def test_a_name_is_not_a_category_that_has_it_only_now() -> None:
    assert names_on("2026-03-04", "a", TWICE) == []
    assert names_on("2026-03-13", "d", TWICE) == ["d", "a"]
    assert names_on("2026-03-04", "a", []) == ["a"]


def test_a_name_may_come_back() -> None:
    assert [name_now("a", f"2026-03-{day:02}", BACK) for day in (1, 7, 20)] == ["a"] * 3
    assert [name_now("b", f"2026-03-{day:02}", BACK) for day in (7, 20)] == ["a", "b"]
    assert earlier_names("a", BACK) == [("b", "2026-03-10")]
    assert earlier_names("b", BACK) == []


def test_the_days_of_renames_are_those_of_utc() -> None:
    east = dt.timezone(dt.timedelta(hours=9))
    when = dt.datetime(2026, 3, 6, 2, tzinfo=east)  # the 5th, 17:00 in UTC
    assert Rename(old="a", new="b", when=when).last_night == "2026-03-05"


def test_the_table_beside_the_results_grows_and_is_written_only_then(tmp_path: Path) -> None:
    out = str(tmp_path)
    assert read_renames(out) == []
    assert not note_renames(out, [])
    assert not (tmp_path / "fleet").exists()
    assert note_renames(out, BACK[1:])
    assert note_renames(out, BACK)
    assert read_renames(out) == BACK
    before = (tmp_path / "fleet/renames.json").stat().st_mtime_ns
    assert not note_renames(out, BACK[:1])
    assert (tmp_path / "fleet/renames.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"renames": [{"old": "a"}]}', b'{"renames": 3}', b"\xff"]
)
def test_a_damaged_table_is_told_of_and_written_anew(tmp_path: Path, content: bytes) -> None:
    out = str(tmp_path)
    storage.write_bytes(f"{out}/fleet/renames.json", content)
    with pytest.raises(RenamesError, match=r"renames\.json is damaged .*delete it"):
        read_renames(out)
    assert note_renames(out, BACK)
    assert read_renames(out) == BACK
