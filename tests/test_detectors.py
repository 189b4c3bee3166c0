"""The detectors of a fleet in one process: heads come and go, what they say stays the same."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from factory import backbone, detector, make_fleet, make_package

from model.detector import DetectorFileError
from pipeline.night.fleet.fleet import Champion
from pipeline.night.folder import NightFolder
from pipeline.night.scoring import detectors as module
from pipeline.night.scoring.detectors import Detectors
from pipeline.package import Package

NIGHT = "2026-03-12"
NAMES = ("steel", "tin", "wood")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("packages")
    for name, seed in zip(NAMES, (0, 1, 1), strict=True):
        make_package(root / name, seed=seed)
    return {name: root / name for name in NAMES}


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Categories whose heads were fetched, in that order; the backbone is there already."""
    asked: list[str] = []
    load = Champion.load_heads

    def noted(champion: Champion) -> object:
        asked.append(champion.category)
        return load(champion)

    monkeypatch.setattr(Champion, "load_heads", noted)
    monkeypatch.setattr(module, "fetch_backbone", lambda config: backbone())
    return asked


@pytest.fixture
def champions(packages: dict[str, Path], tmp_path: Path) -> Mapping[str, Champion]:
    return make_fleet(NightFolder(str(tmp_path), NIGHT), packages).champions


def pixels(count: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 64, 64, 3), generator=random, dtype=torch.uint8)


def test_a_mixed_batch_has_each_detectors_own_scores_and_maps(
    champions: Mapping[str, Champion], packages: dict[str, Path], loads: list[str]
) -> None:
    images = pixels(3)
    held = Detectors(champions)
    scores, patches = held.score(NAMES, images)
    for i, name in enumerate(NAMES):
        own = detector(Package.read(packages[name]))
        own_scores, own_patches = own(images[i : i + 1])
        assert torch.equal(scores[i : i + 1], own_scores)
        assert torch.equal(held.maps(name, patches[i : i + 1]), own.maps(own_patches))
    assert len({held.network(name) for name in NAMES}) == 1


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_an_image_has_the_same_bits_alone_as_in_a_batch(
    champions: Mapping[str, Champion], loads: list[str], num_threads: int
) -> None:
    images, names = pixels(6), sorted([*NAMES, *NAMES])
    held = Detectors(champions)
    torch.set_num_threads(num_threads)
    together = held.score(names, images)
    alone = [held.score([name], image[None]) for name, image in zip(names, images, strict=True)]
    for part, others in zip(together, zip(*alone, strict=True), strict=True):
        assert torch.equal(part, torch.cat(others))


def test_heads_are_fetched_once_while_there_is_room(
    champions: Mapping[str, Champion], loads: list[str]
) -> None:
    held = Detectors(champions)
    for _ in range(2):
        held.score(NAMES, pixels(3))
    assert loads == list(NAMES)


def test_without_room_those_used_longest_ago_go_and_scores_stay_the_same(
    champions: Mapping[str, Champion], loads: list[str]
) -> None:
    roomy = Detectors(champions)
    expected = roomy.score(NAMES, pixels(3))[0]
    size = module._size_bytes(roomy.heads("steel"))
    tight = Detectors(champions, heads_bytes=2 * size)  # all three are of one size
    loads.clear()
    for name in ("steel", "tin", "steel", "wood", "steel", "tin"):
        tight.heads(name)
    assert loads == ["steel", "tin", "wood", "tin"]
    assert torch.equal(tight.score(NAMES, pixels(3))[0], expected)


def test_heads_of_another_backbone_are_refused(
    champions: Mapping[str, Champion], loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone(), "digest", "0" * 64)
    with pytest.raises(DetectorFileError, match="the backbone at hand is efficientnet_lite0 0000"):
        Detectors(champions).heads("steel")
