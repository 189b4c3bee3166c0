"""The fleet of a night: champions pinned once, traced to their files, readable afterwards."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch
from factory import make_fleet, make_package, version

from pipeline import storage
from pipeline.images.image_statistics import STATISTICS
from pipeline.night.fleet.fleet import Champion, Fleet, FleetError, champions_so_far, stored_fleet
from pipeline.night.fleet.resolve import snapshot_fleet
from pipeline.night.folder import NightFolder
from pipeline.package import DECIDING_FILES, Package, package_digest
from pipeline.registry.models import RegisteredVersion

NIGHT = "2026-03-12"


@pytest.fixture
def packages(tmp_path: Path) -> dict[str, Path]:
    for seed, name in enumerate(("steel", "wood")):
        make_package(tmp_path / "packages" / name, seed=seed)
    return {name: tmp_path / "packages" / name for name in ("steel", "wood")}


@pytest.fixture
def folder(tmp_path: Path) -> NightFolder:
    return NightFolder(str(tmp_path / "out"), NIGHT)


def test_a_champion_is_its_package(packages: dict[str, Path], folder: NightFolder) -> None:
    fleet = make_fleet(folder, packages)
    assert list(fleet.champions) == ["steel", "wood"]
    package, champion = Package.read(packages["steel"]), fleet.champions["steel"]
    assert champion.model_digest == package_digest(packages["steel"])
    assert champion.model_digest in champion.package
    assert champion.reference == package.reference
    assert set(champion.reference.statistics) == set(STATISTICS)
    assert champion.preprocessing == package.header.preprocessing
    header, heads = champion.load_heads()
    assert header == package.header
    own = package.heads.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in heads.state_dict().items())


def test_the_fleet_of_a_night_is_read_again(packages: dict[str, Path], folder: NightFolder) -> None:
    fleet = make_fleet(folder, packages)
    assert Fleet.read(folder.fleet) == fleet
    document = json.loads(storage.read_bytes(folder.fleet))
    assert document["format"] == 1
    assert document["champions"]["steel"]["model_name"] == "nightshift.steel"
    assert Champion.from_json("wood", document["champions"]["wood"]) == fleet.champions["wood"]
    assert fleet.digest == hashlib.sha256(storage.read_bytes(folder.fleet)).hexdigest()
    assert Fleet.read(stored_fleet(folder.out, fleet.digest)) == fleet


def test_a_fleet_file_of_an_earlier_release_has_no_statistics(
    packages: dict[str, Path], folder: NightFolder
) -> None:
    steel = make_fleet(folder, packages).champions["steel"]
    known = steel.to_json()
    older = {name: known[name] for name in known if name not in ("fdr", "image_statistics")}
    known_then = dataclasses.replace(steel.reference, statistics={})
    assert Champion.from_json("steel", older) == dataclasses.replace(steel, reference=known_then)


def test_the_file_keeps_the_words_that_earlier_releases_wrote(folder: NightFolder) -> None:
    """Its bytes are what a fleet is known by, so they are here as they stand."""
    known = Fleet(champions={}, without_images=frozenset({"tin", "ash"}), unusable={"oak": "torn"})
    known.write(folder)
    written = b'{"broken": {"oak": "torn"}, "champions": {}, "format": 1, "silent": ["ash", "tin"]}'
    assert storage.read_bytes(folder.fleet) == written
    assert known.not_held == ["ash", "oak", "tin"]
    assert Fleet(champions={}).to_bytes() == b'{"champions": {}, "format": 1}'


def test_a_second_night_downloads_nothing(packages: dict[str, Path], folder: NightFolder) -> None:
    downloads: list[str] = []

    def download(asked: RegisteredVersion, scratch: Path) -> Path:
        downloads.append(asked.category)
        return packages[asked.category]

    versions = {name: version(name, package) for name, package in packages.items()}
    first = snapshot_fleet(folder, versions, ["steel"], download)
    assert downloads == ["steel"]
    tomorrow = NightFolder(folder.out, "2026-03-13")
    assert list(snapshot_fleet(tomorrow, versions, ["steel", "wood"], download).champions) == [
        *packages
    ]
    assert downloads == ["steel", "wood"]
    again = snapshot_fleet(folder, versions, ["steel"], download)
    assert again == first
    assert downloads == ["steel", "wood"]


def test_a_copy_that_was_cut_short_is_made_again(
    packages: dict[str, Path], folder: NightFolder
) -> None:
    steel = {"steel": packages["steel"]}
    champion = make_fleet(folder, steel).champions["steel"]
    storage.delete(f"{champion.package}/head.safetensors")
    assert make_fleet(folder, steel).champions["steel"] == champion
    storage.delete(f"{champion.package}/calibration.json")
    storage.write_bytes(f"{champion.package}/head.safetensors", b"half of")
    assert make_fleet(folder, steel).champions["steel"] == champion
    for name in DECIDING_FILES:
        copied = storage.read_bytes(f"{champion.package}/{name}")
        assert copied == (packages["steel"] / name).read_bytes()


def test_a_category_without_a_champion_is_left_out_and_an_idle_champion_too(
    packages: dict[str, Path], folder: NightFolder
) -> None:
    versions = {name: version(name, package) for name, package in packages.items()}
    categories = {"wood", "new-part", ""}
    fleet = snapshot_fleet(folder, versions, categories, lambda asked, _: packages[asked.category])
    assert list(fleet.champions) == ["wood"]
    assert fleet.without_images == {"steel"}
    assert Fleet.read(folder.fleet) == fleet


def of_version(packages: dict[str, Path], number: str) -> dict[str, RegisteredVersion]:
    return {name: version(name, package, number) for name, package in packages.items()}


def test_champions_that_a_night_was_begun_with_stay_and_other_categories_take_todays(
    packages: dict[str, Path], folder: NightFolder
) -> None:
    def snapshot(number: str, categories: set[str], *without: str) -> Fleet:
        known = of_version(packages, number)
        today = {name: known[name] for name in known if name not in without}
        begun = champions_so_far(folder)
        return snapshot_fleet(folder, today, categories, lambda v, _: packages[v.category], begun)

    def versions(fleet: Fleet) -> dict[str, str]:
        assert Fleet.read(folder.fleet) == fleet
        return {name: champion.model_version for name, champion in fleet.champions.items()}

    assert champions_so_far(folder) == {}
    assert versions(snapshot("1", {"steel"})) == {"steel": "1"}
    both = snapshot("2", {"steel", "wood"})
    assert versions(both) == {"steel": "1", "wood": "2"}
    assert (both.without_images, both.unusable) == (frozenset(), {})
    assert snapshot("3", {"steel", "wood"}, "steel", "wood") == both  # they are champions no more
    only_wood = snapshot("3", {"wood"})
    assert (versions(only_wood), only_wood.without_images) == ({"wood": "2"}, {"steel"})
    assert versions(snapshot("3", {"steel", "wood"})) == {"steel": "3", "wood": "2"}


def test_a_champion_that_could_not_be_used_is_no_champion_of_the_night(
    packages: dict[str, Path], folder: NightFolder
) -> None:
    whole = (packages["steel"] / "head.safetensors").read_bytes()
    (packages["steel"] / "head.safetensors").write_bytes(b"damaged")
    make_fleet(folder, packages)
    assert list(champions_so_far(folder)) == ["wood"]
    (packages["steel"] / "head.safetensors").write_bytes(whole)
    today, so_far = of_version(packages, "2"), champions_so_far(folder)
    mended = snapshot_fleet(
        folder, today, packages, lambda asked, _: packages[asked.category], so_far
    )
    assert mended.champions["steel"].model_version == "2"
    assert (mended.champions["wood"].model_version, mended.unusable) == ("1", {})


def test_a_copy_that_was_cut_short_is_made_again_for_a_night_that_is_begun(
    packages: dict[str, Path], folder: NightFolder
) -> None:
    begun = make_fleet(folder, packages)
    storage.delete(f"{begun.champions['steel'].package}/head.safetensors")
    today = of_version(packages, "1")
    again = snapshot_fleet(
        folder, today, packages, lambda asked, _: packages[asked.category], begun.champions
    )
    assert again == begun
    assert storage.exists(f"{begun.champions['steel'].package}/head.safetensors")


def test_a_pinned_fleet_leaves_a_night_the_champions_that_it_was_begun_with(
    packages: dict[str, Path], folder: NightFolder
) -> None:
    begun = make_fleet(folder, {"steel": packages["steel"]})
    versions = of_version(packages, "2")
    pinned = snapshot_fleet(
        NightFolder(folder.out, "2026-03-11"), versions, packages, lambda v, _: packages[v.category]
    )
    night = pinned.of_night({"steel", "wood", ""}, begun.champions)
    assert night.champions["steel"] == begun.champions["steel"]
    assert night.champions["wood"] == pinned.champions["wood"]
    only_wood = pinned.of_night({"wood"}, begun.champions)
    assert (list(only_wood.champions), only_wood.without_images) == (["wood"], {"steel"})


@pytest.mark.parametrize("digest", ["", "0" * 64])
def test_files_that_are_not_the_registered_ones_are_refused(
    packages: dict[str, Path], folder: NightFolder, digest: str
) -> None:
    wrong = dataclasses.replace(version("steel", packages["steel"]), digest=digest)
    with pytest.raises(FleetError, match=r"nightshift\.steel version 1 was registered with digest"):
        snapshot_fleet(folder, {"steel": wrong}, ["steel"], lambda *_: packages["steel"])
    assert not storage.exists(folder.fleet)


def test_a_damaged_package_is_refused_before_the_night_starts(
    packages: dict[str, Path], folder: NightFolder
) -> None:
    versions = {"steel": version("steel", packages["steel"])}
    (packages["steel"] / "head.safetensors").write_bytes(b"damaged")
    with pytest.raises(
        FleetError, match=r"none of 1 champions can be used: .*steel version 1 .* is not a rea"
    ):
        snapshot_fleet(folder, versions, ["steel"], lambda *_: packages["steel"])


def test_a_damaged_package_takes_no_other_champion_with_it(
    packages: dict[str, Path], folder: NightFolder
) -> None:
    (packages["steel"] / "head.safetensors").write_bytes(b"damaged")
    fleet = make_fleet(folder, packages)
    assert list(fleet.champions) == ["wood"]
    assert "is not a readable detector file" in fleet.unusable["steel"]
    assert fleet.without_images == frozenset()
    assert Fleet.read(folder.fleet) == fleet


def test_a_storage_that_is_away_is_nobodys_own_fault(
    packages: dict[str, Path], folder: NightFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(uri: str, content: bytes) -> None:
        raise storage.StorageAway(f"{uri}: the server does not answer")

    monkeypatch.setattr(storage, "write_bytes", away)
    with pytest.raises(storage.StorageAway):
        make_fleet(folder, packages)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format": 1, "champions": {"a": {}}}'])
def test_a_damaged_fleet_file_is_refused(folder: NightFolder, content: bytes) -> None:
    storage.write_bytes(folder.fleet, content)
    with pytest.raises(FleetError, match=r"fleet\.json is damaged .*Score the night again"):
        Fleet.read(folder.fleet)


def test_a_fleet_file_of_another_release_is_refused(folder: NightFolder) -> None:
    storage.write_bytes(folder.fleet, b'{"format": 2, "champions": {}}')
    with pytest.raises(FleetError, match=r"has format 2, this Nightshift reads 1"):
        Fleet.read(folder.fleet)


def test_a_night_that_was_not_scored_has_no_fleet(folder: NightFolder) -> None:
    with pytest.raises(storage.ObjectMissing, match=r"fleet\.json does not exist"):
        Fleet.read(folder.fleet)


def test_a_fleet_is_written_and_read_on_s3(s3: str, packages: dict[str, Path]) -> None:
    fleet = make_fleet(NightFolder(s3, NIGHT), packages)
    assert Fleet.read(NightFolder(s3, NIGHT).fleet) == fleet
    header, _ = Fleet.read(NightFolder(s3, NIGHT).fleet).champions["wood"].load_heads()
    assert header.backbone == "efficientnet_lite0"
