"""int8: rounded by rules that can be worked out by hand, the same bits everywhere, or refused."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from factory import category, make_category
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from model import backbone as backbones
from model import cpu_engine
from model.backbone import Backbone, BackboneConfig, _OneImage
from model.detector import HEADER_KEY, Detector, DetectorFileError, load_detector
from model.efficientnet_lite import SameConv
from model.int8 import (
    LEAST,
    RoundedConv,
    RoundedMap,
    measure_ranges,
    read_ranges,
    rounded,
    weight_limits,
)
from model.precision import PrecisionError, require
from model.weights import WeightsError
from pipeline.catalogue.catalogue import CatalogueError, load_catalogue
from pipeline.feature_store.identity import numeric_identity
from pipeline.onboarding.finish import write_package
from pipeline.onboarding.prepare import make_detector, prepare
from pipeline.package import Package
from pipeline.predictor import Predictor

LITE = BackboneConfig(name="efficientnet_lite0", precision="int8")
RESNET = BackboneConfig(name="resnet18", weights="random", precision="int8")


def images(*size: int, count: int = 2) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *size, 3), dtype=torch.uint8, generator=random)


@pytest.fixture(scope="module")
def lite() -> Backbone:
    return Backbone(LITE)


@pytest.fixture(scope="module")
def resnet() -> Backbone:
    return Backbone(RESNET)


@pytest.mark.parametrize(
    ("limits", "numbers", "expected"),
    [
        ((0.0, 255.0), [-3.0, 0.4, 0.6, 99.9, 255.0, 400.0], [0.0, 0.0, 1.0, 100.0, 255.0, 255.0]),
        ((0.0, 2.55), [0.004, 0.006, 3.0], [0.0, 0.01, 2.55]),
        ((-127.0, 127.0), [-500.0, -127.4, -0.6, 0.4, 127.9], [-128.0, -127.0, -1.0, 0.0, 127.0]),
    ],
)
def test_what_a_convolution_reads_has_256_levels_and_is_cut_off(
    limits: tuple[float, float], numbers: list[float], expected: list[float]
) -> None:
    assert RoundedMap(limits)(torch.tensor(numbers)).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("weights", "limit"),
    [
        ([0.5, 0.0, -1.0, 0.0], 1.0),  # neither of a pair helps the other
        ([0.5, 0.7, 0.1, -0.9], 1.2),  # 0.5 + 0.7
        ([0.1, 0.9, 0.9, 0.1], 1.0),  # the second and third are no pair
        ([-0.5, -0.7, 0.2], 1.2),
        ([0.2, 0.1, 0.9], 0.9),  # the last of an odd number is alone
        ([0.9], 0.9),
        ([0.0, 0.0], LEAST),
    ],
)
def test_a_pair_of_weights_stays_within_sixteen_bits(weights: list[float], limit: float) -> None:
    kernel = torch.tensor(weights).view(1, -1, 1, 1)
    assert weight_limits(kernel).tolist() == pytest.approx([limit])


def test_no_two_products_of_a_pair_are_beyond_sixteen_bits() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 256, 3).requires_grad_(False)
    levels = (conv.weight / RoundedConv(conv).scale[:, None, None, None]).round()
    pairs = levels[:, ::2] + levels[:, 1::2]
    assert 255 * pairs.abs().max() <= 2**15 - 1
    assert levels.abs().max() > 64  # and no bit is given away for it everywhere


def test_a_convolution_of_rounded_numbers_is_a_sum_of_whole_numbers() -> None:
    conv = nn.Conv2d(2, 1, 1, bias=False).requires_grad_(False)
    conv.weight.copy_(torch.tensor([100.2, 26.8]).view(1, 2, 1, 1))  # in steps of 1: 127 together
    x = torch.tensor([10.3, 3.9]).view(1, 2, 1, 1)
    found = RoundedConv(conv)(RoundedMap((0.0, 255.0))(x))
    assert found.item() == pytest.approx(100 * 10 + 27 * 4)


def test_ranges_are_those_of_what_convolutions_read_rounded_outwards() -> None:
    first, second = nn.Conv2d(1, 1, 1, bias=False), nn.Conv2d(1, 1, 1, bias=False)
    first.weight.data.fill_(10.0)
    network = nn.Sequential(first, nn.ReLU(), second)
    seen = [torch.tensor([-1.0, 0.5]).view(1, 1, 1, 2), torch.tensor([0.0, 3.0]).view(1, 1, 1, 2)]
    (low, high), second_range = measure_ranges(network, seen)
    assert (low, high) == (-high, 2 ** (26 / 16))  # 3 = 2 ** (25.4 / 16)
    assert second_range == (0.0, 2 ** (math.ceil(16 * math.log2(30)) / 16))


def test_an_upright_convolution_is_the_one_that_was_turned() -> None:
    torch.manual_seed(0)
    for conv in (SameConv(4, 8, 3, 2), SameConv(8, 8, 5, groups=8, bias=False), SameConv(4, 2, 1)):
        x = torch.randn(1, conv.in_channels, 16, 16)
        assert torch.equal(conv.plain()(x), conv(x))


@pytest.mark.parametrize(
    ("name", "layers"),
    [("efficientnet_lite0", (1, 2, 3, 4)), ("resnet18", (2, 3)), ("resnet50", (1, 2))],
)
def test_every_convolution_computes_whole_numbers(
    name: str, layers: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbones, "MADE_IMAGES", 4)
    exact = Backbone(BackboneConfig(name=name, layers=layers, weights="random"))
    backbone = exact.in_precision("int8")
    compiled = cpu_engine.CpuEngine(_OneImage(backbone)).compiled((64, 64))
    graph = compiled._compiled.get_runtime_model().get_ordered_ops()
    about = [node.get_rt_info() for node in graph]
    convolutions = [one for one in about if "Conv" in one["layerType"].astype(str)]
    assert len(convolutions) > 10
    assert {one["runtimePrecision"].astype(str) for one in convolutions} <= {"u8", "i8"}
    for found, wanted in zip(backbone(images(64, 64)), exact(images(64, 64)), strict=True):
        assert found.shape == wanted.shape
        assert 0 < (found - wanted).norm() < 0.2 * wanted.norm()


def test_pytorch_rounds_by_the_same_rules(lite: Backbone) -> None:
    with torch.inference_mode():
        wanted = lite.levels(images(64, 64))
    for found, level in zip(lite(images(64, 64)), wanted, strict=True):
        assert (found - level).norm() < 0.1 * level.norm()  # apart by what tips over


def test_a_copy_and_what_its_config_describes_have_the_same_bits(lite: Backbone) -> None:
    copy = Backbone(dataclasses.replace(LITE, precision="float32")).in_precision("int8")
    assert lite.config.ranges is not None
    assert (copy.config, copy.digest) == (lite.config, lite.digest)
    loaded = Backbone(lite.config)
    for network in (copy, loaded):
        for found, wanted in zip(network(images(64, 64)), lite(images(64, 64)), strict=True):
            assert torch.equal(found, wanted)


PRINT_BITS = """\
import hashlib, sys, torch
from model.backbone import Backbone, BackboneConfig
random = torch.Generator().manual_seed(0)
hard = torch.randint(0, 2, (1, 96, 64, 3), generator=random).mul(255).to(torch.uint8)
soft = torch.randint(0, 256, (1, 96, 64, 3), dtype=torch.uint8, generator=random)
for config in sys.argv[1:]:
    total = hashlib.sha256()
    for level in Backbone(eval(config))(torch.cat([hard, soft])):
        total.update(level.contiguous().numpy().data)
    print(total.hexdigest())
"""


def test_processors_without_avx512_have_the_same_bits(lite: Backbone, resnet: Backbone) -> None:
    """oneDNN is told to do without it: there pairs of products are added in 16 bits."""
    printed = [
        subprocess.run(
            [sys.executable, "-c", PRINT_BITS, repr(lite.config), repr(resnet.config)],
            env={**os.environ, **changes},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
        for changes in ({}, {"ONEDNN_MAX_CPU_ISA": "AVX2"})
    ]
    assert printed[0] == printed[1]
    assert len(printed[0].split()) == 2


def test_a_gpu_refuses_int8_and_says_what_to_do() -> None:
    with pytest.raises(PrecisionError, match=r"OpenVINO on a CPU does, and .* cuda\. .*float32"):
        require("int8", torch.device("cuda"))


def test_a_machine_without_openvino_refuses_int8(
    lite: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbones, "for_one_image", lambda *_: None)
    for ask in (lambda: lite(images(64, 64)), lambda: lite.engine((64, 64))):
        with pytest.raises(PrecisionError, match="only OpenVINO on a CPU does") as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_ranges_of_another_network_are_refused() -> None:
    config = dataclasses.replace(RESNET, ranges=((0.0, 1.0),))
    with pytest.raises(WeightsError, match=r"1 ranges .* needs 13\. Onboard"):
        Backbone(config)
    with pytest.raises(ValueError, match="needs 1"):
        rounded(nn.Sequential(nn.Conv2d(1, 1, 1)), ())
    with pytest.raises(ValueError, match="ranges belong to int8"):
        BackboneConfig(ranges=((0.0, 1.0),))


@pytest.mark.parametrize(
    "given", [5, [1.0], [[0.0]], [[0.0, "high"]], [[0.0, 0.0]], [[-1.0, 2.0]], [[0.0, math.inf]]]
)
def test_what_is_no_range_is_refused(given: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        read_ranges(given)


def test_a_realnet_takes_no_int8(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.yaml"
    path.write_text(
        "categories: [{name: a, images: x, precision: int8, detector: realnet, preset: default}]"
    )
    with pytest.raises(CatalogueError, match=r"int8 moves the scores of realnet .* take float32"):
        load_catalogue(str(path))


@pytest.fixture(scope="module")
def onboarded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Detector, list[str]]:
    folder = tmp_path_factory.mktemp("int8")
    pictures = make_category(folder / "steel", num_good=24, num_test=1)
    prepared = prepare(category(pictures, precision="int8"))
    for _ in prepared.trainer.run():
        pass
    (folder / "package").mkdir()
    write_package(prepared, folder / "package")
    files = [str(file) for file in sorted((pictures / "train/good").iterdir())]
    return folder / "package", make_detector(prepared, prepared.trainer), files


def test_what_was_calibrated_in_int8_scores_in_int8(
    onboarded: tuple[Path, Detector, list[str]],
) -> None:
    folder, detector, files = onboarded
    package = Package.read(folder)
    assert package.header.precision == package.record.settings["precision"] == "int8"
    assert package.header.ranges == detector.backbone.config.ranges
    predictor = Predictor.load(str(folder))
    assert predictor.detector.backbone.config == detector.backbone.config
    check = package.reference.check
    assert check is not None
    assert package.check_images is not None
    assert check.engine == detector.backbone.engine((64, 64)) != "OpenVINO on cpu"
    scores = predictor.detector(torch.from_numpy(package.check_images))[0]
    assert scores.tolist() == pytest.approx(list(check.scores), abs=1e-5)
    assert set(predictor.predict(files)["status"]) == {"ok"}


def test_heads_of_other_ranges_are_refused(onboarded: tuple[Path, Detector, list[str]]) -> None:
    header, heads = load_detector(onboarded[0] / "head.safetensors")
    assert header.ranges is not None
    others = tuple((2 * low, 2 * high) for low, high in header.ranges)
    other = Backbone(dataclasses.replace(header.backbone_config, ranges=others))
    with pytest.raises(DetectorFileError, match="calibrated in int8 of other ranges"):
        Detector(other, heads, header)
    exact = Backbone(BackboneConfig(name=header.backbone))
    with pytest.raises(DetectorFileError, match="calibrated in int8, the backbone at hand"):
        Detector(exact, heads, header)


def test_the_header_says_it_and_a_damaged_one_is_refused(
    onboarded: tuple[Path, Detector, list[str]], tmp_path: Path
) -> None:
    file = onboarded[0] / "head.safetensors"
    with safe_open(file, framework="pt") as opened:
        fields = json.loads(opened.metadata()[HEADER_KEY])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    assert (fields["format_version"], fields["precision"]) == (4, "int8")
    damaged = tmp_path / "head.safetensors"
    for ranges, message in (
        ([[1.0, 0.5]], r"\[1, 0\.5\] is no range"),
        (None, "without the ranges"),
    ):
        fields["ranges"] = ranges
        save_file(tensors, damaged, metadata={HEADER_KEY: json.dumps(fields)})
        with pytest.raises(DetectorFileError, match=f"damaged header .*{message}"):
            load_detector(damaged)


def test_stored_features_are_those_of_the_mode_and_its_ranges(lite: Backbone) -> None:
    exact = Backbone(dataclasses.replace(LITE, precision="float32"))
    identity, other = (numeric_identity(one, (64, 64)) for one in (lite, exact))
    assert (identity["precision"], other["precision"]) == ("int8", "float32")
    assert (identity["ranges"], other.get("ranges")) == (str(lite.config.ranges), None)
    assert identity["engine"].startswith("OpenVINO 20")
