"""A category that is renamed or removed loses nothing, wherever that is cut off."""

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Run
from factory import category, make_category, make_fleet, write_catalogue
from mlflow import MlflowClient
from test_onboarding_overview import outcome

from pipeline.catalogue.rename_table import read_renames
from pipeline.category_changes import (
    CategoryChangeError,
    Places,
    remove_category,
    rename_category,
)
from pipeline.night.fleet import hold
from pipeline.night.folder import NightFolder
from pipeline.onboarding.key import identify, onboarding_key
from pipeline.onboarding.overview import add_to_overview, read_overview
from pipeline.registry import aliases, models
from pipeline.registry.category_names import all_renames, find_category

MONDAY = "2026-03-09"
NOW = dt.datetime(2026, 3, 12, 6, 30, tzinfo=dt.UTC)
LATER = NOW + dt.timedelta(hours=1)
NOWHERE = Places()
SOURCE = "s3://models/1"


class Killed(BaseException):
    """Nothing that is caught below."""


@pytest.fixture
def client(tracking_uri: str) -> MlflowClient:
    """A registry with steel, of which two versions have aliases, and with wood."""
    client = MlflowClient(tracking_uri)
    for name in ("steel", "wood"):
        client.create_registered_model(f"nightshift.{name}", tags={"nightshift.category": name})
        for number in (1, 2, 3):
            client.create_model_version(
                f"nightshift.{name}",
                f"{SOURCE}-{name}-{number}",
                tags={"nightshift.digest": f"{name}-{number}"},
                description=f"the {number}.",
            )
        for alias, number in {"champion": "2", "challenger": "3", "theirs": "1"}.items():
            client.set_registered_model_alias(f"nightshift.{name}", alias, number)
    return client


def everything(client: MlflowClient, name: str) -> dict[str, Any]:
    """What a registered model and its versions are, but for what a rename is to change."""
    model = client.get_registered_model(f"nightshift.{name}")
    versions = client.search_model_versions(f"name = 'nightshift.{name}'")
    own = ("nightshift.category", "nightshift.earlier_names", "nightshift.alias.")
    return {
        "aliases": {alias: str(number) for alias, number in model.aliases.items()},
        "tags": {key: value for key, value in model.tags.items() if not key.startswith(own)},
        "made": model.creation_timestamp,
        "versions": {
            str(v.version): (v.source, v.tags, v.description, v.creation_timestamp)
            for v in versions
        },
        "files": [client.get_model_version_download_uri(v.name, v.version) for v in versions],
    }


def test_a_rename_takes_versions_aliases_tags_and_files_along(client: MlflowClient) -> None:
    before, wood = everything(client, "steel"), everything(client, "wood")
    assert before["aliases"] == {"champion": "2", "challenger": "3", "theirs": "1"}
    done = rename_category("steel", "plate", NOWHERE, NOW)
    assert (done.num_versions, done.aliases, done.in_registry) == (3, before["aliases"], True)
    assert everything(client, "plate") == before
    assert everything(client, "wood") == wood
    assert find_category("steel") is None
    assert client.get_registered_model("nightshift.plate").tags["nightshift.category"] == "plate"
    champions = models.champions()
    assert set(champions) == {"plate", "wood"}
    assert (champions["plate"].version, champions["plate"].digest) == ("2", "steel-2")
    named = client.get_model_version_by_alias("nightshift.plate", "champion")
    assert named.source == f"{SOURCE}-steel-2"
    client.create_model_version("nightshift.plate", "s3://models/next")
    assert client.get_model_version("nightshift.plate", "4").source == "s3://models/next"


def test_the_registry_knows_every_name_that_a_category_had(client: MlflowClient) -> None:
    assert all_renames() == []
    rename_category("steel", "plate", NOWHERE, NOW)
    rename_category("plate", "sheet", NOWHERE, LATER)
    assert [(r.old, r.new, r.when) for r in all_renames()] == [
        ("steel", "plate", NOW),
        ("plate", "sheet", LATER),
    ]
    client.create_registered_model("nightshift.steel")  # another one of the old name
    assert len(all_renames()) == 2
    rename_category("sheet", "plate", NOWHERE, LATER + dt.timedelta(hours=1))
    assert [r.new for r in all_renames()] == ["plate", "sheet", "plate"]


def killed_at(monkeypatch: pytest.MonkeyPatch, name: str, nth: int, *, after: bool) -> None:
    """Have the nth call of a client's method be the last thing that this process does."""
    real: Callable[..., Any] = getattr(MlflowClient, name)
    calls = []

    def method(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == nth and not after:
            raise Killed
        answer = real(*arguments, **options)
        if len(calls) == nth:
            raise Killed
        return answer

    monkeypatch.setattr(MlflowClient, name, method)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("method", "nth"),
    [
        ("set_registered_model_tag", 1),
        ("rename_registered_model", 1),
        ("set_registered_model_tag", 2),
    ],
)
def test_a_rename_that_was_killed_is_finished_by_the_next(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, method: str, nth: int, after: bool
) -> None:
    before = everything(client, "steel")
    with monkeypatch.context() as patched:
        killed_at(patched, method, nth, after=after)
        with pytest.raises(Killed):
            rename_category("steel", "plate", NOWHERE, NOW)
    assert len(models.champions()) == 2  # there is one of it at every moment
    rename_category("steel", "plate", NOWHERE, LATER)
    assert everything(client, "plate") == before
    assert [(r.old, r.new) for r in all_renames()] == [("steel", "plate")]
    assert client.get_registered_model("nightshift.plate").tags["nightshift.category"] == "plate"
    again = rename_category("steel", "plate", NOWHERE, LATER)
    assert not again.in_registry
    assert len(all_renames()) == 1


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("steel", "wood", r"cannot be called wood: nightshift\.wood is there already, with 3 "),
        ("steel", "oak", r"nightshift\.oak was removed, and keeps its name, with 1 versions"),
        ("brass", "plate", r"no model nightshift\.brass is registered"),
        ("brass", "wood", r"no model nightshift\.brass is registered"),
        ("steel", "Plate", r"'Plate' cannot be the new name of 'steel': .*\[a-z0-9\]"),
        ("steel", "a/b", r"needed is another one"),
        ("steel", "", r"needed is another one"),
        ("steel", "steel", r"needed is another one"),
        ("steel", "x" * 58, r"needed is another one"),
    ],
)
def test_a_rename_that_cannot_be_is_refused_and_changes_nothing(
    client: MlflowClient, old: str, new: str, match: str
) -> None:
    client.create_registered_model("nightshift.oak")
    client.create_model_version("nightshift.oak", SOURCE)
    before = everything(client, "steel"), everything(client, "wood")
    for dry_run in (True, False):
        with pytest.raises(CategoryChangeError, match=match):
            rename_category(old, new, NOWHERE, NOW, dry_run=dry_run)
    assert (everything(client, "steel"), everything(client, "wood")) == before
    assert all_renames() == []


def test_a_dry_run_changes_nothing(client: MlflowClient, tmp_path: Path, package: Path) -> None:
    out, runs = str(tmp_path / "out"), str(tmp_path / "runs")
    make_fleet(NightFolder(out, MONDAY), {"steel": package})
    add_to_overview(runs, [outcome("steel")], NOW)
    before, places = everything(client, "steel"), Places(outs=[out], runs=runs)
    overview = read_overview(runs)
    assert rename_category("steel", "plate", places, NOW, dry_run=True).in_registry
    assert remove_category("steel", places, NOW, dry_run=True).in_registry
    assert everything(client, "steel") == before
    assert (read_overview(runs), read_renames(out)) == (overview, [])


def test_a_removed_category_keeps_its_versions_and_its_numbers(client: MlflowClient) -> None:
    before = everything(client, "steel")
    done = remove_category("steel", NOWHERE, NOW)
    assert (done.aliases, done.in_registry) == (before["aliases"], True)
    after = everything(client, "steel")
    assert after["aliases"] == {"theirs": "1"}
    assert (after["versions"], after["files"]) == (before["versions"], before["files"])
    assert set(models.champions()) == {"wood"}
    assert not remove_category("steel", NOWHERE, LATER).in_registry
    assert everything(client, "steel") == after
    with pytest.raises(CategoryChangeError, match=r"no model nightshift\.brass is registered"):
        remove_category("brass", NOWHERE, NOW)


def test_one_that_was_never_registered_leaves_the_overview(
    client: MlflowClient, tmp_path: Path
) -> None:
    places = Places(runs=str(tmp_path / "runs"))
    add_to_overview(str(tmp_path / "runs"), [outcome("brass"), outcome("few")], NOW)
    assert remove_category("brass", places, NOW, dry_run=True).in_overview
    done = remove_category("brass", places, NOW)
    assert (done.num_versions, done.in_registry, done.in_overview) == (0, False, True)
    assert list(read_overview(str(tmp_path / "runs"))) == ["few"]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("method", "nth"),
    [
        ("set_registered_model_tag", 1),
        ("delete_registered_model_alias", 1),
        ("set_registered_model_tag", 2),
        ("delete_registered_model_alias", 2),
    ],
)
def test_a_removal_that_was_killed_is_finished_by_the_next(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, method: str, nth: int, after: bool
) -> None:
    with monkeypatch.context() as patched:
        killed_at(patched, method, nth, after=after)
        with pytest.raises(Killed):
            remove_category("steel", NOWHERE, NOW)
    remove_category("steel", NOWHERE, NOW)
    assert everything(client, "steel")["aliases"] == {"theirs": "1"}
    known = aliases.history("steel")
    assert [(each.alias, each.version_from, each.version_to) for each in known.changes] == [
        ("champion", "2", None),
        ("challenger", "3", None),
    ]
    assert {each.by for each in known.changes} == {"category remove"}
    assert aliases.version_before(known) == "2"  # a rollback brings it back


def test_what_is_pinned_is_neither_renamed_nor_removed(
    client: MlflowClient, tmp_path: Path, package: Path
) -> None:
    out = str(tmp_path / "out")
    folder, before = NightFolder(out, MONDAY), everything(client, "steel")
    make_fleet(folder, {"steel": package})
    hold.hold(out, hold.digest_of_night(folder))
    places = Places(outs=[out])
    pinned = r"pinned under .*out has steel version 1, .*`nightshift fleet release .*out` first"
    with pytest.raises(CategoryChangeError, match=pinned):
        rename_category("steel", "plate", places, NOW)
    with pytest.raises(CategoryChangeError, match=pinned):
        remove_category("steel", places, NOW)
    assert everything(client, "steel") == before
    assert rename_category("wood", "oak", places, NOW).noted == [out]  # it is not in the fleet
    hold.release(out)
    assert rename_category("steel", "plate", places, NOW).noted == [out]
    assert {(r.old, r.new) for r in read_renames(out)} == {("wood", "oak"), ("steel", "plate")}
    assert rename_category("steel", "plate", places, LATER).noted == []
    assert hold.held_fleet(out) is None


def test_a_folder_that_holds_no_nights_is_refused(client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for out in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(CategoryChangeError, match=r"has no nights; name the folder"):
            rename_category("steel", "plate", Places(outs=[str(out)]), NOW)
    assert find_category("steel") is not None
    assert not (tmp_path / "nowhere").exists()


def test_the_overview_of_onboardings_follows(client: MlflowClient, tmp_path: Path) -> None:
    runs = str(tmp_path / "runs")
    add_to_overview(runs, [outcome("steel", model="nightshift.steel"), outcome("wood")], NOW)
    steel = read_overview(runs)["steel"]
    assert rename_category("steel", "plate", Places(runs=runs), LATER).in_overview
    overview = read_overview(runs)
    assert list(overview) == ["plate", "wood"]
    assert overview["plate"] == steel | {"category": "plate", "model": "nightshift.plate"}
    assert not rename_category("steel", "plate", Places(runs=runs), LATER).in_overview
    assert remove_category("wood", Places(runs=runs), LATER).in_overview
    assert list(read_overview(runs)) == ["plate"]
    elsewhere = Places(runs=str(tmp_path / "elsewhere"))
    assert not remove_category("plate", elsewhere, LATER).in_overview
    assert not (tmp_path / "elsewhere").exists()


def test_an_onboarding_is_known_by_the_keys_of_earlier_names(tmp_path: Path) -> None:
    images = make_category(tmp_path / "steel", num_good=1, num_test=0)
    named = {name: category(images, name) for name in ("steel", "plate", "sheet")}
    identity = identify(named["sheet"], ["plate", "steel"])
    keys = {name: onboarding_key(each) for name, each in named.items()}
    assert (identity.key, identity.earlier_keys) == (keys["sheet"], (keys["plate"], keys["steel"]))


def test_a_renamed_category_need_not_be_onboarded_again(
    run: Run, tmp_path: Path, package: Path
) -> None:
    images = make_category(tmp_path / "steel", num_good=1, num_test=0)
    models.promote(models.register("steel", onboarding_key(category(images)), package))
    answer = run("category", "rename", "steel", "plate", "--dry-run")
    assert answer.code == 0, answer.err
    assert (
        "nightshift.steel would be called nightshift.plate, 1 version, challenger 1, champion 1"
        in (answer.out)
    )
    assert "name its folder plate/; steel/ is scored by it too until" in answer.out
    answer = run("category", "rename", "steel", "plate", "--json")
    assert json.loads(answer.out)["in_registry"]
    assert "was, before, called nightshift.plate" in run("category", "rename", "steel", "plate").out
    catalogue = write_catalogue(tmp_path / "catalogue.yaml", {"plate": images})
    planned = json.loads(run("onboard", catalogue, "--dry-run", "--json").out)["categories"]
    assert planned["plate"]["status"] == "unchanged"
    answer = run("category", "remove", "plate")
    assert "plate leaves the nights: 1 version, challenger 1, champion 1" in answer.out
    assert models.champions() == {}
    again = run("category", "remove", "plate")
    assert "plate had left the nights before: 1 version, no alias\n" in again.out
    assert "champion is version 1, was none" in run("rollback", "plate", "--because", "back").out
    assert run("category", "remove", "plate", "--json").code == 0
    answer = run("onboard", catalogue, "--json")  # brings it back
    (back,) = json.loads(answer.out)
    assert (back["status"], back["version"], back["is_champion"]) == ("unchanged", "1", True)
    assert "wood" in run("category", "remove", "wood").refusal()
