"""What is known of many objects: the same as a listing says, at the price of a few requests."""

from pathlib import Path
from typing import Any

import pytest

from pipeline import storage
from pipeline.storage import s3 as backend
from pipeline.storage.common_folders import common_folders


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("s3")


def test_it_is_what_a_listing_says_and_missing_objects_are_left_out(place: str) -> None:
    names = ["a/1.png", "a/b/2 ä#%.png", "a/.hidden/3.png", "c/4.png", "5.png"]
    for name in names:
        storage.write_bytes(f"{place}/{name}", name.encode())
    expected = {
        item.uri: item
        for folder in (place, f"{place}/a/.hidden")
        for item in storage.list_objects(folder, hidden=True)
        if item.uri.endswith(".png")
    }
    gone = [f"{place}/a/0.png", f"{place}/gone/1.png"]
    wanted = [f"{place}/{name}" for name in names]
    assert storage.look_up([*wanted, *gone]) == {uri: expected[uri] for uri in wanted}


def test_places_may_be_mixed(s3: str, tmp_path: Path) -> None:
    uris = [f"{s3}/1.png", str(tmp_path / "1.png")]
    for uri in uris:
        storage.write_bytes(uri, b"x")
    assert storage.look_up(uris).keys() == set(uris)


def test_nothing_is_known_of_no_objects() -> None:
    assert storage.look_up([]) == {}


def requests_of(monkeypatch: pytest.MonkeyPatch, page: int = 1000) -> list[str]:
    """Requests from here on, with so many objects on a page of a listing."""
    methods: list[str] = []
    request = backend._request

    def counted(uri: str, method: str, *args: Any, **options: Any) -> Any:
        methods.append(method)
        size = {"MaxKeys": page} if method == "list_objects_v2" else {}
        return request(uri, method, *args, **options, **size)

    monkeypatch.setattr(backend, "_request", counted)
    return methods


@pytest.mark.parametrize(
    ("wanted", "num_listings", "num_single"),
    [
        (["00"], 1, 0),
        (["19"], 1, 1),
        (["01", "19", "gone"], 3, 2),
        ([f"{n:02d}" for n in range(20)], 10, 0),
    ],
)
def test_a_few_objects_of_a_large_folder_do_not_cost_its_whole_listing(
    s3: str,
    monkeypatch: pytest.MonkeyPatch,
    wanted: list[str],
    num_listings: int,
    num_single: int,
) -> None:
    for n in range(20):
        storage.write_bytes(f"{s3}/flat/{n:02d}", b"%d" % n)
    expected = {item.uri: item for item in storage.list_objects(f"{s3}/flat")}
    uris = [f"{s3}/flat/{name}" for name in wanted]
    methods = requests_of(monkeypatch, page=2)
    assert storage.look_up(uris) == {uri: expected[uri] for uri in uris if uri in expected}
    assert methods == ["list_objects_v2"] * num_listings + ["head_object"] * num_single


@pytest.mark.parametrize(("num_folders", "num_requests"), [(1, 1), (3, 3), (12, 1)])
def test_a_request_is_made_for_each_folder_and_not_for_each_object(
    s3: str, monkeypatch: pytest.MonkeyPatch, num_folders: int, num_requests: int
) -> None:
    uris = [f"{s3}/steel/{n % num_folders}/{n}.png" for n in range(24)]
    for uri in uris:
        storage.write_bytes(uri, b"x")
    methods = requests_of(monkeypatch)
    monkeypatch.setattr(backend, "MAX_FOLDERS", 10)
    assert storage.look_up(uris).keys() == set(uris)
    assert methods == ["list_objects_v2"] * num_requests


@pytest.mark.parametrize(
    ("keys", "at_most", "folders"),
    [
        (["a/1", "a/2", "b/1"], 2, ["b/a", "b/b"]),
        (["a/1", "a/2", "b/1"], 1, ["b"]),
        (["a/1", "a/b/2", "a/b/c/3", "a-b/4"], 9, ["b/a", "b/a-b"]),  # none inside of another
        (["x/a/1", "x/b/1", "x/c/1", "y/d/1"], 3, ["b/x", "b/y"]),
        (["x/a/1", "x/b/1", "x/c/1", "y/1"], 3, ["b"]),
        (["1", "a/2"], 5, ["b"]),
        ([], 5, []),
    ],
)
def test_common_folders(keys: list[str], at_most: int, folders: list[str]) -> None:
    found = common_folders([f"s3://b/{key}" for key in keys], at_most)
    assert found == {f"s3://{folder}" for folder in folders}


def test_each_bucket_is_listed_however_few_folders_are_wanted() -> None:
    uris = ["s3://b/x/1", "s3://c/2", "s3://d/y/z/3"]
    assert common_folders(uris, 1) == {"s3://b", "s3://c", "s3://d"}
