"""The fleet of a night: champions pinned once, traced to their files, readable afterwards."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from factory import make_fleet, make_package, version

from pipeline import storage
from pipeline.images.image_statistics import STATISTICS
from pipeline.night.fleet.fleet import (
    Champion,
    FleetError,
    broken_champions,
    fleet_uri,
    read_fleet,
    silent_categories,
)
from pipeline.night.fleet.resolve import snapshot_fleet
from pipeline.package import DECIDING_FILES, Package, package_digest
from pipeline.registry.models import RegisteredVersion

NIGHT = "2026-03-12"


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    for seed, name in enumerate(("steel", "wood")):
        make_package(tmp_path / "packages" / name, seed=seed)
    return {name: tmp_path / "packages" / name for name in ("steel", "wood")}


@pytest.fixture
def out(tmp_path: Path) -> str:
    return str(tmp_path / "out")


def make_fleet_of(
    out: str, versions: dict[str, RegisteredVersion], folders: dict[str, Path]
) -> dict[str, Champion]:
    return snapshot_fleet(out, NIGHT, versions, folders, lambda asked, _: folders[asked.category])


def test_a_pinned_champion_is_its_package(folders: dict[str, Path], out: str) -> None:
    fleet = make_fleet(out, NIGHT, folders)
    assert list(fleet) == ["steel", "wood"]
    package, champion = Package.read(folders["steel"]), fleet["steel"]
    assert champion.model_digest == package_digest(folders["steel"])
    assert champion.model_digest in champion.package
    assert champion.calibration == package.calibration
    assert champion.map_scale == package.map_scale
    assert champion.statistics == package.statistics
    assert set(champion.statistics) == set(STATISTICS)
    assert champion.preprocessing == package.header.preprocessing
    header, heads = champion.load_heads()
    assert header == package.header
    own = package.heads.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in heads.state_dict().items())


def test_the_fleet_of_a_night_is_read_again(folders: dict[str, Path], out: str) -> None:
    fleet = make_fleet(out, NIGHT, folders)
    assert read_fleet(out, NIGHT) == fleet
    document = json.loads(storage.read_bytes(fleet_uri(out, NIGHT)))
    assert document["format"] == 1
    assert document["champions"]["steel"]["model_name"] == "nightshift.steel"
    assert Champion.from_json("wood", document["champions"]["wood"]) == fleet["wood"]


def test_a_fleet_file_of_an_earlier_release_has_no_statistics(
    folders: dict[str, Path], out: str
) -> None:
    steel = make_fleet(out, NIGHT, folders)["steel"]
    known = steel.to_json()
    older = {name: known[name] for name in known if name not in ("fdr", "image_statistics")}
    assert Champion.from_json("steel", older) == dataclasses.replace(steel, statistics={})


def test_a_second_night_downloads_nothing(folders: dict[str, Path], out: str) -> None:
    downloads: list[str] = []

    def download(asked: RegisteredVersion, scratch: Path) -> Path:
        downloads.append(asked.category)
        return folders[asked.category]

    versions = {name: version(name, folder) for name, folder in folders.items()}
    first = snapshot_fleet(out, NIGHT, versions, ["steel"], download)
    assert downloads == ["steel"]
    assert list(snapshot_fleet(out, "2026-03-13", versions, ["steel", "wood"], download)) == [
        *folders
    ]
    assert downloads == ["steel", "wood"]
    again = snapshot_fleet(out, NIGHT, versions, ["steel"], download)
    assert again == first
    assert downloads == ["steel", "wood"]


def test_a_copy_that_was_cut_short_is_made_again(folders: dict[str, Path], out: str) -> None:
    champion = make_fleet(out, NIGHT, {"steel": folders["steel"]})["steel"]
    storage.delete(f"{champion.package}/head.safetensors")
    assert make_fleet(out, NIGHT, {"steel": folders["steel"]})["steel"] == champion
    storage.delete(f"{champion.package}/calibration.json")
    storage.write_bytes(f"{champion.package}/head.safetensors", b"half of")
    assert make_fleet(out, NIGHT, {"steel": folders["steel"]})["steel"] == champion
    for name in DECIDING_FILES:
        copied = storage.read_bytes(f"{champion.package}/{name}")
        assert copied == (folders["steel"] / name).read_bytes()


def test_a_category_without_a_champion_is_left_out_and_an_idle_champion_too(
    folders: dict[str, Path], out: str
) -> None:
    versions = {name: version(name, folder) for name, folder in folders.items()}
    categories = {"wood", "new-part", ""}
    fleet = snapshot_fleet(
        out, NIGHT, versions, categories, lambda asked, _: folders[asked.category]
    )
    assert list(fleet) == ["wood"]
    assert read_fleet(out, NIGHT) == fleet
    assert silent_categories(out, NIGHT) == ["steel"]


@pytest.mark.parametrize("digest", ["", "0" * 64])
def test_files_that_are_not_the_registered_ones_are_refused(
    folders: dict[str, Path], out: str, digest: str
) -> None:
    wrong = dataclasses.replace(version("steel", folders["steel"]), digest=digest)
    with pytest.raises(FleetError, match=r"nightshift\.steel version 1 was registered with digest"):
        snapshot_fleet(out, NIGHT, {"steel": wrong}, ["steel"], lambda *_: folders["steel"])
    assert not storage.exists(fleet_uri(out, NIGHT))


def test_a_damaged_package_is_refused_before_the_night_starts(
    folders: dict[str, Path], out: str
) -> None:
    versions = {"steel": version("steel", folders["steel"])}
    (folders["steel"] / "head.safetensors").write_bytes(b"damaged")
    with pytest.raises(
        FleetError, match=r"none of 1 champions can be used: .*steel version 1 .* is not a rea"
    ):
        snapshot_fleet(out, NIGHT, versions, ["steel"], lambda *_: folders["steel"])


def test_a_damaged_package_takes_no_other_champion_with_it(
    folders: dict[str, Path], out: str
) -> None:
    versions = {name: version(name, folder) for name, folder in folders.items()}
    (folders["steel"] / "head.safetensors").write_bytes(b"damaged")
    assert list(make_fleet_of(out, versions, folders)) == ["wood"]
    assert list(read_fleet(out, NIGHT)) == ["wood"]
    (why,) = broken_champions(out, NIGHT).values()
    assert "is not a readable detector file" in why
    assert silent_categories(out, NIGHT) == []


def test_a_storage_that_is_away_is_nobodys_own_fault(
    folders: dict[str, Path], out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(uri: str, content: bytes) -> None:
        raise storage.StorageAway(f"{uri}: the server does not answer")

    monkeypatch.setattr(storage, "write_bytes", away)
    with pytest.raises(storage.StorageAway):
        make_fleet(out, NIGHT, folders)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format": 1, "champions": {"a": {}}}'])
def test_a_damaged_fleet_file_is_refused(out: str, content: bytes) -> None:
    storage.write_bytes(fleet_uri(out, NIGHT), content)
    with pytest.raises(FleetError, match=r"fleet\.json is damaged .*Score the night again"):
        read_fleet(out, NIGHT)


def test_a_fleet_file_of_another_release_is_refused(out: str) -> None:
    storage.write_bytes(fleet_uri(out, NIGHT), b'{"format": 2, "champions": {}}')
    with pytest.raises(FleetError, match=r"has format 2, this Nightshift reads 1"):
        read_fleet(out, NIGHT)


def test_a_night_that_was_not_scored_has_no_fleet(out: str) -> None:
    with pytest.raises(storage.ObjectMissing, match=r"fleet\.json does not exist"):
        read_fleet(out, NIGHT)


def test_a_fleet_is_pinned_on_s3(s3: str, folders: dict[str, Path]) -> None:
    fleet = make_fleet(s3, NIGHT, folders)
    assert read_fleet(s3, NIGHT) == fleet
    header, _ = read_fleet(s3, NIGHT)["wood"].load_heads()
    assert header.backbone == "efficientnet_lite0"
