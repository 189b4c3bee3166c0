"""Runs and registered models: one of each however often and wherever registering is interrupted."""

import importlib.metadata
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import mlflow
import pytest
from factory import make_package
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from pipeline.onboarding.health import NUM_ANOMALIES
from pipeline.onboarding.small_defects import SIZES
from pipeline.package import DECIDING_FILES, RECORD_FILE, Package, PackageError, package_digest
from pipeline.registry import connection, models
from pipeline.registry.connection import EVALUATIONS, ONBOARDINGS, STUDIES
from pipeline.registry.description import describe
from pipeline.registry.models import RegisteredVersion
from pipeline.registry.runs import RunRecord, log_run


class Killed(BaseException):
    """Nothing that is caught below."""


@pytest.fixture
def client(tracking_uri: str) -> MlflowClient:
    return MlflowClient()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_package(tmp_path / "package")
    return tmp_path / "package"


def runs(client: MlflowClient) -> list[Run]:
    return list(client.search_runs([connection.experiment_id(client)]))


def versions(client: MlflowClient) -> list[ModelVersion]:
    return list(client.search_model_versions())


def aliases(client: MlflowClient, category: str) -> dict[str, str]:
    found = client.get_registered_model(f"nightshift.{category}").aliases
    return {name: str(version) for name, version in found.items()}


def test_what_is_registered_is_found_by_its_key_only(client: MlflowClient, folder: Path) -> None:
    assert models.find("steel", "key") is None
    version = models.register("steel", "key", folder)
    assert (version.name, version.version, version.is_new) == ("nightshift.steel", "1", True)
    assert version.digest == package_digest(folder)
    found = models.find("steel", "key")
    assert found == RegisteredVersion(**{**vars(version), "is_new": False})
    assert models.find("steel", "other") is None
    assert models.find("wood", "key") is None


def test_a_run_holds_settings_curve_metrics_and_pictures(
    client: MlflowClient, folder: Path
) -> None:
    models.register("steel", "key", folder)
    models.register("steel", "key", folder)
    (run,) = runs(client)
    assert run.info.status == "FINISHED"
    assert run.data.params["backbone"] == "efficientnet_lite0"
    assert run.data.metrics["images_train"] + run.data.metrics["images_calibration"] == 40
    # 40 good ones, 6 to test on, each once, synthetic anomalies, four sizes on nine held out.
    assert run.data.metrics["backbone_images"] == 40 + 6 + NUM_ANOMALIES + 9 * len(SIZES)
    assert run.data.metrics["image_auroc"] <= 1
    assert run.data.metrics["seconds_training"] > 0
    history = client.get_metric_history(run.info.run_id, "defects_found")
    assert {metric.step for metric in history} == {4, 8, 16, 32}  # pixels
    assert run.data.metrics.keys() >= {"pixels_kept", "defects_8px_found", "defects_8px_found_low"}
    assert len(run.data.tags["nightshift.dataset_digest"]) == 64
    assert run.data.tags["nightshift.version"] == importlib.metadata.version("nightshift")
    assert len(client.get_metric_history(run.info.run_id, "image_loss")) == 1  # one pass, not two
    pictures = client.list_artifacts(run.info.run_id, "examples")
    assert len(pictures) == 6 + 1
    assert all(picture.path.endswith(".png") for picture in pictures)


def test_a_model_has_its_runs_settings_and_metrics(client: MlflowClient, folder: Path) -> None:
    models.register("steel", "key", folder)
    (run,) = runs(client)
    version = client.get_model_version("nightshift.steel", "1")
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    assert model.params == run.data.params
    assert model.experiment_id == run.info.experiment_id
    metrics = {metric.key: metric.value for metric in model.metrics}
    assert metrics.keys() >= {"image_auroc", "seconds_training", "backbone_images"}
    assert metrics.items() <= run.data.metrics.items()


def change_record(folder: Path, **changes: Any) -> None:
    """Write other values into a package's record, which shapes no score."""
    path = folder / RECORD_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_settings_are_logged_however_many_and_long_they_are(
    client: MlflowClient, folder: Path
) -> None:
    """A server takes 100 parameters at a time, and its columns are short."""
    settings = {
        "images": "/x",
        "long": ["a" * 300] * 30,
        "nested": {f"s{i}": i for i in range(248)},
    }
    change_record(folder, settings=settings)
    models.register("steel", "key", folder)
    (run,) = runs(client)
    assert len(run.data.params) == 250
    assert run.data.params["nested.s247"] == "247"
    assert len(run.data.params["long"]) == 500
    version = client.get_model_version("nightshift.steel", "1")
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    assert model.params == run.data.params
    assert model.experiment_id == run.info.experiment_id
    whole = Path(client.download_artifacts(run.info.run_id, "settings.json"))
    assert json.loads(whole.read_text()) == settings


@pytest.mark.parametrize(("uri", "kind"), [("s3://factory/steel", "s3"), ("/data/steel", "local")])
def test_a_run_names_its_images_as_an_input(
    client: MlflowClient, folder: Path, uri: str, kind: str
) -> None:
    settings = json.loads((folder / RECORD_FILE).read_text())["settings"]
    change_record(folder, settings=settings | {"images": uri})
    for _ in range(2):  # twice is once
        models.register("steel", "key", folder)
    (run,) = runs(client)
    (given,) = run.inputs.dataset_inputs
    assert given.dataset.name == "steel"
    assert len(given.dataset.digest) == 36  # as long as MLflow takes
    assert run.data.tags["nightshift.dataset_digest"].startswith(given.dataset.digest)
    counts = json.loads(given.dataset.profile)
    assert counts["train"] + counts["calibration"] == 40
    assert {tag.key: tag.value for tag in given.tags} == {"mlflow.data.context": "training"}
    assert given.dataset.source_type == kind
    assert mlflow.data.get_source(given).uri == uri


def test_a_version_says_what_it_is_what_it_promises_and_what_was_measured(
    client: MlflowClient, folder: Path
) -> None:
    package = Package.read(folder)
    models.register("steel", "0123456789abcdef-and-more", folder)
    said = client.get_model_version("nightshift.steel", "1").description
    num_images = len(package.reference.calibration.scores)
    for expected in (
        "detector of the category `steel`",
        f"score is above {package.reference.calibration.threshold:.6g}.",
        f"at most 10 % of good images on average, by the scores of {num_images} good images",
        f"{package.record.settings['images']}: ",
        f"{num_images} calibration, ",
        package.record.dataset_digest[:12],
        f"image_auroc {package.record.metrics['image_auroc']:.4g}",
        "efficientnet_lite0, layers [2, 3], float32",
        "onboarding key 0123456789abcdef;",
    ):
        assert expected in said
    assert "health_" not in said


def test_a_version_without_labelled_images_says_that_nothing_was_measured(folder: Path) -> None:
    change_record(folder, metrics={"threshold": 1.0, "health_auroc": 0.9})
    assert "nothing; there are no labelled images" in describe(Package.read(folder), "key")


def test_a_version_calibrated_by_cross_conformal_scores_promises_nothing(folder: Path) -> None:
    settings = json.loads((folder / RECORD_FILE).read_text())["settings"]
    change_record(folder, settings=settings | {"calibration": "cross"})
    said = describe(Package.read(folder), "key")
    assert "10 % of good images were asked for; `calibration: cross` does not guarantee it." in said
    assert "at most" not in said


def test_registering_warns_of_nothing(client: MlflowClient, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        models.register("steel", "key", folder)


@pytest.mark.parametrize("base", [None, "line-7"])
def test_each_kind_of_work_has_an_experiment_of_its_own(
    client: MlflowClient, folder: Path, monkeypatch: pytest.MonkeyPatch, base: str | None
) -> None:
    if base:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", base)
    models.register("steel", "key", folder)
    for experiment in (EVALUATIONS, STUDIES):
        log_run(RunRecord(experiment=experiment, name="x", key="key", category="", settings={}))
    names = {experiment.name for experiment in client.search_experiments()} - {"Default"}
    base = base or "nightshift"
    assert names == {base, f"{base}-evaluations", f"{base}-studies"}
    assert len(runs(client)) == 1
    assert models.find("steel", "key") is not None


@pytest.mark.parametrize(
    "last_call",
    [
        "log_batch",
        "log_inputs",
        "log_artifacts",
        "create_model_version",
        "set_registered_model_alias",
        "set_terminated",
    ],
)
def test_a_registering_that_was_killed_leaves_one_run_and_one_version_when_done_again(
    client: MlflowClient, folder: Path, monkeypatch: pytest.MonkeyPatch, last_call: str
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise Killed("died")

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, last_call, die)
        with pytest.raises(Killed, match="died"):
            models.register("steel", "key", folder)
    assert models.find("steel", "key") is None
    version = models.register("steel", "key", folder)
    assert len(runs(client)) == len(versions(client)) == 1
    assert models.find("steel", "key") == RegisteredVersion(**{**vars(version), "is_new": False})
    assert version.digest == package_digest(folder)
    assert aliases(client, "steel") == {"challenger": "1"}
    assert versions(client)[0].tags["nightshift.backbone"] == "efficientnet_lite0"


def test_a_new_version_is_challenger_until_it_is_promoted(
    client: MlflowClient, folder: Path
) -> None:
    first = models.register("steel", "monday", folder)
    assert aliases(client, "steel") == {"challenger": "1"}
    assert models.champions() == {}
    assert models.promote(first).is_champion
    second = models.register("steel", "tuesday", folder)
    assert not second.is_champion
    assert aliases(client, "steel") == {"champion": "1", "challenger": "2"}
    assert models.champions()["steel"].version == "1"
    models.promote(second)
    assert models.champions()["steel"].version == "2"
    monday = models.find("steel", "monday")
    assert monday is not None
    assert not monday.is_champion


def test_champions_of_many_categories_come_in_pages(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PAGE", 4)
    for index in range(11):
        name = f"nightshift.c{index:02d}"
        client.create_registered_model(name)
        for number in (1, 2):
            tags = {"nightshift.digest": f"{index}-{number}"}
            client.create_model_version(name, source="file:///none", tags=tags)
        if index != 5:
            client.set_registered_model_alias(name, "champion", str(1 + index % 2))
    client.create_registered_model("nightshiftx.other")
    client.create_model_version("nightshiftx.other", source="file:///none")
    client.set_registered_model_alias("nightshiftx.other", "champion", "1")
    found = models.champions()
    assert sorted(found) == [f"c{index:02d}" for index in range(11) if index != 5]
    assert {name: champion.digest for name, champion in found.items()} == {
        f"c{index:02d}": f"{index}-{1 + index % 2}" for index in range(11) if index != 5
    }
    assert all(champion.is_champion for champion in found.values())


def test_a_download_is_the_package_that_was_registered(
    client: MlflowClient, folder: Path, tmp_path: Path
) -> None:
    version = models.register("steel", "key", folder)
    place = models.download(version, tmp_path / "download")
    for name in DECIDING_FILES:
        assert (place / name).read_bytes() == (folder / name).read_bytes()


def test_a_version_that_nightshift_did_not_register_is_refused(
    client: MlflowClient, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "model.txt").write_text("no package")
    client.create_registered_model("nightshift.steel")
    client.create_model_version("nightshift.steel", source=str(foreign))
    client.set_registered_model_alias("nightshift.steel", "champion", "1")
    (champion,) = models.champions().values()
    with pytest.raises(
        PackageError, match=r"nightshift\.steel version 1 holds no Nightshift package"
    ):
        models.download(champion, tmp_path / "download")


def test_a_package_that_was_deleted_is_its_categorys_trouble_while_mlflow_answers(
    folder: Path, client: MlflowClient, tmp_path: Path
) -> None:
    made = models.register("steel", "key", folder)
    model = client.get_model_version(made.name, made.version).source.removeprefix("models:/")
    shutil.rmtree(client.get_logged_model(model).artifact_location)
    with pytest.raises(PackageError, match=r"nightshift\.steel version 1 holds no Nightshift pack"):
        models.download(made, tmp_path / "download")


def test_connecting_sets_an_empty_database_up_once(client: MlflowClient, tmp_path: Path) -> None:
    assert connection.connect(ONBOARDINGS) == f"sqlite:///{tmp_path}/mlflow.db"
    connection.connect(ONBOARDINGS)
    (experiment,) = client.search_experiments(filter_string="name = 'nightshift'")
    assert experiment.artifact_location == str(tmp_path / "mlartifacts")
