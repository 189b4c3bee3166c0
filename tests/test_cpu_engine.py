"""OpenVINO on CPUs: the same maps as PyTorch's, whoever asks, and PyTorch where it cannot."""

import copy
import json
import logging
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from model import cpu_engine
from model.backbone import BACKBONES, Backbone, BackboneConfig
from model.precision import has_bfloat16

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test begins as a new process does."""
    monkeypatch.setattr(cpu_engine, "_loaded", type(cpu_engine._loaded)())


def images(height: int, width: int, count: int = 2) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=random)


def check_against_pytorch(backbone: Backbone, pixels: torch.Tensor) -> None:
    """Compare within what the order of a float32 sum may change: some units in the last place."""
    assert backbone.engine(pixels.shape[1:3]) == "OpenVINO on cpu"
    with torch.inference_mode():
        wanted = backbone.levels(pixels)
    for found, level in zip(backbone(pixels), wanted, strict=True):
        assert (found - level).abs().max() < 1e-4 * level.std()


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("layers", [(2, 3), (1,), (1, 2, 3, 4)])
def test_the_maps_are_pytorchs(name: str, layers: tuple[int, ...]) -> None:
    backbone = Backbone(BackboneConfig(name=name, layers=layers, weights="random"))
    check_against_pytorch(backbone, images(64, 64))


@pytest.mark.parametrize("size", [(64, 64), (96, 32), (32, 128), (224, 224)])
@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18"])
def test_an_image_may_have_any_size(name: str, size: tuple[int, int]) -> None:
    check_against_pytorch(Backbone(BackboneConfig(name=name, weights="random")), images(*size))


def test_float32_is_not_rounded_to_bfloat16_where_a_processor_is_faster_in_it() -> None:
    backbone = Backbone(BackboneConfig(name="resnet18", weights="random"))
    compiled = cpu_engine.CpuEngine(_network(backbone)).compiled((64, 64))
    properties = compiled._compiled  # what OpenVINO says of itself
    assert str(properties.get_property("INFERENCE_PRECISION_HINT")) == "<Type: 'float32'>"


def test_maps_lie_in_memory_as_pytorchs_do() -> None:
    backbone = Backbone(BackboneConfig(name="efficientnet_lite0"))
    with torch.inference_mode():
        wanted = backbone.levels(images(64, 96, count=1))
    found = backbone(images(64, 96, count=1))
    assert [level.stride() for level in found] == [level.stride() for level in wanted]


def test_maps_stay_as_they_are_when_the_next_image_is_computed() -> None:
    backbone = Backbone(BackboneConfig(name="resnet18", weights="random"))
    first, second = images(64, 64).split(1)
    kept = backbone(first)
    before = [level.clone() for level in kept]
    backbone(second)
    assert all(torch.equal(now, then) for now, then in zip(kept, before, strict=True))


def test_pixels_may_be_a_part_of_a_larger_picture() -> None:
    backbone = Backbone(BackboneConfig(name="resnet18", weights="random"))
    part = images(96, 96)[:, 8:72, 16:80]
    for found, wanted in zip(backbone(part), backbone(part.contiguous()), strict=True):
        assert torch.equal(found, wanted)


def test_many_threads_of_many_sizes_get_what_each_would_get_alone() -> None:
    torch.set_num_threads(2)
    backbone = Backbone(BackboneConfig(name="efficientnet_lite0"))
    batches = [images(64, width, count=3) for width in (32, 64, 96)] * 4
    alone = [backbone(batch) for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(backbone, batches))
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_network_is_translated_once_however_often_it_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[object] = []
    translate = cpu_engine._translate
    monkeypatch.setattr(
        cpu_engine, "_translate", lambda network: made.append(network) or translate(network)
    )
    for _ in range(3):
        Backbone(BackboneConfig(name="resnet18", weights="random"))(images(64, 64))
    assert len(made) == 1
    Backbone(BackboneConfig(name="resnet18", layers=(1,), weights="random"))(images(64, 64))
    assert len(made) == 2


def test_other_weights_of_one_architecture_are_another_network(tmp_path: Path) -> None:
    first = Backbone(BackboneConfig(name="resnet18", weights="random"))
    torch.manual_seed(1)
    from torchvision.models import resnet18

    torch.save(resnet18(weights=None).state_dict(), tmp_path / "other.pth")
    second = Backbone(BackboneConfig(name="resnet18", weights=str(tmp_path / "other.pth")))
    for backbone in (first, second, first):
        check_against_pytorch(backbone, images(64, 64))


def test_only_the_last_networks_and_sizes_stay_in_memory() -> None:
    backbone = Backbone(BackboneConfig(name="resnet18", layers=(1,), weights="random"))
    for i in range(cpu_engine.KEPT_SIZES + 2):
        backbone(images(32, 32 * (i + 1), count=1))
    (engine,) = cpu_engine._loaded.values()
    assert engine is not None
    assert len(engine._compiled) == cpu_engine.KEPT_SIZES
    for layers in ((2,), (3,), (1, 2)):
        Backbone(BackboneConfig(name="resnet18", layers=layers, weights="random"))(images(32, 32))
    assert len(cpu_engine._loaded) == cpu_engine.KEPT_NETWORKS
    check_against_pytorch(backbone, images(32, 32))


@pytest.mark.parametrize("how", ["pickle", "copy"])
def test_a_backbone_that_has_computed_can_be_copied(how: str) -> None:
    backbone = Backbone(BackboneConfig(name="resnet18", weights="random"))
    wanted = backbone(images(64, 64))
    other: Backbone = (
        copy.deepcopy(backbone) if how == "copy" else pickle.loads(pickle.dumps(backbone))
    )
    for found, level in zip(other.to("cpu")(images(64, 64)), wanted, strict=True):
        assert torch.equal(found, level)


@pytest.mark.skipif(not has_bfloat16(CPU), reason="this processor has no bfloat16 products")
def test_bfloat16_stays_with_pytorch() -> None:
    exact = Backbone(BackboneConfig(name="resnet18", weights="random"))
    exact(images(64, 64))
    rounded = exact.in_precision("bfloat16")
    assert rounded.engine((64, 64)) == "PyTorch on cpu"
    alone = [rounded.levels(image) for image in images(64, 64).split(1)]
    for found, wanted in zip(rounded(images(64, 64)), zip(*alone, strict=True), strict=True):
        assert torch.equal(found, torch.cat(wanted))


def _network(backbone: Backbone) -> torch.nn.Module:
    from model.backbone import _OneImage

    return _OneImage(backbone)


@pytest.mark.parametrize("where", ["import", "translation", "compilation"])
def test_pytorch_computes_where_openvino_cannot_and_the_log_says_so_once(
    where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such kernel\nin a trace of many lines")

    if where == "import":
        monkeypatch.setitem(sys.modules, "openvino", None)
    elif where == "translation":
        monkeypatch.setattr(torch.jit, "trace", fail)
    else:
        monkeypatch.setattr(cpu_engine.CpuEngine, "_compile", fail)
    backbone = Backbone(BackboneConfig(name="resnet18", weights="random"))
    with caplog.at_level(logging.INFO):
        found = [backbone(images(64, 64)) for _ in range(2)]
    assert backbone.engine((64, 64)) == "PyTorch on cpu"
    (record,) = caplog.records
    assert "OpenVINO cannot compute on this CPU: " in record.getMessage()
    assert "\n" not in record.getMessage()
    with torch.inference_mode():
        wanted = [backbone.levels(image) for image in images(64, 64).split(1)]
    for level, own in zip(found[0], zip(*wanted, strict=True), strict=True):
        assert torch.equal(level, torch.cat(own))


LOOKED_AT = """\
import json, logging, sys, warnings
warnings.simplefilter("error")
deeds = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "os.mkdir", "subprocess.Popen"):
        deeds.append(f"{event} {arguments!r}")
import torch
from model.backbone import Backbone, BackboneConfig
backbone = Backbone(BackboneConfig(name="efficientnet_lite0"))
root = logging.getLogger()
before = root.level, list(root.handlers), list(root.filters), torch.get_num_threads()
sys.addaudithook(watch)
backbone(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
after = root.level, list(root.handlers), list(root.filters), torch.get_num_threads()
assert before == after, (before, after)
assert backbone.engine((64, 64)) == "OpenVINO on cpu"
print(json.dumps(deeds + [n for n, m in sys.modules.items() if "telemetry" in n and m is not None]))
"""


def test_a_process_that_computes_reports_to_nobody_and_leaves_logging_alone(
    tmp_path: Path,
) -> None:
    """OpenVINO comes with a package that reports its use over the network."""
    done = subprocess.run(
        [sys.executable, "-c", LOOKED_AT],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = [line for line in json.loads(done.stdout) if "openvino.tools.ovc.telemetry" not in line]
    assert seen == []
    assert list(tmp_path.iterdir()) == []
