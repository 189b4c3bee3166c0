"""Registered models in MLflow, a version for each onboarding.

Everything is get-or-create: an onboarding that is killed here and started again finds its run by
tag, its version by run, and leaves one of each.
"""

import dataclasses
import json
import logging
import uuid
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import mlflow.pyfunc
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, Schema

from pipeline.inspection.training_summary import TRAINING_IMAGES_FILE, TrainingImages
from pipeline.package import (
    EXAMPLES_FOLDER,
    HEAD_FILE,
    Package,
    PackageError,
    PackageNotRead,
    package_digest,
    read_training_images,
)
from pipeline.registry import aliases, runs
from pipeline.registry.aliases import (
    CHALLENGER,
    CHAMPION,
    MODEL_PREFIX,
    WHICHEVER,
    Reason,
    model_name,
)
from pipeline.registry.connection import (
    RegistryError,
    connect,
    find_experiment,
    if_there,
    mlflow_errors,
    pages,
)
from pipeline.registry.description import describe
from pipeline.registry.runs import CATEGORY_TAG, ImageSet, RunRecord

logger = logging.getLogger(__name__)

DIGEST_TAG = "nightshift.digest"
IMAGES_TAG = "nightshift.training_images"  # where a version's files have TRAINING_IMAGES_FILE
LABELS_TAG = "nightshift.learned_from_labels"
TRIAL_PREFIX = "doctor-"  # not ours, so that no listing of categories meets it
REGISTERED = Reason(by="register", because="the newest version")
ONBOARDED = Reason(by="onboard", because="promoted without a comparison, as asked")
INPUT_EXAMPLE = ["s3://bucket/image.png"]
LOADER = "pipeline.predictor"  # the module that MLflow loads a version by
OUTPUTS = {
    **{"status": "string", "error": "string", "score": "double"},
    **{"p_value": "double", "flagged": "boolean", "threshold": "double"},
}
SIGNATURE = ModelSignature(  # what goes in, an array or a URI, is no type that MLflow could check
    outputs=Schema(
        [ColSpec(kind, name, required=name == "status") for name, kind in OUTPUTS.items()]
    )
)


@dataclass(frozen=True, kw_only=True)
class RegisteredVersion:
    """One version of one category's registered model."""

    category: str
    name: str  # nightshift.<category>
    version: str
    digest: str
    is_champion: bool
    is_new: bool = False  # made by this call
    images_file: str = ""  # among its files, what it says of its training images
    has_learned_from_labels: bool = False


def find(category: str, key: str) -> RegisteredVersion | None:
    """Return the version that an onboarding of this key registered, if it got that far."""
    with mlflow_errors():
        client = MlflowClient()
        experiment = find_experiment(client)
        if experiment is None:  # nothing was onboarded yet
            return None
        run = runs.find_run(client, experiment.experiment_id, key)
        if run is None or run.info.status != "FINISHED":
            return None
        version = _find_version(client, category, run.info.run_id)
        return _registered(client, version) if version is not None else None


def register(
    category: str, key: str, folder: Path, *, as_challenger: bool = True
) -> RegisteredVersion:
    """Log a package's run and register its detector as the category's challenger.

    Args:
        category: its name.
        key: of the run; a second call with it finds what the first made.
        folder: of the package.
        as_challenger: False leaves the alias to the version that has it.
    """
    package = Package.read(folder)
    record = _run_record(category, key, package, folder)
    with mlflow_errors():
        client = MlflowClient()
        run = runs.find_or_create(client, record)
        run_id = run.info.run_id
        runs.log_settings(client, run, record)  # the model takes the parameters over
        version = _find_version(client, category, run_id)
        if version is None:  # before there are metrics: MLflow would ask for each one's history
            version = _create_version(client, record, run_id, package, folder)
        model_id = str(version.source).removeprefix("models:/")
        runs.log_results(client, run, record, model_id)
        if as_challenger:
            aliases.move(client, version.name, CHALLENGER, str(version.version), REGISTERED)
        client.set_terminated(run_id, "FINISHED")
        return dataclasses.replace(_registered(client, version), is_new=True)


def promote(
    version: RegisteredVersion, reason: Reason = ONBOARDED, *, instead_of: str | None = WHICHEVER
) -> RegisteredVersion:
    """Make a version the champion of its category; one write, and one before it that says why.

    Args:
        version: the champion to be.
        reason: what the record says.
        instead_of: the champion it was judged against, a version or None for none. Another
            command may promote meanwhile; one that does so in the very milliseconds between the
            last look and the write goes unseen.

    Raises:
        AliasError: another is champion by now; nothing is written.
    """
    with mlflow_errors():
        client = MlflowClient()
        aliases.refuse_if_moved(client, version.name, CHAMPION, instead_of)
        aliases.move(client, version.name, CHAMPION, version.version, reason)
    logger.info("promoted %s version %s to champion", version.name, version.version)
    return dataclasses.replace(version, is_champion=True)


def find_version(category: str, number: int) -> RegisteredVersion | None:
    """Return one version of a category by its number, if it is registered; lists nothing."""
    with mlflow_errors():
        client = MlflowClient()
        version = if_there(lambda: client.get_model_version(model_name(category), str(number)))
        return None if version is None else _registered(client, version)


def champions() -> dict[str, RegisteredVersion]:
    """Return every category's champion."""
    return with_alias(CHAMPION)


def with_alias(alias: str) -> dict[str, RegisteredVersion]:
    """Return the versions that an alias stands for, from two paged listings however many."""
    with mlflow_errors():
        client = MlflowClient()
        pattern = f"name LIKE '{MODEL_PREFIX}%'"
        models = list(pages(client.search_registered_models, filter_string=pattern))
        of_alias, of_champion = (
            {(model.name, str(model.aliases[name])) for model in models if name in model.aliases}
            for name in (alias, CHAMPION)
        )
        return {
            version.name.removeprefix(MODEL_PREFIX): _registered(
                client, version, is_champion=(version.name, str(version.version)) in of_champion
            )
            for version in pages(client.search_model_versions, filter_string=pattern)
            if (version.name, str(version.version)) in of_alias
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
        PackageNotRead: the package's files could not be fetched this time.
    """
    uri = f"models:/{version.name}/{version.version}"
    try:
        with mlflow_errors():
            root = if_there(lambda: mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
    except RegistryError as error:
        connect()  # when nobody answers, it is not this version's fault
        raise PackageNotRead(
            f"the files of {version.name} version {version.version} could not be fetched: {error}"
        ) from error
    head = next(Path(root).rglob(HEAD_FILE), None) if root else None
    if head is None:
        raise PackageError(
            f"{version.name} version {version.version} holds no Nightshift package: its files "
            f"were deleted or moved, or something else registered it. Move the champion alias to a "
            f"version that Nightshift registered."
        )
    return head.parent


def training_images(version: RegisteredVersion) -> TrainingImages | None:
    """Return what a version says of its training images: one small file; None where it has none.

    Raises:
        RegistryError: MLflow is away, or the file.
        PackageError: it is damaged.
    """
    if not version.images_file:
        return None
    with TemporaryDirectory(prefix="nightshift-images-") as folder, mlflow_errors():
        uri = f"models:/{version.name}/{version.version}/{version.images_file}"
        path = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder)
        return read_training_images(str(Path(path).parent))


def _run_record(category: str, key: str, package: Package, folder: Path) -> RunRecord:
    record = package.record
    pictures = sorted((folder / EXAMPLES_FOLDER).glob("*.png"))
    files = {f"{EXAMPLES_FOLDER}/{path.name}": path.read_bytes() for path in pictures}
    files["unreadable.json"] = json.dumps({"unreadable": list(record.unreadable)}).encode()
    return RunRecord(
        name=f"onboard {category}",
        key=key,
        category=category,
        settings=record.settings,
        metrics={
            **record.metrics,
            **{f"images_{name}": float(count) for name, count in record.counts.items()},
            **{f"seconds_{name}": seconds for name, seconds in record.timings_s.items()},
            "backbone_images": float(record.backbone_images),
            **record.found_by_size,
        },
        curves=[
            (f"{entry['head']}_{name}", value, step)
            for step, entry in enumerate(record.curve)
            for name, value in entry.items()
            if name != "head"
        ]
        + [("defects_found", each["share"], each["size"]) for each in record.defect_sizes],
        files=files,
        images=ImageSet(
            digest=record.dataset_digest, uri=record.settings["images"], counts=record.counts
        ),
    )


def _find_version(client: MlflowClient, category: str, run_id: str) -> ModelVersion | None:
    versions = client.search_model_versions(f"run_id = '{run_id}'")
    name = model_name(category)
    return next((version for version in versions if version.name == name), None)


def _create_version(
    client: MlflowClient, record: RunRecord, run_id: str, package: Package, folder: Path
) -> ModelVersion:
    name = model_name(record.category)
    run = client.get_run(run_id)
    model = client.create_logged_model(  # or MLflow would take its default experiment
        run.info.experiment_id, "detector", source_run_id=run_id, params=run.data.params
    )
    info = Model.log(
        artifact_path=None,
        flavor=mlflow.pyfunc,
        run_id=run_id,
        model_id=model.model_id,
        loader_module=LOADER,
        data_path=str(folder),
        signature=SIGNATURE,
        input_example=INPUT_EXAMPLE,
        pip_requirements=["nightshift"],
    )
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, tags={CATEGORY_TAG: record.category})
    return client.create_model_version(
        name,
        source=info.model_uri,
        run_id=run_id,
        tags=_version_tags(package, folder),
        model_id=info.model_id,
        description=describe(package, record.key),
    )


def _version_tags(package: Package, folder: Path) -> dict[str, str]:
    described = (folder / TRAINING_IMAGES_FILE).exists()
    return {
        DIGEST_TAG: package_digest(folder),
        **({IMAGES_TAG: f"data/{folder.name}/{TRAINING_IMAGES_FILE}"} if described else {}),
        **({LABELS_TAG: "yes"} if package.record.settings.get("labels") else {}),
        "nightshift.backbone": package.header.backbone,
        "nightshift.backbone_digest": package.header.backbone_digest,
        "nightshift.dataset_digest": package.record.dataset_digest,
        "nightshift.false_alarm_rate": str(package.reference.calibration.false_alarm_rate),
        "nightshift.threshold": str(package.reference.calibration.threshold),
    }


def _registered(
    client: MlflowClient, version: ModelVersion, is_champion: bool | None = None
) -> RegisteredVersion:
    if is_champion is None:
        champion = client.get_registered_model(version.name).aliases.get(CHAMPION, "")
        is_champion = str(champion) == str(version.version)
    return RegisteredVersion(
        category=version.name.removeprefix(MODEL_PREFIX),
        name=version.name,
        version=str(version.version),
        digest=version.tags.get(DIGEST_TAG, ""),
        images_file=version.tags.get(IMAGES_TAG, ""),
        has_learned_from_labels=LABELS_TAG in version.tags,
        is_champion=is_champion,
    )
