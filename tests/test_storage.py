"""Objects on the local disk and on a real S3 server, through the same functions."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import storage
from pipeline.storage import ObjectMissing, StorageError

ODD_NAMES = [
    "a b/c d.png",
    "Gehäuse/№ 7 日本 😀.png",
    "#1/half#2.png",
    "100%/p%20q%2F.png",
    "what?/x?versionId=7.png",
    "a+b/c&d=e;f,g.png",
    "quote'\"<&>.png",
    "[brackets]{braces}*~^`|.png",
]


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty folder, on the disk and on S3."""
    if request.param == "local":
        yield str(tmp_path / "place")
    else:
        yield storage.join(request.getfixturevalue("s3"), "storage", tmp_path.name)


def listed(prefix: str, *, hidden: bool = False) -> list[str]:
    found = storage.list_objects(prefix, hidden=hidden)
    return sorted(item.uri[len(prefix) + 1 :] for item in found)


def test_what_was_written_is_read(place: str) -> None:
    uri = storage.join(place, "deep", "er", "file.bin")
    storage.write_bytes(uri, b"\x00\xff" * 5)
    assert storage.read_bytes(uri) == b"\x00\xff" * 5
    storage.write_bytes(uri, b"")
    assert storage.read_bytes(uri) == b""


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_round_trip(place: str, name: str) -> None:
    uri = storage.join(place, name)
    storage.write_bytes(uri, name.encode())
    [item] = storage.list_objects(place)
    assert item.uri == uri
    assert item.size_bytes == len(name.encode())
    assert storage.read_bytes(item.uri) == name.encode()
    assert storage.list_names(place) == [name.partition("/")[0]]
    assert storage.exists(uri)
    storage.delete(uri)
    assert not storage.exists(uri)


def test_a_listing_is_recursive_and_skips_hidden_names(place: str) -> None:
    names = ["a/1.png", "a/b/2.png", "3.png", ".hidden", "a/.git/4.png", ".cache/5.png", "c.d/6"]
    for name in names:
        storage.write_bytes(storage.join(place, name), b"x")
    assert listed(place) == ["3.png", "a/1.png", "a/b/2.png", "c.d/6"]
    assert listed(place + "/") != []
    every = listed(place, hidden=True)
    if storage.is_local(place):  # a hidden folder is named and not opened
        names = [*names[:4], "a/.git", ".cache", names[-1]]
    assert every == sorted(names)
    assert storage.list_names(place) == ["3.png", "a", "c.d"]
    assert storage.list_names(storage.join(place, "a")) == ["1.png", "b"]


def test_a_prefix_is_a_folder_not_the_start_of_a_name(place: str) -> None:
    storage.write_bytes(storage.join(place, "night/1"), b"x")
    storage.write_bytes(storage.join(place, "night2/2"), b"x")
    assert listed(storage.join(place, "night")) == ["1"]


def test_the_etag_changes_with_the_content(place: str) -> None:
    uri = storage.join(place, "file")
    etags = []
    for content in (b"one", b"three"):
        storage.write_bytes(uri, content)
        etags.append(next(storage.list_objects(place)).etag)
    assert all(etags)
    assert etags[0] != etags[1]
    assert '"' not in "".join(etags)


def test_a_listing_is_never_stale(place: str) -> None:
    storage.write_bytes(storage.join(place, "1"), b"x")
    assert (listed(place), storage.list_names(place)) == (["1"], ["1"])
    storage.write_bytes(storage.join(place, "2"), b"x")
    assert (listed(place), storage.list_names(place)) == (["1", "2"], ["1", "2"])
    storage.delete(storage.join(place, "1"))
    assert (listed(place), storage.exists(storage.join(place, "1"))) == (["2"], False)


def test_what_is_missing_is_named(place: str) -> None:
    storage.write_bytes(storage.join(place, "there"), b"x")
    gone = storage.join(place, "gone")
    with pytest.raises(ObjectMissing, match=gone):
        storage.read_bytes(gone)
    with pytest.raises(ObjectMissing, match=gone):
        list(storage.list_objects(gone))
    with pytest.raises(ObjectMissing, match=gone):
        storage.list_names(gone)
    storage.delete(gone)
    assert not storage.exists(gone)


@pytest.mark.parametrize("uri", ["/a", "a/b", "file:///a", "s3:/a"])
def test_what_is_no_s3_uri_is_local(uri: str) -> None:
    assert storage.is_local(uri)
    assert not storage.is_local("s3://bucket/a")


def test_what_is_there_already_is_not_written_again(place: str) -> None:
    uri = storage.join(place, "first/wins")
    assert storage.write_new(uri, b"one")
    assert not storage.write_new(uri, b"two")
    assert storage.read_bytes(uri) == b"one"


def test_a_file_where_a_folder_was_needed_is_no_earlier_writer(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StorageError, match="file/new"):
        storage.write_new(str(tmp_path / "file/new"), b"x")


def test_folders_exist_too(place: str) -> None:
    storage.write_bytes(storage.join(place, "folder/file"), b"x")
    assert storage.exists(storage.join(place, "folder"))
    assert not storage.exists(storage.join(place, "fold"))


def test_eight_threads_share_one_client(place: str) -> None:
    uris = [storage.join(place, f"{i:03d}") for i in range(64)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda uri: storage.write_bytes(uri, uri.encode() * 100), uris))
        contents = list(pool.map(storage.read_bytes, uris))
    assert contents == [uri.encode() * 100 for uri in uris]


def test_a_listing_longer_than_a_page_is_complete(s3: str) -> None:
    prefix = f"{s3}/pages"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: storage.write_bytes(f"{prefix}/{i:04d}", b"x"), range(1100)))
    assert listed(prefix) == [f"{i:04d}" for i in range(1100)]
    assert len(storage.list_names(prefix)) == 1100


def test_a_listing_starts_before_it_is_complete(s3: str) -> None:
    for name in "ab":
        storage.write_bytes(f"{s3}/streamed/{name}", b"x")
    objects = storage.list_objects(f"{s3}/streamed")
    assert next(objects).uri == f"{s3}/streamed/a"


def test_large_objects_arrive_whole(s3: str) -> None:
    data = os.urandom(12_000_000)
    storage.write_bytes(f"{s3}/large", data)
    assert storage.read_bytes(f"{s3}/large") == data


def test_a_uri_without_a_bucket_is_refused() -> None:
    with pytest.raises(StorageError, match="names no bucket"):
        list(storage.list_objects("s3:///key"))


@pytest.mark.parametrize("scheme", ["gs", "http", "s3a"])
def test_other_schemes_are_refused(scheme: str) -> None:
    with pytest.raises(StorageError, match="s3://bucket/key and local paths only"):
        storage.read_bytes(f"{scheme}://bucket/key")


def test_no_unfinished_file_is_ever_seen(tmp_path: Path) -> None:
    path = tmp_path / "file"
    storage.write_bytes(str(path), b"old")
    path.unlink()
    path.mkdir()
    (path / "inside").write_bytes(b"x")
    with pytest.raises(StorageError, match="folder"):  # the last step, the rename, fails
        storage.write_bytes(str(path), b"new")
    assert [name.name for name in tmp_path.iterdir()] == ["file"]


def test_file_uris_become_plain_paths(tmp_path: Path) -> None:
    path = tmp_path / "a b%20#.png"
    path.write_bytes(b"x")
    assert storage.absolute(path.as_uri()) == str(path)
    assert storage.read_bytes(path.as_uri()) == b"x"
    assert [item.uri for item in storage.list_objects(tmp_path.as_uri())] == [str(path)]


def test_linked_folders_are_followed_but_never_in_circles(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/1.png").write_bytes(b"x")
    (tmp_path / "place").mkdir()
    (tmp_path / "place/linked").symlink_to(tmp_path / "data")
    (tmp_path / "data/up").symlink_to(tmp_path / "data")
    (tmp_path / "place/lost.png").symlink_to(tmp_path / "nowhere")
    assert listed(str(tmp_path / "place")) == ["linked/1.png", "lost.png"]
    lost = [i for i in storage.list_objects(str(tmp_path / "place")) if "lost" in i.uri]
    assert (lost[0].etag, lost[0].size_bytes) == ("", 0)


def test_a_folder_is_removed_with_what_is_hidden_in_it_and_nothing_else(place: str) -> None:
    for name in ("heads/a.bin", "heads/.hidden/b.bin", "heads2/c.bin"):
        storage.write_bytes(storage.join(place, name), b"1")
    storage.remove_below(storage.join(place, "heads"))
    assert listed(place) == ["heads2/c.bin"]
    assert not storage.exists(storage.join(place, "heads"))
    storage.remove_below(storage.join(place, "heads"))  # there is none any more


def test_what_a_link_in_a_removed_folder_leads_to_stays(tmp_path: Path) -> None:
    storage.write_bytes(str(tmp_path / "photos/x.png"), b"1")
    (tmp_path / "heads").mkdir()
    (tmp_path / "heads/link").symlink_to(tmp_path / "photos")
    storage.remove_below(str(tmp_path / "heads"))
    (tmp_path / "heads").symlink_to(tmp_path / "photos")
    storage.remove_below(str(tmp_path / "heads"))
    assert listed(str(tmp_path)) == ["photos/x.png"]
    assert not (tmp_path / "heads").is_symlink()


def test_what_cannot_be_removed_is_told(tmp_path: Path) -> None:
    (tmp_path / "heads").write_bytes(b"no folder")
    with pytest.raises(StorageError, match="heads is not a folder"):
        storage.remove_below(str(tmp_path / "heads"))


def test_a_folder_that_goes_while_it_is_listed_hides_no_other(tmp_path: Path) -> None:
    for name in ("a/1", "b/1", "c/1"):
        storage.write_bytes(str(tmp_path / name), b"1")
    items = storage.list_objects(str(tmp_path))
    first = next(items)
    shutil.rmtree(tmp_path / "b")
    assert [item.uri[-3:] for item in (first, *items)] == ["a/1", "c/1"]


def test_a_link_to_itself_is_listed_and_leads_nowhere(tmp_path: Path) -> None:
    uri = str(tmp_path / "loop.png")
    Path(uri).symlink_to(uri)
    [item] = storage.list_objects(str(tmp_path))
    assert (item.uri, item.etag, item.size_bytes) == (uri, "", 0)
    assert storage.look_up([uri]) == {}
    assert not storage.exists(uri)
    with pytest.raises(ObjectMissing, match="does not exist: too many levels of symbolic links"):
        storage.read_bytes(uri)


def test_a_disk_without_hard_links_has_one_writer_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    uri = str(tmp_path / "claim")
    assert [storage.write_new(uri, data) for data in (b"1", b"2")] == [True, False]
    assert storage.read_bytes(uri) == b"1"


def test_a_file_name_that_is_not_unicode_is_listed_and_read(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(b"x")
    [item] = storage.list_objects(str(tmp_path))
    assert item.uri == f"file://{tmp_path}/%FF.png"
    assert storage.read_bytes(item.uri) == b"x"


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(ObjectMissing, match="not a folder"):
        list(storage.list_objects(str(tmp_path / "file")))
    with pytest.raises(ObjectMissing, match="is a folder where a file was needed"):
        storage.read_bytes(str(tmp_path))


def test_an_empty_local_folder_lists_nothing(tmp_path: Path) -> None:
    assert list(storage.list_objects(str(tmp_path))) == []


@pytest.mark.parametrize(
    ("base", "parts", "expected"),
    [
        ("s3://b", ("k",), "s3://b/k"),
        ("s3://b/", ("/k/", "l"), "s3://b/k/l"),
        ("/a/", ("b/c", "d.png"), "/a/b/c/d.png"),
    ],
)
def test_joining_leaves_one_slash(base: str, parts: tuple[str, ...], expected: str) -> None:
    assert storage.join(base, *parts) == expected


@pytest.mark.parametrize(
    ("uri", "base", "expected"),
    [
        ("s3://b/a/../k", None, "s3://b/a/../k"),  # a key is taken literally
        ("images", "/cat", "/cat/images"),
        ("../images/./x", "/cat/sub", "/cat/images/x"),
        ("/abs/x", "/cat", "/abs/x"),
        ("images", "s3://b/cat", "s3://b/cat/images"),
        ("../images", "s3://b/cat", "s3://b/images"),
        ("..", "s3://b/cat", "s3://b"),
        ("/abs/x", "s3://b/cat", "/abs/x"),
        ("file:///abs/a%20b", "s3://b", "/abs/a b"),
    ],
)
def test_relative_paths_start_at_the_given_folder(
    uri: str, base: str | None, expected: str
) -> None:
    assert storage.absolute(uri, base) == expected


def test_relative_paths_start_at_the_working_directory_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("a/../b") == str(tmp_path / "b")


def test_a_path_cannot_leave_its_bucket() -> None:
    with pytest.raises(StorageError, match="leads out of the bucket s3://b"):
        storage.absolute("../../other", "s3://b/cat")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1))
def test_absolute_is_idempotent(name: str) -> None:
    once = storage.absolute(name, "/folder")
    assert storage.absolute(once, "/elsewhere") == once


def test_importing_touches_no_network_and_makes_no_client() -> None:
    code = "import pipeline.storage.s3 as s; print(s._connected.cache_info().currsize)"
    environment = {**os.environ, "AWS_ENDPOINT_URL": "nowhere"}
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert answer.stdout.strip() == "0"
