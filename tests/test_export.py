"""The exported file: it scores as the detector does, says how to decide, and stands alone."""

import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from command_line import Run
from factory import make_package, texture
from folded_heads import empty_head
from mlflow import MlflowClient
from numpy.typing import NDArray
from PIL import Image

from model.backbone import Backbone, BackboneConfig
from model.detector import Detector, DetectorHeader
from model.embedding import Embedding, mean_levels
from model.export import trace
from model.folding import FoldedHead, FoldedHeads
from model.kind import Heads
from model.label_head import LabelHead, LabelledHeads
from model.preprocessing import Preprocessing
from pipeline.calibration import CalibrationConfig, fit
from pipeline.package import Package, package_digest
from pipeline.predictor import Predictor
from pipeline.registry import models
from pipeline.registry.onnx_export import to_onnx

CROP = 64  # pixels
ALONE = """\
import json, sys
import numpy, onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1])
about = session.get_modelmeta().custom_metadata_map
about = {name: json.loads(value) for name, value in about.items()}
crop, fit = about["preprocessing"]["crop"], about["preprocessing"]["fit"]
assert fit == "stretch"
pictures = [
    numpy.asarray(Image.open(path).resize((crop, crop), Image.Resampling.BILINEAR))
    for path in sys.argv[2:]
]
scores, maps = session.run(["score", "map"], {"image": numpy.stack(pictures)})
flagged = (scores > numpy.float32(about["threshold"])).tolist()
assert maps.shape == (len(pictures), crop, crop)
assert not {"torch", "model", "pipeline"} & set(sys.modules)
print(json.dumps({"scores": scores.tolist(), "flagged": flagged, "about": about}))
"""


def images(*seeds: int) -> torch.Tensor:
    """Textures, each second one with a defect, as a network sees them."""
    pixels = [texture(seed, scratched=seed % 2 == 1)[16:80, 16:80] for seed in seeds]
    return torch.from_numpy(np.stack(pixels))


class Case(NamedTuple):
    """A kind of detector; ``middle`` is the shape of a two-layer adaptor's second layer."""

    backbone: BackboneConfig
    kind: Literal["paper", "official"]
    image_head: bool
    middle: tuple[int, ...] = ()
    labelled: bool = False  # whether a head learned from labels


LITE = BackboneConfig(name="efficientnet_lite0")
RESNET = BackboneConfig(name="resnet18", weights="random")
# With three levels the official embedding pools level 4 by rows and the others by unfolding.
RESNET_DEEP = BackboneConfig(name="resnet18", weights="random", layers=(2, 3, 4))
CASES = [  # both kinds, both backbones; then every backbone with every kind, with and without image
    Case(LITE, "paper", image_head=True),
    Case(RESNET_DEEP, "official", image_head=True),
    Case(RESNET, "paper", image_head=False, middle=(2, 3, 5), labelled=True),
    Case(LITE, "official", image_head=False),
]


@functools.cache
def make_detector(case: Case) -> Detector:
    """Random heads, their scores in the spread of ten images."""
    backbone, embedding = Backbone(case.backbone), Embedding(kind=case.kind)
    channels = embedding.channels(case.backbone.channels)
    levels = embedding.pool(backbone(images(*range(10))))
    patch = empty_head(channels, 6, case.middle)
    fill(patch)
    patch.set_scale(patch(levels).flatten(1).amax(dim=1))
    image = None
    if case.image_head:
        image = empty_head(channels, 4)
        fill(image)
        image.set_scale(image(mean_levels(levels)).flatten())
    header = DetectorHeader(
        backbone=case.backbone.name,
        backbone_digest=backbone.digest,
        layers=case.backbone.layers,
        weights=case.backbone.weights,
        embedding=embedding,
        preprocessing=Preprocessing(resize=CROP, crop=CROP),
    )
    heads: Heads = FoldedHeads(patch, image)
    if case.labelled:
        weight = torch.linspace(-1, 1, 4 * sum(channels)) / sum(channels)
        heads = LabelledHeads(heads, LabelHead(weight, torch.tensor(0.5)))
    return Detector(backbone, heads, header)


def fill(head: FoldedHead) -> None:
    generator = torch.Generator().manual_seed(0)
    for name, tensor in head.state_dict().items():
        if name not in ("offset", "spread"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))


@functools.cache
def make_file(case: Case) -> bytes:
    return to_onnx(trace(make_detector(case)), {"category": "steel", "threshold": 0.1})


def run_file(
    case: Case, images_NHWC: torch.Tensor
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Loaded from bytes, where weights in a file beside it could not be found."""
    session = onnxruntime.InferenceSession(make_file(case))
    score, anomaly_map = session.run(["score", "map"], {"image": images_NHWC.numpy()})
    return score, anomaly_map


@pytest.mark.parametrize(
    "case",
    [*CASES[:3], pytest.param(CASES[3], marks=pytest.mark.slow)],
    ids=lambda case: f"{case.backbone.name}-{case.kind}",
)
def test_scores_and_maps_are_the_detectors_for_any_number_of_images(case: Case) -> None:
    detector = make_detector(case)
    for batch in (images(21), images(22, 23, 25)):
        expected, patch_scores = detector(batch)
        score, anomaly_map = run_file(case, batch)
        assert (score.dtype, anomaly_map.dtype) == (np.float32, np.float32)
        np.testing.assert_allclose(score, expected, atol=1e-3, rtol=0)
        np.testing.assert_allclose(anomaly_map, detector.maps(patch_scores), atol=1e-3, rtol=0)


def test_the_file_is_valid_and_names_what_goes_in_and_out() -> None:
    content = make_file(CASES[0])
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    session = onnxruntime.InferenceSession(content)
    assert [(i.name, i.type, i.shape) for i in session.get_inputs() + session.get_outputs()] == [
        ("image", "tensor(uint8)", ["N", CROP, CROP, 3]),
        ("score", "tensor(float)", ["N"]),
        ("map", "tensor(float)", ["N", CROP, CROP]),
    ]
    about = session.get_modelmeta().custom_metadata_map
    assert about == {"category": '"steel"', "threshold": "0.1"}
    assert b".py" not in content  # the exporter would quote our source, with its paths


def test_pooled_features_are_rounded_to_half_precision_in_the_file_too() -> None:
    """Maps of features that are not rounded differ visibly; the file's lie with the rounded."""
    detector, batch = make_detector(CASES[0]), images(*range(20, 28))
    exact = [F.avg_pool2d(level, 3, stride=1, padding=1) for level in detector.backbone(batch)]
    maps_of_rounded = detector.maps(detector(batch)[1])
    effect_of_rounding = (maps_of_rounded - detector.maps(detector.heads.patch(exact))).abs().max()
    _, found = run_file(CASES[0], batch)
    assert np.abs(found - maps_of_rounded.numpy()).max() < effect_of_rounding / 4


def test_tracing_leaves_the_detector_as_it_was() -> None:
    detector, batch = make_detector(CASES[0]), images(3)
    before, num_seen = detector(batch)[0], detector.backbone.num_images_seen
    trace(detector)
    assert detector.backbone.num_images_seen == num_seen
    assert torch.equal(detector(batch)[0], before)


@pytest.fixture
def registered(tracking_uri: str, tmp_path: Path) -> Path:
    """Two versions of steel, of which the second is the champion; returns their folder.

    They read the first level alone: what is deeper would take most of the time of an export.
    """
    for seed in (0, 1):
        make_package(tmp_path / f"package{seed}", seed, layers=(1,))
        version = models.register("steel", f"key{seed}", tmp_path / f"package{seed}")
    models.promote(version)
    return tmp_path


def recalibrate(folder: Path, paths: list[str]) -> Predictor:
    """Move the threshold of a package between the scores of pictures: half of them lie above."""
    predictor = Predictor.load(str(folder))
    low, high = np.sort(predictor.predict(paths)["score"])[[len(paths) // 2 - 1, len(paths) // 2]]
    middle = (low + high) / 2
    # Of nine scores at a rate of 0.1 the threshold is the ceil(10 * 0.9) = 9th, the highest.
    calibration = fit(np.linspace(middle - 1, middle, 9), CalibrationConfig(false_alarm_rate=0.1))
    reference = dataclasses.replace(predictor.package.reference, calibration=calibration)
    package = dataclasses.replace(predictor.package, reference=reference)
    package.write(folder, {})
    return Predictor(package, predictor.detector.backbone)


def test_with_the_file_alone_anybody_decides_as_the_registered_model_does(
    run: Run, registered: Path
) -> None:
    paths = [str(registered / f"{seed}.png") for seed in range(8)]
    for seed, path in enumerate(paths):
        Image.fromarray(texture(seed)).save(path)
    predictor = recalibrate(registered / "package1", paths)
    models.promote(models.register("steel", "key2", registered / "package1"))
    answer = run("export", "steel", "--format", "onnx", "--out", "line/3/steel.onnx", "--json")
    assert (answer.code, answer.err) == (0, "")
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(registered / "line/3/steel.onnx"), *paths],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows = predictor.predict(paths)
    assert found["scores"] == pytest.approx(rows["score"].tolist(), abs=1e-3)
    assert found["flagged"] == rows["flagged"].tolist()
    assert sum(found["flagged"]) == 4
    assert found["about"] == {
        "category": "steel",
        "model_version": "3",
        "model_digest": package_digest(registered / "package1"),
        "threshold": predictor.package.reference.calibration.threshold,
        "false_alarm_rate": 0.1,
        "preprocessing": {"resize": 64, "crop": 64, "fit": "stretch"},
    }
    size = (registered / "line/3/steel.onnx").stat().st_size
    about = {"file": "line/3/steel.onnx", "size_bytes": size, **found["about"]}
    assert json.loads(answer.out) == about


def test_a_version_can_be_asked_for_and_the_file_has_the_categorys_name(
    run: Run, registered: Path
) -> None:
    answer = run("export", "steel", "--version", 1)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("steel.onnx: steel version 1, flagged above ")
    assert answer.out.endswith(", false-alarm rate 0.1\n")
    metadata = onnx.load(registered / "steel.onnx").metadata_props
    about = {entry.key: json.loads(entry.value) for entry in metadata}
    assert about["model_version"] == "1"
    assert about["model_digest"] == package_digest(registered / "package0")


def test_what_cannot_be_exported_is_one_line(run: Run, registered: Path) -> None:
    for arguments, message in (
        (["stel"], "stel: no champion is registered. Did you mean `steel`?"),
        (["wood"], "wood: no champion is registered. Onboard it, or give a --version."),
        (["steel", "--version", 3], "steel: version 3 is not registered. Give a --version that is"),
        (["wood", "--version", 1], "wood: version 1 is not registered"),
        (["../steel", "--version", 1], "Invalid model name 'nightshift.../steel'"),
        (["steel", "--out", "package0"], "package0 is a folder where a file was needed"),
    ):
        assert message in run("export", *arguments).refusal()
    assert list(registered.rglob("*.onnx")) == []


@pytest.mark.parametrize("arguments", [[], ["steel", "--format", "h5"], ["steel", "--version", 0]])
def test_bad_usage_is_code_2(run: Run, arguments: list[str]) -> None:
    answer = run("export", *arguments)
    assert (answer.code, answer.out) == (2, "")


def test_files_that_are_not_what_was_registered_are_refused(run: Run, registered: Path) -> None:
    MlflowClient().set_model_version_tag("nightshift.steel", "2", models.DIGEST_TAG, "0" * 64)
    refusal = run("export", "steel").refusal()
    digest = package_digest(registered / "package1")
    assert f"registered with digest {'0' * 12}, its files have {digest[:12]}" in refusal


def test_a_detector_in_bfloat16_is_refused(run: Run, registered: Path) -> None:
    package = Package.read(registered / "package1")
    header = dataclasses.replace(package.header, precision="bfloat16")
    dataclasses.replace(package, header=header).write(registered / "package1", {})
    models.promote(models.register("steel", "key3", registered / "package1"))
    refusal = run("export", "steel").refusal()
    assert "nightshift.steel version 3 computes in bfloat16" in refusal
    assert "Set `precision: float32` and onboard the category again" in refusal


@pytest.mark.parametrize("name", ["onnx", "onnxscript"])
def test_without_the_extra_it_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # an import of it now fails
    refusal = run("export", "steel").refusal()
    assert f"needs the extra `export`: {name} cannot be imported" in refusal
    assert "pip install '.[export]'" in refusal
