"""Every change of a champion has a row: who or what, when, from, to, and why."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Run
from factory import make_package
from mlflow import MlflowClient

from pipeline.catalogue.catalogue import load_catalogue
from pipeline.onboarding.key import identify
from pipeline.registry import aliases, models
from pipeline.registry.aliases import CHALLENGER, CHAMPION, AliasError, Reason, history, move

NAME = "nightshift.steel"
WHY = Reason(by="promote", because="better", evidence="McNemar p = .01")


class Killed(BaseException):
    """Nothing that is caught below."""


@pytest.fixture
def client(tracking_uri: str) -> MlflowClient:
    """A registry with one model of three versions and no alias."""
    client = MlflowClient()
    client.create_registered_model(NAME)
    for _ in range(3):
        client.create_model_version(NAME, source="file:///none")
    return client


def told(category: str = "steel") -> list[tuple[str, str | None, str]]:
    return [(each.alias, each.version_from, each.version_to) for each in history(category).changes]


def test_every_move_has_a_row_and_staying_has_none(client: MlflowClient) -> None:
    assert [move(client, NAME, CHAMPION, version, WHY) for version in ("1", "1", "3")] == [
        True, False, True,
    ]  # fmt: skip
    move(client, NAME, CHALLENGER, "2", Reason(by="register"))
    assert told() == [("champion", None, "1"), ("champion", "1", "3"), ("challenger", None, "2")]
    last = history("steel").changes[1]
    assert (last.by, last.because, last.evidence) == ("promote", "better", "McNemar p = .01")
    assert "@" in last.who
    assert last.at.endswith("+00:00")
    assert history("steel").moved_elsewhere == []


def test_going_back_and_forth_is_four_rows(client: MlflowClient) -> None:
    for version in ("1", "2", "1", "2"):
        move(client, NAME, CHAMPION, version, WHY)
    assert len(told()) == 4


@pytest.mark.parametrize("last_call", ["set_registered_model_tag", "set_registered_model_alias"])
def test_a_move_that_was_killed_has_one_row_when_done_again(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, last_call: str
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise Killed("died")

    move(client, NAME, CHAMPION, "1", WHY)
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, last_call, die)
        with pytest.raises(Killed, match="died"):
            move(client, NAME, CHAMPION, "2", WHY)
    assert history("steel").aliases == {"champion": "1"}
    move(client, NAME, CHAMPION, "2", WHY)
    assert told() == [("champion", None, "1"), ("champion", "1", "2")]
    assert history("steel").aliases == {"champion": "2"}


def test_an_alias_that_something_else_moved_is_named(client: MlflowClient) -> None:
    move(client, NAME, CHAMPION, "1", WHY)
    client.set_registered_model_alias(NAME, CHAMPION, "3")
    assert history("steel").moved_elsewhere == ["champion"]


def test_long_words_are_cut_and_odd_ones_kept(client: MlflowClient) -> None:
    move(client, NAME, CHAMPION, "1", Reason(by="promote", because="ä\n" * 5000, evidence='"'))
    [change] = history("steel").changes
    assert (change.because, change.evidence) == ("ä\n" * 500, '"')


def test_a_category_without_a_model_is_named(tracking_uri: str) -> None:
    with pytest.raises(AliasError, match="wood: no model is registered"):
        history("wood")


def test_the_version_before_is_the_last_champions_predecessor(client: MlflowClient) -> None:
    for version in ("1", "3", "2"):
        move(client, NAME, CHAMPION, version, WHY)
        move(client, NAME, CHALLENGER, version, WHY)
    assert aliases.version_before(history("steel")) == "3"


def test_going_back_twice_does_not_return_to_what_was_gone_back_from(
    client: MlflowClient, run: Run
) -> None:
    for version in ("1", "2", "3"):
        move(client, NAME, CHAMPION, version, WHY)
    for expected in ("2", "1"):
        assert run("rollback", "steel", "--because", "flags doubled").code == 0
        assert history("steel").aliases[CHAMPION] == expected
    again = run("rollback", "steel", "--because", "flags doubled")
    assert "before version 1. Name one with --to" in again.refusal()


@pytest.mark.parametrize(
    ("moves", "expected"),
    [  # version and command, from a registry without aliases
        ("1p 2p 1p 2p 1r", None),  # 2 was gone back from
        ("1p 2p 3p 2r 3p", "2"),  # 3 was promoted again
        ("1p 2p 3p 2r 4p", "2"),
        ("1p 2p 3p 1r", None),
        ("1p 2p 3r", "1"),  # a rollback to what never was champion
        ("1p 2p 3m", "2"),  # by MLflow itself
        ("1p 2p 1m 3p", "1"),
    ],
)
def test_the_version_before_is_found_after(
    client: MlflowClient, moves: str, expected: str | None
) -> None:
    client.create_model_version(NAME, source="file:///none")
    for version, by in moves.split():
        if by == "m":
            client.set_registered_model_alias(NAME, CHAMPION, version)
        else:
            command = {"p": "promote", "r": "rollback"}[by]
            move(client, NAME, CHAMPION, version, Reason(by=command))
    if expected is None:
        with pytest.raises(AliasError, match="Name one with --to"):
            aliases.version_before(history("steel"))
    else:
        assert aliases.version_before(history("steel")) == expected


@pytest.mark.parametrize("moves", [[], ["1"]])
def test_without_a_version_before_there_is_nothing_to_go_back_to(
    client: MlflowClient, moves: list[str]
) -> None:
    for version in moves:
        move(client, NAME, CHAMPION, version, WHY)
    with pytest.raises(AliasError, match="Name one with --to"):
        aliases.version_before(history("steel"))


@pytest.mark.parametrize(
    ("by", "expected"),
    [("onboard", False), ("rollback", True), ("promote", True), ("recalibrate", True)],
)
def test_a_champion_that_was_chosen_stays(client: MlflowClient, by: str, expected: bool) -> None:
    move(client, NAME, CHAMPION, "2", WHY)
    move(client, NAME, CHAMPION, "1", Reason(by=by))
    assert aliases.stays(history("steel")) is expected
    client.set_registered_model_alias(NAME, CHAMPION, "3")  # by something else, since
    assert not aliases.stays(history("steel"))


def test_a_promotion_that_was_killed_leaves_the_rollback_before_it_as_it_is(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise Killed("died")

    move(client, NAME, CHAMPION, "2", WHY)
    move(client, NAME, CHAMPION, "1", Reason(by="rollback"))
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "set_registered_model_alias", die)
        with pytest.raises(Killed, match="died"):
            move(client, NAME, CHAMPION, "3", Reason(by="promote"))
    assert aliases.stays(history("steel"))


def test_onboarding_the_same_again_does_not_undo_a_rollback(
    client: MlflowClient, tmp_path: Path, run: Run, catalogue: Path
) -> None:
    move(client, NAME, CHAMPION, "1", WHY)
    make_package(tmp_path / "package")
    (steel,) = load_catalogue(str(catalogue))
    models.register("steel", identify(steel).key, tmp_path / "package")
    move(client, NAME, CHAMPION, "4", Reason(by="onboard"))
    assert run("rollback", "steel", "--because", "flags doubled").code == 0
    assert run("onboard", catalogue).code == 0
    assert models.champions()["steel"].version == "1"
    move(client, NAME, CHAMPION, "2", Reason(by="onboard"))  # nobody has decided that
    assert run("onboard", catalogue).code == 0
    assert models.champions()["steel"].version == "4"


def test_a_champion_goes_back_by_command_and_the_record_says_why(
    client: MlflowClient, run: Run
) -> None:
    for version in ("1", "2"):
        move(client, NAME, CHALLENGER, version, Reason(by="register"))
        move(client, NAME, CHAMPION, version, Reason(by="onboard"))
    assert [run("rollback", "steel", "--because", why).code for why in ("", " \t")] == [2, 2]
    done = run("rollback", "steel", "--because", "flags doubled")
    assert done.out == "steel: champion is version 1, was 2\n"
    rows = json.loads(run("history", "steel", "--json").out)["changes"]
    assert [(row["alias"], row["by"], row["version_to"]) for row in rows] == [
        ("challenger", "register", "1"),
        ("champion", "onboard", "1"),
        ("challenger", "register", "2"),
        ("champion", "onboard", "2"),
        ("champion", "rollback", "1"),
    ]
    assert "flags doubled" in run("history", "steel").out.replace("\n", " ")
    assert run("rollback", "steel", "--to", "9", "--because", "x").code == 1
