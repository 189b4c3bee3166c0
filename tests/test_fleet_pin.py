"""Holding, rolling back and releasing the fleet, from the command line."""

import json
from pathlib import Path

import pytest
from command_line import Run
from factory import make_fleet, version

from pipeline import storage
from pipeline.night.fleet import hold
from pipeline.night.fleet.fleet import Fleet, FleetError, stored_fleet
from pipeline.night.fleet.resolve import snapshot_fleet
from pipeline.night.folder import NightFolder

MONDAY, TUESDAY = "2026-03-09", "2026-03-10"


@pytest.fixture
def out(package: Path, tmp_path: Path) -> str:
    """Two nights; on the second one steel had another version."""
    place = str(tmp_path / "out")
    make_fleet(NightFolder(place, MONDAY), {"steel": package})
    versions = {"steel": version("steel", package, "2")}
    snapshot_fleet(NightFolder(place, TUESDAY), versions, ["steel"], lambda *_: package)
    return place


def digest(out: str, night: str) -> str:
    return hold.digest_of_night(NightFolder(out, night))


def test_a_nights_fleet_is_stored_under_its_digest_for_good(out: str) -> None:
    for night in (MONDAY, TUESDAY):
        assert Fleet.read(stored_fleet(out, digest(out, night))) == Fleet.read(
            NightFolder(out, night).fleet
        )
    assert digest(out, MONDAY) != digest(out, TUESDAY)
    assert sorted(hold.stored_digests(out)) == sorted(hold.digests_of_nights(out).values())
    before = storage.read_bytes(stored_fleet(out, digest(out, MONDAY)))
    assert Fleet.read(NightFolder(out, MONDAY).fleet).store(out) == digest(out, MONDAY)
    assert storage.read_bytes(stored_fleet(out, digest(out, MONDAY))) == before


def test_without_a_hold_nights_take_the_registrys_champions(tmp_path: Path) -> None:
    assert hold.read_hold(str(tmp_path)) == hold.Hold(digest=None)
    assert hold.held_fleet(str(tmp_path)) is None


def test_holds_are_taken_back_one_by_one(out: str) -> None:
    monday, tuesday = digest(out, MONDAY), digest(out, TUESDAY)
    hold.hold(out, monday)
    hold.hold(out, tuesday)
    hold.hold(out, tuesday)  # twice is once
    held = hold.held_fleet(out)
    assert held is not None
    assert held.champions["steel"].model_version == "2"
    assert hold.rollback(out) == hold.Hold(digest=monday)
    with pytest.raises(FleetError, match=r"no fleet was pinned under .* before"):
        hold.rollback(out)
    assert hold.release(out) == hold.Hold(digest=None, earlier=(monday,))
    assert hold.rollback(out).digest == monday


def test_what_is_not_there_or_damaged_cannot_be_held(out: str) -> None:
    with pytest.raises(storage.ObjectMissing, match="does not exist"):
        hold.hold(out, "0" * 64)
    with pytest.raises(FleetError, match=r"2 fleets under .* start"):
        hold.full_digest(out, "")
    with pytest.raises(FleetError, match="night 2020-01-01 was not scored"):
        hold.digest_of_night(NightFolder(out, "2020-01-01"))
    storage.write_bytes(f"{out}/fleet/pinned.json", b"{}")
    with pytest.raises(FleetError, match=r"pinned\.json is damaged"):
        hold.read_hold(out)


def test_the_command_line_shows_pins_rolls_back_and_releases(run: Run, out: str) -> None:
    monday, tuesday = digest(out, MONDAY), digest(out, TUESDAY)
    assert "pinned: nothing" in run("fleet", "show", out).out
    assert run("fleet", "pin", out, "--night", MONDAY).out.startswith(f"pinned: {monday[:12]}")
    assert run("fleet", "pin", out, "--digest", tuesday[:8]).code == 0
    shown = run("fleet", "show", out).out
    assert f"night {MONDAY}: {monday[:12]}" in shown
    assert shown.split("─")[-1].split()[:2] == ["steel", "2"]
    answer = json.loads(run("fleet", "show", out, "--night", MONDAY, "--json").out)
    assert answer["pinned"] == tuesday
    assert answer["champions"]["steel"]["model_version"] == "1"
    assert json.loads(run("fleet", "rollback", out, "--json").out)["pinned"] == monday
    assert "no fleet was pinned" in run("fleet", "rollback", out).refusal()
    assert run("fleet", "release", out).out.startswith("released")
    assert run("fleet", "pin", out, "--night", MONDAY, "--digest", monday).code == 2


def test_pinning_a_night_says_which_categories_it_does_not_hold(
    run: Run, package: Path, tmp_path: Path
) -> None:
    place = str(tmp_path / "out")
    versions = {name: version(name, package) for name in ("steel", "wood")}
    snapshot_fleet(NightFolder(place, MONDAY), versions, ["steel"], lambda *_: package)
    answer = run("fleet", "pin", place, "--night", MONDAY)
    assert (answer.code, answer.out.split(":")[0]) == (0, "pinned")
    assert "not held: wood; images of these will be unrouted" in answer.err


def test_pinning_champions_of_an_empty_registry_says_what_to_do(run: Run, tmp_path: Path) -> None:
    refusal = run("fleet", "pin", tmp_path / "out").refusal()
    assert "the registry has no champion to pin" in refusal
