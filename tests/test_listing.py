"""Listing a dump: which of its files are rows, of which category, and which are only counted."""

import re
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.datasets.image_lists import ManifestError
from pipeline.night.listing import list_dump
from pipeline.night.manifest import MANIFEST_SCHEMA


def write(folder: Path, name: str, content: str = "x") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def test_every_image_below_the_dump_is_a_row_sorted_by_uri(tmp_path: Path) -> None:
    for name in ["b/2.png", "a/deep/1.jpg", "stray.png", "b/notes", "Ü b/#3 %.png", ".x"]:
        write(tmp_path, name, "12345")
    manifest = list_dump(str(tmp_path)).images
    assert manifest.schema == MANIFEST_SCHEMA
    rows = manifest.to_pylist()
    assert [row["image_uri"] for row in rows] == [
        f"{tmp_path}/{name}"
        for name in ["a/deep/1.jpg", "b/2.png", "b/notes", "stray.png", "Ü b/#3 %.png"]
    ]
    assert [row["category"] for row in rows] == ["a", "b", "b", "", "Ü b"]
    assert {row["size_bytes"] for row in rows} == {5}
    assert all(row["image_etag"] for row in rows)


@pytest.mark.parametrize("spelling", ["{}", "{}/", "file://{}", "{}/../{name}"])
def test_the_dump_may_be_spelled_in_any_way(tmp_path: Path, spelling: str) -> None:
    write(tmp_path, "bottle/1.png")
    manifest = list_dump(spelling.format(tmp_path, name=tmp_path.name)).images
    assert manifest["image_uri"].to_pylist() == [f"{tmp_path}/bottle/1.png"]
    assert manifest["category"].to_pylist() == ["bottle"]


def test_a_dump_on_s3_is_listed_with_its_etags(s3: str) -> None:
    storage.write_bytes(f"{s3}/night/bottle/1 ä#.png", b"abc")
    storage.write_bytes(f"{s3}/nights/other/1.png", b"abc")
    assert list_dump(f"{s3}/night/").images.to_pylist() == [
        {
            "image_uri": f"{s3}/night/bottle/1 ä#.png",
            "image_etag": "900150983cd24fb0d6963f7d28e17f72",  # MD5 of "abc", RFC 1321
            "size_bytes": 3,
            "category": "bottle",
        }
    ]


def test_a_missing_dump_is_named(tmp_path: Path) -> None:
    with pytest.raises(storage.ObjectMissing, match="tonight does not exist"):
        list_dump(str(tmp_path / "tonight"))


def test_an_empty_dump_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="holds no file; a dump is <dump>/<category>/<image>"):
        list_dump(str(tmp_path))


def test_a_file_name_that_is_not_unicode_is_a_row_like_any_other(tmp_path: Path) -> None:
    folder = str(tmp_path).encode() + b"/caf\xe9"
    Path(folder.decode(errors="surrogateescape")).mkdir()
    Path((folder + b"/\xff.png").decode(errors="surrogateescape")).write_bytes(b"x")
    write(tmp_path, "cup/1.png")
    rows = list_dump(str(tmp_path)).images.to_pylist()
    assert [row["category"] for row in rows] == ["cup", "caf?"]
    assert storage.read_bytes(rows[1]["image_uri"]) == b"x"


BESIDE = {
    **{"cup/1.png.json": ".json", "cup/2.JSON": ".json", "cup/Thumbs.db": ".db"},
    **{"desktop.ini": ".ini", "cup/.DS_Store": "hidden", ".part-1.png": "hidden"},
}


@pytest.mark.parametrize("on", ["disk", "s3"])
def test_files_that_are_no_images_are_counted_by_kind_and_make_no_row(
    tmp_path: Path, s3: str, on: str
) -> None:
    dump = f"{tmp_path}/dump" if on == "disk" else f"{s3}/beside"
    images = ["cup/1.png", "cup/2.tga", "cup/20260312T0600", "cup/3.raw", "cup/4.jfif"]
    for name in [*images, *BESIDE]:
        storage.write_bytes(f"{dump}/{name}", b"x")
    listing = list_dump(dump)
    assert listing.images["image_uri"].to_pylist() == [f"{dump}/{name}" for name in images]
    assert listing.other_files == {".json": 2, ".db": 1, ".ini": 1, "hidden": 2}


def test_a_hidden_folder_counts_as_one_on_the_disk_and_is_not_opened(tmp_path: Path) -> None:
    for name in ["cup/1.png", ".snapshot/cup/1.png", ".snapshot/cup/2.png", "cup/.git/a"]:
        write(tmp_path, name)
    (tmp_path / ".snapshot").chmod(0)
    try:
        assert list_dump(str(tmp_path)).other_files == {"hidden": 2}
    finally:
        (tmp_path / ".snapshot").chmod(0o755)


def test_a_dump_may_itself_lie_under_a_hidden_folder(tmp_path: Path) -> None:
    write(tmp_path, ".cache/night.json/cup/1.png")
    listing = list_dump(f"{tmp_path}/.cache/night.json/")
    assert listing.images["category"].to_pylist() == ["cup"]
    assert listing.other_files == {}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["cup/1.json", "cup/2.json", "Thumbs.db"], "2 .json, 1 .db"),
        ([".DS_Store"], "1 hidden"),
    ],
)
def test_a_dump_of_other_files_only_is_refused_with_their_counts(
    tmp_path: Path, names: list[str], found: str
) -> None:
    for name in names:
        write(tmp_path, name)
    with pytest.raises(ManifestError, match=re.escape(f"holds {found}, and no image; a dump is")):
        list_dump(str(tmp_path))
