"""``nightshift cache``, and what commands say of the feature store."""

import json
from pathlib import Path

import factory
import pytest
from command_line import Run

from pipeline.feature_store.place import StorePlace
from pipeline.feature_store.stored_groups import stored_groups
from pipeline.onboarding.prepare import prepare

NUM_GOOD = 20


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factory.make_category(tmp_path_factory.mktemp("images"), NUM_GOOD, num_test=0)


@pytest.fixture
def filled(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StorePlace:
    """A store of two categories, wood used last, which NIGHTSHIFT_FEATURES names."""
    place = StorePlace(uri=str(tmp_path / "features"))
    for name in ("steel", "wood"):
        prepare(factory.category(images, name), features=place)
    monkeypatch.setenv("NIGHTSHIFT_FEATURES", "features")  # seen from the working directory
    return place


def test_without_a_store_one_line_says_how_to_name_one(run: Run) -> None:
    for command in ("show", "trim"):
        told = run("cache", command).refusal()
        assert "no feature store is named; set NIGHTSHIFT_FEATURES" in told


def test_a_store_that_is_not_there_yet_is_empty(run: Run, tmp_path: Path) -> None:
    done = run("cache", "show", "--features", "nowhere")
    assert (done.code, done.out) == (0, f"{tmp_path}/nowhere: 0 images, 0 of 50 GB\n")
    assert run("cache", "trim", "--features", "nowhere").code == 0


def test_show_has_a_line_for_each_group_the_last_used_first(run: Run, filled: StorePlace) -> None:
    done = run("cache", "show")
    rows = [line.split() for line in done.out.splitlines() if "efficientnet_lite0" in line]
    assert [(row[0], row[2], row[3]) for row in rows] == [
        ("wood", "64", str(NUM_GOOD)),
        ("steel", "64", str(NUM_GOOD)),
    ]
    assert f"{2 * NUM_GOOD} images" in done.out.splitlines()[-1]


def test_show_tells_programs_everything(run: Run, filled: StorePlace) -> None:
    answer = json.loads(run("cache", "show", "--features-gb", "3", "--json").out)
    assert (answer["features"], answer["max_bytes"]) == (filled.uri, 3 * 10**9)
    groups = answer["groups"]
    assert [group["category"] for group in groups] == ["wood", "steel"]
    assert groups[0]["planes"] == ["paper-window3-layer2", "paper-window3-layer3"]
    assert groups[0]["preprocessing"] == {"resize": 64, "crop": 64, "fit": "stretch"}
    on_disk = [path.stat().st_size for path in Path(filled.uri).rglob("*.safetensors")]
    assert answer["size_bytes"] == sum(on_disk) == sum(group["size_bytes"] for group in groups)


def test_trim_removes_what_was_used_least_recently(run: Run, filled: StorePlace) -> None:
    size = stored_groups(filled.uri)[0].size_bytes
    done = run("cache", "trim", "--to", str(1.5 * size / 1e9))
    assert done.code == 0
    assert "steel" in done.out
    assert f"{NUM_GOOD} images removed" in done.out
    assert [group.category for group in stored_groups(filled.uri)] == ["wood"]
    assert run("cache", "trim", "--to", "0", "--json").code == 0
    assert stored_groups(filled.uri) == []
    assert not list(Path(filled.uri).rglob("*.safetensors"))


def test_trim_to_the_bound_that_is_set_leaves_what_fits(run: Run, filled: StorePlace) -> None:
    answer = json.loads(run("cache", "trim", "--json").out)
    assert answer["removed"] == []
    assert len(stored_groups(filled.uri)) == 2


def test_files_of_others_are_no_groups(run: Run, filled: StorePlace) -> None:
    Path(filled.uri, "groups/steel/notes.txt").write_text("mine")
    assert len(json.loads(run("cache", "show", "--json").out)["groups"]) == 2


def test_trim_removes_what_a_killed_command_left(run: Run, filled: StorePlace) -> None:
    for marker in Path(filled.uri, "groups/steel").rglob("*.json"):
        marker.unlink()
    assert json.loads(run("cache", "trim", "--json").out)["unfinished_images"] == NUM_GOOD
    assert not list(Path(filled.uri, "images/steel").rglob("*.safetensors"))
    assert len(list(Path(filled.uri, "images/wood").rglob("*.safetensors"))) == NUM_GOOD
