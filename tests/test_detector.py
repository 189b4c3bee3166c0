"""The detector file: round trips in a new process, and everything that must be refused."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from folded_heads import empty_head
from safetensors.torch import load_file, save_file

from model.backbone import Backbone, BackboneConfig
from model.detector import (
    FORMAT_VERSION,
    HEADER_KEY,
    Detector,
    DetectorFileError,
    DetectorHeader,
    load_detector,
    save_detector,
)
from model.folding import FoldedHeads
from model.preprocessing import Preprocessing
from model.recipe import PRESETS

CALIBRATION_BYTES = 21_000  # of 1,000 held-out images' scores
CONFIG = BackboneConfig(name="resnet18", weights="random")


def make_heads(*, with_image: bool = True, middle: tuple[int, ...] = ()) -> FoldedHeads:
    image = empty_head((128, 256), 4) if with_image else None
    heads = FoldedHeads(empty_head((128, 256), 6, middle), image)
    generator = torch.Generator().manual_seed(0)
    for tensor in heads.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator).abs() + 0.1)
    heads.round_to_half()
    return heads


def make_header(backbone: Backbone) -> DetectorHeader:
    return DetectorHeader(
        backbone="resnet18",
        backbone_digest=backbone.digest,
        layers=(2, 3),
        weights="random",
        preprocessing=Preprocessing(resize=64, crop=64),
    )


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone(CONFIG)


@pytest.mark.parametrize("with_image", [True, False])
@pytest.mark.parametrize("middle", [(), (2, 3, 5)])
def test_a_detector_survives_the_disk(
    tmp_path: Path, backbone: Backbone, with_image: bool, middle: tuple[int, ...]
) -> None:
    heads, header = make_heads(with_image=with_image, middle=middle), make_header(backbone)
    save_detector(tmp_path / "head.safetensors", heads, header)
    found_header, found = load_detector(tmp_path / "head.safetensors")
    assert found_header == header
    assert found.state_dict().keys() == heads.state_dict().keys()
    assert all(torch.equal(found.state_dict()[k], v) for k, v in heads.state_dict().items())


def test_matrices_are_stored_in_half_precision_and_the_rest_in_full(
    tmp_path: Path, backbone: Backbone
) -> None:
    save_detector(tmp_path / "head.safetensors", make_heads(), make_header(backbone))
    types = {name: value.dtype for name, value in load_file(tmp_path / "head.safetensors").items()}
    matrices = {f"{head}.level{level}" for head in ("patch", "image") for level in (0, 1)}
    assert {name for name, dtype in types.items() if dtype == torch.float16} == matrices
    assert {types[name] for name in types.keys() - matrices} == {torch.float32}


def test_a_thousand_heads_of_150_units_fit_into_3500_megabytes(tmp_path: Path) -> None:
    """The paper's backbone: 512 + 1024 channels. Sizes do not depend on what was trained."""
    recipe = PRESETS["default"].recipe
    assert recipe.image is not None
    widths = [150 * recipe.patch.head.members, recipe.image.head.hidden * recipe.image.head.members]
    heads = FoldedHeads(*(empty_head((512, 1024), width) for width in widths))
    header = DetectorHeader(
        backbone="wide_resnet50_2",
        backbone_digest="0" * 64,
        layers=(2, 3),
        preprocessing=PRESETS["default"].preprocessing,
    )
    save_detector(tmp_path / "head.safetensors", heads, header)
    matrices = 2 * 1536 * sum(widths)  # half precision
    vectors = 4 * (2 * sum(widths) + 4)  # bias and output; offset and spread of both heads
    size = (tmp_path / "head.safetensors").stat().st_size
    assert matrices + vectors < size < matrices + vectors + 2_000  # and the header
    assert size <= 3_500_000 - CALIBRATION_BYTES


def test_a_new_process_scores_the_same(tmp_path: Path, backbone: Backbone) -> None:
    heads, header = make_heads(), make_header(backbone)
    save_detector(tmp_path / "head.safetensors", heads, header)
    images = torch.arange(2 * 64 * 64 * 3).remainder(251).to(torch.uint8).view(2, 64, 64, 3)
    scores, _ = Detector(backbone, heads, header)(images)
    script = (
        "import sys, torch; from pathlib import Path;"
        "from model.backbone import Backbone; from model.detector import Detector, load_detector;"
        "header, heads = load_detector(Path(sys.argv[1]));"
        "images = torch.arange(2 * 64 * 64 * 3).remainder(251).to(torch.uint8).view(2, 64, 64, 3);"
        "scores, _ = Detector(Backbone(header.backbone_config), heads, header)(images);"
        "print(scores.tolist())"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "head.safetensors")]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(answer.stdout) == pytest.approx(scores.tolist(), rel=1e-5)


def test_maps_have_the_size_of_the_crop(backbone: Backbone) -> None:
    detector = Detector(backbone, make_heads(), make_header(backbone))
    _, patch_scores = detector(torch.zeros(3, 64, 64, 3, dtype=torch.uint8))
    assert patch_scores.shape == (3, 8, 8)
    assert detector.maps(patch_scores).shape == (3, 64, 64)


def test_the_image_score_is_taken_before_smoothing(backbone: Backbone) -> None:
    detector = Detector(backbone, make_heads(with_image=False), make_header(backbone))
    noise = torch.randint(0, 255, (1, 64, 64, 3), generator=torch.Generator().manual_seed(0))
    scores, patch_scores = detector(noise.to(torch.uint8))
    assert scores.item() == patch_scores.max().item()
    assert detector.maps(patch_scores).max() < scores.item()


def test_heads_of_another_backbone_are_refused(backbone: Backbone) -> None:
    header = make_header(backbone)
    other = Backbone(BackboneConfig(name="resnet18", layers=(1, 2), weights="random"))
    with pytest.raises(DetectorFileError, match="trained on resnet18 weights"):
        Detector(other, make_heads(), header)


def test_heads_calibrated_in_another_precision_are_refused(backbone: Backbone) -> None:
    header = dataclasses.replace(make_header(backbone), precision="bfloat16")
    with pytest.raises(DetectorFileError, match=r"calibrated in bfloat16, .* computes in float32"):
        Detector(backbone, make_heads(), header)
    assert header.backbone_config != backbone.config  # so their images are never in one batch


def rewrite(path: Path, header: object = None, **tensors: torch.Tensor) -> None:
    """Save the file at ``path`` again with another header or other tensors."""
    kept = load_file(path) | tensors
    save_file(kept, path, metadata=None if header is None else {HEADER_KEY: json.dumps(header)})


def header_fields(backbone: Backbone) -> dict[str, object]:
    return {
        "backbone": "resnet18",
        "backbone_digest": backbone.digest,
        "layers": [2, 3],
        "preprocessing": {"resize": 64, "crop": 64},
        "embedding": {"kind": "paper", "patch_size": 3},
        "format_version": FORMAT_VERSION,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"format_version": 99},
            "version 99, this Nightshift reads 3, 4, 5. Upgrade to the rel",
        ),
        (
            {"format_version": 2},
            "version 2, this Nightshift reads 3, 4, 5. Use the release that",
        ),
        ({"backbone": "vgg16"}, "damaged header"),
        ({"layers": [3, 2]}, "damaged header"),
        ({"precision": "int8"}, "damaged header"),
        ({"preprocessing": {"resize": 10, "crop": 64}}, "damaged header"),
        ({"surprise": 1}, "damaged header"),
        ({"layers": [1, 2]}, "do not fit its header"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(
    tmp_path: Path, backbone: Backbone, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "head.safetensors"
    save_detector(path, make_heads(), make_header(backbone))
    rewrite(path, header_fields(backbone) | change)
    with pytest.raises(DetectorFileError, match=message):
        load_detector(path)


def test_a_file_without_header_or_with_a_tensor_too_many_is_refused(
    tmp_path: Path, backbone: Backbone
) -> None:
    path = tmp_path / "head.safetensors"
    save_detector(path, make_heads(), make_header(backbone))
    rewrite(path)
    with pytest.raises(DetectorFileError, match="format version None"):
        load_detector(path)
    rewrite(path, header_fields(backbone), extra=torch.ones(1))
    with pytest.raises(DetectorFileError, match="do not fit its header"):
        load_detector(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 64])
def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "head.safetensors"
    path.write_bytes(content)
    with pytest.raises(DetectorFileError, match="not a readable detector file"):
        load_detector(path)
