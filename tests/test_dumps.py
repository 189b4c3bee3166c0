"""Dumps of one night add up: what a further one adds, removes, changes, or may not contradict."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import storage
from pipeline.datasets.image_lists import ManifestError
from pipeline.night.dumps import Change, NightImages, take_in
from pipeline.night.folder import NightFolder
from pipeline.night.listing import list_dump
from pipeline.night.manifest import MANIFEST_SCHEMA, read_manifest, shards

NIGHT = "2026-03-12"


@pytest.fixture
def folder(tmp_path: Path) -> NightFolder:
    return NightFolder(str(tmp_path / "out"), NIGHT)


@pytest.fixture
def early(tmp_path: Path) -> Path:
    """The first dump of the night."""
    return fill(tmp_path / "early", "bolt/1.png", "bolt/2.png", "cup/1.png")


def fill(dump: Path, *names: str, content: str = "x") -> Path:
    for name in names:
        (dump / name).parent.mkdir(parents=True, exist_ok=True)
        (dump / name).write_text(content)
    return dump


def write_manifest(path: Path, rows: list[Mapping[str, Any]]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def brought(night: NightImages) -> dict[str, str | None]:
    """Which dump each image came from, by the ends of their addresses."""
    return {
        "/".join(row["image_uri"].split("/")[-3:]): row["dump"] and row["dump"].split("/")[-1]
        for row in night.rows.to_pylist()
    }


def stored(folder: NightFolder) -> NightImages:
    """The night as its stored manifest says it is."""
    return take_in(folder.manifest, folder)[0]


def as_earlier_releases_stored_it(folder: NightFolder) -> None:
    table = stored(folder).manifest
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    storage.write_bytes(folder.manifest, sink.getvalue().to_pybytes())


def test_the_first_dump_is_the_night(early: Path, folder: NightFolder) -> None:
    night, change = take_in(str(early), folder)
    assert night.manifest.equals(list_dump(str(early)).images)
    assert (night.categories, change) == ({"bolt", "cup"}, Change(num_added=3))
    assert folder.manifest == f"{folder.out}/manifest/night=2026-03-12/manifest.parquet"


def test_the_stored_manifest_is_the_very_same_night_whatever_became_of_the_dump(
    early: Path, folder: NightFolder
) -> None:
    fill(early, "cup/1.json")
    night, _ = take_in(str(early), folder)
    (early / "cup/1.png").unlink()
    again, change = take_in(folder.manifest, folder)
    assert (again.rows.equals(night.rows), change) == (True, Change())
    assert again.num_other_files == {".json": 1}
    assert read_manifest(folder.manifest).equals(night.manifest)
    anew, _ = take_in(f"file://{folder.manifest}", folder, replace=True)
    assert anew.rows.equals(night.rows)


def test_a_second_dump_adds_its_images_and_its_other_files(
    early: Path, folder: NightFolder, tmp_path: Path
) -> None:
    late = fill(tmp_path / "late", "bolt/1.png", "nut/1.png", "nut/1.json", "nut/.x")
    fill(early, "cup/1.json", "Thumbs.db")
    take_in(str(early), folder)
    night, change = take_in(str(late), folder)
    assert change == Change(num_before=3, num_added=2)
    assert brought(night) == {
        **dict.fromkeys(["early/bolt/1.png", "early/bolt/2.png", "early/cup/1.png"], "early"),
        **dict.fromkeys(["late/bolt/1.png", "late/nut/1.png"], "late"),
    }
    uris = night.rows["image_uri"].to_pylist()
    assert uris == sorted(uris)
    assert night.num_other_files == {".json": 2, ".db": 1, "hidden": 1}
    assert stored(folder) == night


def test_the_order_of_the_dumps_plays_no_part(early: Path, tmp_path: Path) -> None:
    late = fill(tmp_path / "late", "bolt/1.png", "bolt/0.png")
    nights = []
    for number, order in enumerate(([early, late], [late, early], [late, early, late])):
        folder = NightFolder(str(tmp_path / f"out-{number}"), NIGHT)
        for dump in order:
            take_in(str(dump), folder)
        nights.append(stored(folder).rows)
    assert nights[0].equals(nights[1])
    assert nights[0].equals(nights[2])


def test_a_prefix_that_is_listed_again_has_what_is_there_now_and_touches_no_other_dump(
    early: Path, folder: NightFolder, tmp_path: Path
) -> None:
    late = fill(tmp_path / "late", "bolt/1.png")
    for dump in (early, late):
        take_in(str(dump), folder)
    (early / "bolt/1.png").unlink()
    fill(early, "bolt/3.png", "bolt/4.png", "bolt/3.json")
    fill(early, "cup/1.png", content="another")
    night, change = take_in(f"{early}/", folder)
    assert change == Change(num_before=4, num_added=2, num_removed=1, num_changed=1)
    assert brought(night) == {
        **{f"early/{name}.png": "early" for name in ("bolt/2", "bolt/3", "bolt/4", "cup/1")},
        "late/bolt/1.png": "late",
    }
    assert night.num_other_files == {".json": 1}
    (early / "bolt/3.json").unlink()
    again, change = take_in(str(early), folder)
    assert change == Change(num_before=5)
    assert again.num_other_files == {}


def test_a_manifest_adds_what_it_lists_and_takes_nothing_away(
    early: Path, folder: NightFolder, tmp_path: Path
) -> None:
    take_in(str(early), folder)
    known = {"image_uri": f"{early}/cup/1.png", "category": "cup"}
    new = {"image_uri": "s3://b/9.png", "category": "cup", "etag": "e"}
    ready = write_manifest(tmp_path / "ready.jsonl", [known, new])
    night, change = take_in(ready, folder)
    assert change == Change(num_before=3, num_added=1)
    assert brought(night)["early/cup/1.png"] == "early"
    assert brought(night)["/b/9.png"] == "ready.jsonl"
    write_manifest(tmp_path / "ready.jsonl", [known])
    assert take_in(ready, folder)[1] == Change(num_before=4)
    assert take_in(str(early), folder)[1] == Change(num_before=4)
    assert stored(folder).rows.equals(night.rows)


URI = "s3://b/1.png"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"category": "cup", "etag": "e1"}, "category 'cup', was 'bolt'"),
        ({"category": "bolt", "etag": "e2"}, "image_etag 'e2', was 'e1'"),
        ({"category": "cup", "etag": "e2"}, "category 'cup', was 'bolt'"),
        ({"category": "cup"}, "category 'cup', was 'bolt'"),
    ],
)
@pytest.mark.parametrize("name", ["first.jsonl", "second.jsonl"])
def test_a_corrected_manifest_is_refused_in_one_line_unless_it_replaces_the_night(
    folder: NightFolder, tmp_path: Path, row: dict[str, str], said: str, name: str
) -> None:
    rows = [
        {"image_uri": URI, "category": "bolt", "etag": "e1"},
        {"image_uri": "s3://b/2.png", "category": "bolt"},
    ]
    take_in(write_manifest(tmp_path / "first.jsonl", rows), folder)
    before = storage.read_bytes(folder.manifest)
    corrected = write_manifest(tmp_path / name, [{"image_uri": URI, **row}])
    with pytest.raises(ManifestError, match=f"1 of its images, for example {URI}: ") as caught:
        take_in(corrected, folder)
    assert said in str(caught.value)
    assert "--replace" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert storage.read_bytes(folder.manifest) == before
    night, change = take_in(corrected, folder, replace=True)
    assert night.manifest["image_uri"].to_pylist() == [URI]
    assert change == Change(num_added=1)
    assert stored(folder) == night


def test_an_etag_that_nobody_knows_contradicts_none(folder: NightFolder, tmp_path: Path) -> None:
    row = {"image_uri": URI, "category": "bolt"}
    known, unknown = (
        write_manifest(tmp_path / f"{number}.jsonl", [row | more])
        for number, more in enumerate(({"etag": "e"}, {}))
    )
    for order, etag in (([known, unknown], "e"), ([unknown, known], None)):
        take_in(order[0], folder, replace=True)
        night, change = take_in(order[1], folder)
        assert night.rows["image_etag"].to_pylist() == [etag]  # its row stays as it was scored
        assert change == Change(num_before=1)


@pytest.mark.parametrize("first", ["", "/bolt"])
def test_prefixes_that_overlap_with_other_categories_are_refused(
    early: Path, folder: NightFolder, first: str
) -> None:
    second = {"": "/bolt", "/bolt": ""}[first]
    take_in(f"{early}{first}", folder)
    with pytest.raises(ManifestError, match=r"contradicts what the night has of 2 of its images"):
        take_in(f"{early}{second}", folder)
    take_in(f"{early}{second}", folder, replace=True)


def test_replacing_forgets_every_other_dump(
    early: Path, folder: NightFolder, tmp_path: Path
) -> None:
    fill(early, "cup/1.json")
    late = fill(tmp_path / "late", "bolt/1.png")
    take_in(str(early), folder)
    night, _ = take_in(str(late), folder, replace=True)
    assert brought(night) == {"late/bolt/1.png": "late"}
    assert night.num_other_files == {}
    assert stored(folder) == night


def test_a_manifest_that_an_earlier_release_stored_is_read(
    early: Path, folder: NightFolder, tmp_path: Path
) -> None:
    """It did not say which dump an image came from: one that lies below a prefix is of it."""
    late = fill(tmp_path / "late", "bolt/1.png")
    take_in(str(early), folder)
    as_earlier_releases_stored_it(folder)
    assert set(brought(stored(folder)).values()) == {None}
    night, change = take_in(str(late), folder)
    assert change == Change(num_before=3, num_added=1)
    assert brought(night) == {
        **dict.fromkeys(["early/bolt/1.png", "early/bolt/2.png", "early/cup/1.png"]),
        "late/bolt/1.png": "late",
    }
    (early / "bolt/1.png").unlink()
    night, change = take_in(str(early), folder)
    assert change == Change(num_before=4, num_removed=1)
    assert brought(night)["early/bolt/2.png"] == "early"


@pytest.mark.parametrize("content", [b"", b"no parquet"])
def test_a_damaged_stored_manifest_is_named_and_can_be_replaced(
    early: Path, folder: NightFolder, content: bytes
) -> None:
    storage.write_bytes(folder.manifest, content)
    for dump in (str(early), folder.manifest):
        with pytest.raises(ManifestError, match=r"manifest\.parquet does not list .*--replace"):
            take_in(dump, folder)
    take_in(str(early), folder, replace=True)
    assert len(brought(stored(folder))) == 3


def test_a_dump_that_is_refused_leaves_the_night_as_it_was(
    early: Path, folder: NightFolder, tmp_path: Path
) -> None:
    take_in(str(early), folder)
    before = storage.read_bytes(folder.manifest)
    for replace in (False, True):
        with pytest.raises(ManifestError, match=r"1 \.json, and no image"):
            take_in(str(fill(tmp_path / "notes", "cup/1.json")), folder, replace=replace)
        with pytest.raises(storage.ObjectMissing, match="nowhere"):
            take_in(str(tmp_path / "nowhere"), folder, replace=replace)
    assert storage.read_bytes(folder.manifest) == before


def test_which_dump_brought_an_image_is_no_part_of_a_shards_name(
    early: Path, folder: NightFolder
) -> None:
    night, _ = take_in(str(early), folder)
    listed = list_dump(str(early)).images
    assert [s.name for s in shards(night.rows)] == [s.name for s in shards(listed)]
    assert shards(night.manifest)[0].rows.schema == MANIFEST_SCHEMA


def test_dumps_add_up_on_s3(s3: str) -> None:
    folder = NightFolder(f"{s3}/dumps/out", NIGHT)
    for name in ("early/cup/1.png", "late/cup/1.png", "late/cup/1.json"):
        storage.write_bytes(f"{s3}/dumps/{name}", b"x")
    take_in(f"{s3}/dumps/early/", folder)
    night, change = take_in(f"{s3}/dumps/late", folder)
    assert brought(night) == {"early/cup/1.png": "early", "late/cup/1.png": "late"}
    assert (change, night.num_other_files) == (Change(num_before=1, num_added=1), {".json": 1})
    assert stored(folder) == night


@pytest.mark.parametrize(
    "suffix",
    [
        *("parquet", "pq", "csv", "jsonl", "json", "ndjson", "manifest"),
        *("Parquet", "PQ", "Csv", "NDJSON"),
    ],
)
def test_a_night_given_as_a_manifest_is_read_and_not_listed(
    tmp_path: Path, folder: NightFolder, suffix: str
) -> None:
    path = tmp_path / f"night.{suffix}"
    row = {"image_uri": "a.png", "category": "steel"}
    if suffix.lower() in ("parquet", "pq"):
        pq.write_table(pa.Table.from_pylist([row]), path)
    elif suffix.lower() == "csv":
        path.write_text("image_uri,category\na.png,steel\n")
    else:
        path.write_text(json.dumps(row))
    night, _ = take_in(str(path), folder)
    assert night.rows["category"].to_pylist() == ["steel"]


def test_a_name_that_is_not_unicode_is_a_dump_like_any_other(
    tmp_path: Path, folder: NightFolder
) -> None:
    dump = str(tmp_path).encode() + b"/n\xe4chtlich"
    fill(Path(dump.decode(errors="surrogateescape")), "cup/1.png")
    for change in (Change(num_added=1), Change(num_before=1)):
        assert take_in(dump.decode(errors="surrogateescape"), folder)[1] == change
