"""Runs and registered models in MLflow.

Everything is get-or-create: an onboarding that is killed here and started again finds its run by
tag, its version by run, and leaves one of each.
"""

import logging
import threading
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from pipeline.package import (
    EXAMPLES_FOLDER,
    OnboardingRecord,
    Package,
    PackageError,
    package_digest,
)
from pipeline.registry.tracking import RegistryError, connect, experiment_id, flat, mlflow_errors

logger = logging.getLogger(__name__)

CHAMPION, CHALLENGER = "champion", "challenger"
KEY_TAG, DIGEST_TAG, CATEGORY_TAG = "nightshift.key", "nightshift.digest", "nightshift.category"
PAGE = 1000
_MODEL_FILE = threading.Lock()  # MLflow runs the model's file, and notes globally what it gave
MODEL_PREFIX = "nightshift."
TRIAL_PREFIX = "doctor-"  # not ours, so that no listing of categories meets it


@dataclass(frozen=True, kw_only=True)
class RegisteredVersion:
    """One version of one category's registered model."""

    category: str
    name: str  # nightshift.<category>
    version: str
    digest: str
    is_champion: bool
    is_new: bool = False  # made by this call


def model_name(category: str) -> str:
    """Return the registered model's name of a category."""
    return f"{MODEL_PREFIX}{category}"


def find(category: str, key: str) -> RegisteredVersion | None:
    """Return the version that an onboarding of this key registered, if it got that far."""
    with mlflow_errors():
        client = MlflowClient()
        run = _find_run(client, key)
        if run is None or run.info.status != "FINISHED":
            return None
        version = _find_version(client, category, run.info.run_id)
        return _describe(client, version) if version is not None else None


def register(category: str, key: str, folder: Path) -> RegisteredVersion:
    """Log a package's run and register its detector as the category's challenger."""
    package = Package.read(folder)
    with mlflow_errors():
        client = MlflowClient()
        run = _find_run(client, key) or _create_run(client, category, key)
        run_id = run.info.run_id
        params = [Param(name, str(value)[:500]) for name, value in flat(package.record.settings)]
        client.log_batch(run_id, params=params)  # the model takes them over
        version = _find_version(client, category, run_id)
        if version is None:  # before there are metrics: MLflow would ask for each one's history
            tags = _version_tags(package, folder)
            version = _create_version(client, category, run_id, folder, tags)
        _log_record(client, run, package.record, version)
        for picture in sorted((folder / EXAMPLES_FOLDER).glob("*.png")):
            client.log_artifact(run_id, str(picture), EXAMPLES_FOLDER)
        client.set_registered_model_alias(version.name, CHALLENGER, version.version)
        client.set_terminated(run_id, "FINISHED")
        version = client.get_model_version(version.name, version.version)
        described = _describe(client, version)
    return RegisteredVersion(**{**vars(described), "is_new": True})


def promote(version: RegisteredVersion) -> RegisteredVersion:
    """Make a version the champion of its category; one write."""
    with mlflow_errors():
        MlflowClient().set_registered_model_alias(version.name, CHAMPION, version.version)
    logger.info("promoted %s version %s to champion", version.name, version.version)
    return RegisteredVersion(**{**vars(version), "is_champion": True})


def find_version(category: str, number: int) -> RegisteredVersion | None:
    """Return one version of a category by its number, if it is registered; lists nothing."""
    with mlflow_errors():
        client = MlflowClient()
        try:
            version = client.get_model_version(model_name(category), str(number))
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            return None
        return _describe(client, version)


def champions() -> dict[str, RegisteredVersion]:
    """Return every category's champion, from two paged listings however many there are."""
    with mlflow_errors():
        client = MlflowClient()
        pattern = f"name LIKE '{MODEL_PREFIX}%'"
        wanted = {
            (model.name, str(model.aliases[CHAMPION]))
            for model in _pages(client.search_registered_models, filter_string=pattern)
            if CHAMPION in model.aliases
        }
        return {
            version.name.removeprefix(MODEL_PREFIX): _describe(client, version, is_champion=True)
            for version in _pages(client.search_model_versions, filter_string=pattern)
            if (version.name, str(version.version)) in wanted
        }


def try_out() -> None:
    """Register a model without a version and remove it again: the rights of an onboarding.

    Raises:
        RegistryError: the registry refuses.
    """
    name = f"{TRIAL_PREFIX}{uuid.uuid4().hex}"
    with mlflow_errors():
        client = MlflowClient()
        client.create_registered_model(name)
        client.delete_registered_model(name)


def download(version: RegisteredVersion, folder: Path) -> Path:
    """Fetch a version's package into ``folder`` and return where it lies.

    Raises:
        RegistryError: MLflow is away.
        PackageError: it is there, but this package is not.
    """
    try:
        with mlflow_errors():
            root = mlflow.artifacts.download_artifacts(
                artifact_uri=f"models:/{version.name}/{version.version}", dst_path=str(folder)
            )
    except RegistryError as error:
        connect()  # when nobody answers, it is not this version's fault
        raise PackageError(
            f"the files of {version.name} version {version.version} cannot be fetched: {error}"
        ) from error
    found = next(Path(root).rglob("head.safetensors"), None)
    if found is None:
        raise PackageError(
            f"{version.name} version {version.version} holds no Nightshift package: its files "
            f"were deleted, or something else registered it. Move the champion alias to a version "
            f"that Nightshift registered."
        )
    return found.parent


def _find_run(client: MlflowClient, key: str) -> Run | None:
    runs = client.search_runs([experiment_id(client)], f"tags.`{KEY_TAG}` = '{key}'")
    return runs[0] if runs else None


def _create_run(client: MlflowClient, category: str, key: str) -> Run:
    tags = {KEY_TAG: key, CATEGORY_TAG: category}
    return client.create_run(experiment_id(client), tags=tags, run_name=f"onboard {category}")


def _log_record(
    client: MlflowClient, run: Run, record: OnboardingRecord, version: ModelVersion
) -> None:
    """Log curve and metrics; every entry carries the run's start, so twice is once.

    The metrics are the model's too, so that MLflow shows models beside each other.
    """
    run_id, when = run.info.run_id, run.info.start_time
    model_id = str(version.source).removeprefix("models:/")
    metrics = [
        Metric(f"{entry['head']}_{name}", value, when, step)
        for step, entry in enumerate(record.curve)
        for name, value in entry.items()
        if name != "head"
    ]
    scalars = {
        **record.metrics,
        **{f"images_{name}": float(count) for name, count in record.counts.items()},
        **{f"seconds_{name}": seconds for name, seconds in record.timings_s.items()},
        "backbone_images": float(record.backbone_images),
    }
    metrics += [
        Metric(name, value, when, 0, model_id=model_id, run_id=run_id)
        for name, value in scalars.items()
    ]
    for start in range(0, max(len(metrics), 1), PAGE):
        client.log_batch(run_id, metrics=metrics[start : start + PAGE])
    client.set_tag(run_id, "nightshift.dataset_digest", record.dataset_digest)
    client.log_dict(run_id, {"unreadable": list(record.unreadable)}, "unreadable.json")


def _find_version(client: MlflowClient, category: str, run_id: str) -> ModelVersion | None:
    found = client.search_model_versions(f"run_id = '{run_id}'")
    name = model_name(category)
    return next((version for version in found if version.name == name), None)


def _create_version(
    client: MlflowClient, category: str, run_id: str, folder: Path, tags: dict[str, str]
) -> ModelVersion:
    name = model_name(category)
    with _MODEL_FILE, warnings.catch_warnings():
        # MLflow wants a narrower type than "image or URI", and undoes any filter of warnings.
        warnings.showwarning = lambda *_arguments, **_options: None
        info = Model.log(
            artifact_path=None,
            name="detector",
            flavor=mlflow.pyfunc,
            run_id=run_id,
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"package": str(folder)},
            pip_requirements=["nightshift"],
        )
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, tags={CATEGORY_TAG: category})
    return client.create_model_version(
        name, source=info.model_uri, run_id=run_id, tags=tags, model_id=info.model_id
    )


def _version_tags(package: Package, folder: Path) -> dict[str, str]:
    return {
        DIGEST_TAG: package_digest(folder),
        "nightshift.backbone": package.header.backbone,
        "nightshift.backbone_digest": package.header.backbone_digest,
        "nightshift.dataset_digest": package.record.dataset_digest,
        "nightshift.false_alarm_rate": str(package.calibration.false_alarm_rate),
        "nightshift.threshold": str(package.calibration.threshold),
    }


def _describe(
    client: MlflowClient, version: ModelVersion, is_champion: bool | None = None
) -> RegisteredVersion:
    if is_champion is None:
        aliases = client.get_registered_model(version.name).aliases
        is_champion = str(aliases.get(CHAMPION, "")) == str(version.version)
    return RegisteredVersion(
        category=version.name.removeprefix(MODEL_PREFIX),
        name=version.name,
        version=str(version.version),
        digest=version.tags.get(DIGEST_TAG, ""),
        is_champion=is_champion,
    )


def _pages(search: Any, **query: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(**query, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
