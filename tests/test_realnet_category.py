"""A category with a RealNet on its whole way: onboarded, stored, scored, exported, refused."""

import hashlib
import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import factory
import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError
from test_pairs import category, red_bank

from model.backbone import Backbone
from model.detector import Detector
from model.errors import NightshiftError
from model.export import trace
from model.mixed_batch import score_images
from model.realnet.network import RealNet
from model.realnet.realnet_heads import RealNetHeads
from pipeline.backbones import fetch_backbone
from pipeline.catalogue.catalogue import load_catalogue
from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.variants import variant
from pipeline.night.folder import NightFolder
from pipeline.night.results import read_night
from pipeline.onboarding.finish import findings_of_heads, write_package
from pipeline.onboarding.health import refuse_unhealthy
from pipeline.onboarding.key import onboarding_key
from pipeline.onboarding.prepare import make_detector, prepare
from pipeline.onboarding.small_defects import SIZES
from pipeline.package import Package
from pipeline.registry.onnx_export import to_onnx

EXPORTER = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
TRAINED = {"channels": [8, 12, 12], "pairs": 96, "passes": 3, "steps_per_pass": 20}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("realnet")
    factory.make_category(folder / "images")
    settings: dict[str, Any] = {"realnet": TRAINED, "training": {"health": "warn"}}
    prepared = prepare(category(folder / "images", **settings))
    list(prepared.trainer.run())
    write_package(prepared, folder / "package")
    return folder


@pytest.fixture(scope="module")
def package(made: Path) -> Package:
    return Package.read(made / "package")


def images_of(*seeds: int) -> torch.Tensor:
    from PIL import Image

    squares = [Image.fromarray(factory.texture(seed)).resize((64, 64)) for seed in seeds]
    return torch.from_numpy(np.stack([np.asarray(square) for square in squares]))


def test_a_package_of_a_realnet_is_read_again(package: Package) -> None:
    assert package.header.detector == "realnet"
    assert package.header.layers == (1, 2, 3)
    assert package.header.embedding.patch_size == 1
    assert isinstance(package.heads, RealNetHeads)
    assert package.record.settings["recipe"]["pairs"] == 96
    over_prior = [report["segmentation_over_prior"] for report in package.record.curve]
    assert over_prior[-1] < over_prior[0]
    assert package.record.backbone_images == 40 + 96 + 6 + 9 * len(SIZES)
    assert package.record.metrics["image_auroc"] > 0.8


def test_its_health_says_nothing_of_anomalies_like_those_it_learned_from(package: Package) -> None:
    health = {name for name in package.record.metrics if name.startswith("health_")}
    assert health == {
        f"health_{name}" for name in ("loss", "segmentation_over_prior", "score_spread")
    }


def test_its_health_says_whether_it_finds_what_its_bank_shows(made: Path, tmp_path: Path) -> None:
    bank = red_bank(tmp_path / "bank")
    settings: dict[str, Any] = {"realnet": TRAINED, "training": {"health": "warn"}}
    learned = [hashlib.sha256(path.read_bytes()).hexdigest() for path in bank.iterdir()]
    shutil.copy(next((made / "images/test/scratch").iterdir()), bank / "test.png")
    prepared = prepare(category(made / "images", anomalies=str(bank), **settings))
    list(prepared.trainer.run())
    write_package(prepared, tmp_path / "package")
    record = Package.read(tmp_path / "package").record
    assert record.metrics["health_bank_auroc"] > 0.8  # red on grey steel
    assert "health_synthetic_auroc" not in record.metrics
    assert record.has_used(learned) == [True] * 3
    assert any(line.startswith("anomalies: 1 images are test images") for line in record.findings)


@pytest.mark.parametrize(
    ("health", "message"),
    [
        ({"segmentation_over_prior": 0.99}, "segmentation_over_prior is 0.99, a sound head has"),
        ({"loss": float("nan")}, "loss is nan, not a number"),
        ({"score_spread": 0.0}, "score_spread is 0"),
        ({"bank_auroc": float("nan")}, "bank_auroc is nan, not a number"),
    ],
)
def test_a_fit_that_failed_is_refused(health: dict[str, float], message: str) -> None:
    sound = {"loss": 0.3, "segmentation_over_prior": 0.5, "score_spread": 1.0}
    refuse_unhealthy("net", sound | {"bank_auroc": 0.0}, warn=False)  # reported, refuses nobody
    with pytest.raises(NightshiftError, match=message):
        refuse_unhealthy("net", sound | health, warn=False)


def test_an_image_has_the_same_bits_alone_and_in_company(package: Package) -> None:
    images, embedding = images_of(1, 2, 3), package.header.embedding
    heads = [package.heads] * 3
    together, maps = score_images(backbone_of(package), embedding, heads, images)
    for place in range(3):
        alone, own_map = score_images(
            backbone_of(package), embedding, heads[:1], images[place : place + 1]
        )
        assert torch.equal(alone[0], together[place])
        assert torch.equal(own_map[0], maps[place])


def backbone_of(package: Package) -> Backbone:
    return fetch_backbone(package.header.backbone_config)


def test_a_traced_realnet_says_the_same(package: Package) -> None:
    detector = Detector(backbone_of(package), package.heads, package.header)
    images = images_of(*range(10, 18))
    scores, maps = detector(images)
    traced_scores, traced_maps = trace(detector).module()(images)
    spread = float(scores.std())
    # Which residual ranks where jumps with the last bits, so agreement is a matter of most images.
    assert float((traced_scores - scores).abs().quantile(0.75)) < 1e-2 * spread
    assert float((traced_maps - detector.maps(maps)).abs().quantile(0.9)) < 1e-2 * spread


@pytest.mark.skipif(not EXPORTER, reason="the extra `export` is not installed")
def test_an_exported_realnet_says_the_same(package: Package) -> None:
    import onnxruntime

    detector = Detector(backbone_of(package), package.heads, package.header)
    content = to_onnx(trace(detector), {"category": "net"})
    images = images_of(*range(20, 28))
    session = onnxruntime.InferenceSession(content)
    scores, maps = session.run(None, {"image": images.numpy()})
    expected, patch_scores = detector(images)
    spread = float(expected.std())
    assert np.quantile(np.abs(scores - expected.numpy()), 0.75) < 1e-2 * spread
    difference = np.abs(maps - detector.maps(patch_scores).numpy())
    assert np.quantile(difference, 0.9) < 1e-2 * spread


def test_a_night_is_scored(made: Path, tmp_path: Path) -> None:
    factory.write_images(tmp_path / "dump/net", range(700, 703))
    folder = NightFolder(str(tmp_path / "out"), "2026-03-12")
    factory.score_without_cluster(tmp_path / "dump", folder, {"net": made / "package"})
    rows = read_night(folder).to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * 3


def test_an_evaluation_trains_each_seed_on_the_same_pairs(made: Path) -> None:
    measured = Protocol(num_seeds=2, progress=lambda *_: None).measure(category(made / "images"))
    assert [seed.seed for seed in measured.seeds] == [0, 1]
    assert not np.array_equal(measured.seeds[0].scores, measured.seeds[1].scores)
    assert measured.cost is not None
    assert measured.cost.megabytes > 0


def test_images_may_be_rectangles(made: Path) -> None:
    prepared = prepare(category(made / "images", crop=[64, 96]))
    assert prepared.pairs is not None
    assert prepared.pairs.masks.shape == (32, 64, 96)
    list(prepared.trainer.run())
    detector = make_detector(prepared, prepared.trainer)
    scores, patch_scores = detector.score_pooled(prepared.good.bank.images(torch.arange(3)))
    assert patch_scores.shape == (3, 16, 24)
    assert scores.isfinite().all()


def test_another_kind_beside_it_leaves_the_bank_of_anomalies_out() -> None:
    with_bank = category("/a/net", anomalies="/a/bank")
    other = variant(with_bank, "memory_bank")
    assert not isinstance(other, str)
    assert other.anomalies is None
    paper = variant(with_bank, "realnet-paper")
    assert not isinstance(paper, str)
    assert (paper.anomalies, paper.layers) == ("/a/bank", [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"calibration": "cross"}, "calibration: cross needs members that leave .*; take split"),
        ({"precision": "bfloat16"}, "precision: bfloat16 moves the scores of realnet too far"),
        ({"training": {"passes": 3}}, "training: passes belong to `detector: simplenet`"),
        ({"memory_bank": {"size": 5}}, "memory_bank: size belong to `detector: memory_bank`"),
        ({"realnet": {"batch_images": 5}}, "multiple of 2"),
        ({"realnet": {"selection": "best"}}, "'afs' or 'random'"),
        ({"preset": "official"}, "preset: `official` belongs to `detector: simplenet`"),
    ],
)
def test_settings_that_it_cannot_have_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        category("/a/net", **settings)


@pytest.mark.parametrize("detector", ["simplenet", "memory_bank"])
def test_a_bank_of_anomalies_is_refused_by_kinds_that_take_none(detector: str) -> None:
    message = f"anomalies: {detector} learns from good images alone"
    with pytest.raises(ValidationError, match=message):
        category("/a/net", detector=detector, realnet={}, anomalies="/a/bank")


def test_automatic_precision_is_float32() -> None:
    assert set(category("/a/net", precision="auto").precisions) == {"float32"}


def test_a_bank_is_relative_to_the_catalogue(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.yaml"
    entry = {"name": "net", "images": "i", "detector": "realnet", "anomalies": "banks/{name}"}
    path.write_text(yaml.safe_dump({"categories": [entry]}))
    (read,) = load_catalogue(str(path))
    assert read.anomalies == str(tmp_path / "banks/net")


def test_keys_of_those_who_set_nothing_of_it_stay(tmp_path: Path) -> None:
    images = factory.make_category(tmp_path / "images", num_good=2, num_test=0)
    plain = factory.category(images)
    named = factory.category(images, realnet={}, anomalies=None)
    assert onboarding_key(plain) == onboarding_key(named)


def test_the_published_preset_is_large_and_says_so() -> None:
    paper = category("/a/net", preset="paper", realnet={}, crop=256, resize=256)
    assert paper.layers == [1, 2, 3, 4]
    recipe = paper.recipe
    counts = recipe.counts([256, 512, 1024, 2048])  # of WideResNet-50
    with torch.device("meta"):
        network = RealNet(counts, recipe.structure_of(counts))
    stored = 2 * sum(p.numel() for p in network.parameters())
    assert stored / 1e6 == pytest.approx(400, abs=1)
    heads: Any = SimpleNamespace(stored_bytes=stored)
    assert "a worker holds few of such categories" in findings_of_heads(heads)[0]
