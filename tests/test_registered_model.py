"""The registered model as anybody with MLflow and Nightshift uses it: from its alias alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from factory import detector, make_package, texture
from PIL import Image

from pipeline.images.decode import read_image
from pipeline.package import Package, package_digest
from pipeline.predictor import COLUMNS, Predictor
from pipeline.registry import models

LOAD_AND_PREDICT = """\
import json, sys
import mlflow, numpy
from PIL import Image

model = mlflow.pyfunc.load_model("models:/nightshift.steel@champion")
uris = json.loads(sys.argv[1])
arrays = [numpy.asarray(Image.open(uri)) for uri in uris[:-1]]
answers = [model.predict(uris), model.predict(arrays)]
assert model.metadata.signature is not None
print(json.dumps([json.loads(answer.to_json(orient="records")) for answer in answers]))
"""


# The file that releases before the loader module stored with every version, but for its comments.
EARLIER_FILE = """\
import mlflow
from typing import Any
from mlflow.pyfunc.model import PythonModel

class NightshiftModel(PythonModel):
    _skip_type_hint_validation = True

    def load_context(self, context):
        from pipeline.predictor import Predictor

        self.predictor = Predictor.load(context.artifacts["package"])

    def predict(self, context, model_input: list[Any], params: dict[str, Any] | None = None) -> Any:
        return self.predictor.predict(model_input)


mlflow.models.set_model(NightshiftModel())
"""


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return make_package(tmp_path / "package")


def by_hand(package: Package, arrays: list[np.ndarray]) -> list[dict[str, object]]:
    """Scores of the detector itself; p-value and flag from their definitions."""
    preprocessing = package.header.preprocessing
    side = (preprocessing.crop, preprocessing.crop)
    assert preprocessing.resize == preprocessing.crop  # so that a square image is only resized
    inputs = [
        np.asarray(Image.fromarray(a).resize(side, Image.Resampling.BILINEAR)) for a in arrays
    ]
    scores = detector(package)(torch.from_numpy(np.stack(inputs)))[0].tolist()
    calibration = package.reference.calibration
    above = [sum(held >= score for held in calibration.scores) for score in scores]
    return [
        {
            "status": "ok",
            "error": None,
            "score": pytest.approx(score, abs=1e-5),
            "p_value": pytest.approx((1 + num_above) / (len(calibration.scores) + 1)),
            "flagged": score > calibration.threshold,
            "threshold": pytest.approx(calibration.threshold),
        }
        for score, num_above in zip(scores, above, strict=True)
    ]


def test_a_champion_is_loaded_and_predicts_in_a_process_of_its_own(
    tracking_uri: str, package: Package, tmp_path: Path
) -> None:
    models.promote(models.register("steel", "key", tmp_path / "package"))
    arrays = [texture(seed, scratched=seed % 2 == 1) for seed in range(900, 910)]
    uris = [str(tmp_path / f"{index}.png") for index in range(len(arrays))]
    for uri, array in zip(uris, arrays, strict=True):
        Image.fromarray(array).save(uri)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", LOAD_AND_PREDICT, json.dumps([*uris, str(broken)])],
        cwd=elsewhere,
        env={**os.environ, "MLFLOW_TRACKING_URI": tracking_uri},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "AnyType" not in done.stderr
    from_uris, from_arrays = json.loads(done.stdout)
    assert from_arrays == by_hand(package, arrays)
    assert from_uris[:-1] == from_arrays
    assert from_uris[-1]["status"] == "unreadable"
    assert "that are no image" in from_uris[-1]["error"]
    assert [from_uris[-1][name] for name in ("score", "p_value", "flagged")] == [None] * 3


def test_a_version_of_an_earlier_release_still_loads_and_predicts(
    tracking_uri: str, package: Package, tmp_path: Path
) -> None:
    (tmp_path / "earlier.py").write_text(EARLIER_FILE)
    with mlflow.start_run():
        mlflow.pyfunc.log_model(
            name="detector",
            python_model=str(tmp_path / "earlier.py"),
            artifacts={"package": str(tmp_path / "package")},
            pip_requirements=["nightshift"],
            registered_model_name="nightshift.steel",
        )
    earlier = mlflow.pyfunc.load_model("models:/nightshift.steel/1")
    models.register("steel", "key", tmp_path / "package")
    later = mlflow.pyfunc.load_model("models:/nightshift.steel/2")
    images = [texture(1), texture(2)]
    pd.testing.assert_frame_equal(earlier.predict(images), later.predict(images))
    (version,) = (models.find_version("steel", 1),)
    assert version is not None
    folder = models.download(version, tmp_path / "download")
    assert package_digest(folder) == package_digest(tmp_path / "package")


def test_the_signature_names_what_comes_out() -> None:
    assert models.SIGNATURE.outputs.input_names() == list(COLUMNS)


@pytest.fixture
def predictor(package: Package) -> Predictor:
    return Predictor(package, detector(package).backbone)


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint16),
        None,
        7,
    ],
)
def test_what_is_no_picture_is_told_so_and_the_rest_is_scored(
    predictor: Predictor, picture: object
) -> None:
    rows = predictor.predict([texture(1), picture, texture(2)])
    assert rows["status"].tolist() == ["ok", "unreadable", "ok"]
    assert rows["error"][1].startswith("expected uint8 (H, W, 3) or a URI, found")
    alone = predictor.predict([texture(1), texture(2)])
    assert rows["score"].dropna().tolist() == pytest.approx(alone["score"].tolist(), abs=1e-4)


def test_a_table_has_the_same_types_whatever_could_be_read(predictor: Predictor) -> None:
    answers = [predictor.predict(images) for images in ([], [texture(1)], ["/gone.png"])]
    assert [len(answer) for answer in answers] == [0, 1, 1]
    assert all(answer.dtypes.equals(answers[0].dtypes) for answer in answers)
    assert answers[2]["status"].tolist() == ["missing"]
    assert pd.isna(answers[2]["flagged"][0])


def test_an_image_is_prepared_as_the_night_prepares_it(
    predictor: Predictor, tmp_path: Path
) -> None:
    array = np.tile(texture(3), (1, 2, 1))[:, :150]
    Image.fromarray(array).save(tmp_path / "wide.png")
    read = read_image(str(tmp_path / "wide.png"), predictor.package.header.preprocessing)
    assert read.pixels is not None
    score = predictor.detector(torch.from_numpy(read.pixels)[None])[0].item()
    rows = predictor.predict([array, str(tmp_path / "wide.png")])
    assert rows["score"].tolist() == pytest.approx([score, score], abs=1e-4)
