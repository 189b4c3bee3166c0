"""What the gate has said of a version: kept with it in MLflow, in full as a file of its run."""

import json
from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient

from pipeline.registry.connection import mlflow_errors
from pipeline.registry.models import RegisteredVersion

TAG_PREFIX = "nightshift.gate."  # one for each evidence that was judged


def earlier_verdicts(version: RegisteredVersion) -> dict[str, dict[str, Any]]:
    """Return what was said of a version before, by the digest of the evidence.

    Raises:
        RegistryError: MLflow is away or refuses.
    """
    with mlflow_errors():
        tags = MlflowClient().get_model_version(version.name, version.version).tags
    return {
        name.removeprefix(TAG_PREFIX): json.loads(value)
        for name, value in tags.items()
        if name.startswith(TAG_PREFIX)
    }


def note_verdict(
    version: RegisteredVersion, digest: str, short: Mapping[str, Any], whole: Mapping[str, Any]
) -> None:
    """Keep a verdict; the same evidence again replaces what it said before.

    Args:
        version: the challenger.
        digest: of the evidence.
        short: what later looks and people need, plain values; a tag holds 5000 characters.
        whole: all of it, likewise.

    Raises:
        RegistryError: MLflow is away or refuses.
    """
    with mlflow_errors():
        client = MlflowClient()
        found = client.get_model_version(version.name, version.version)
        if found.run_id:
            client.log_dict(found.run_id, dict(whole), f"gate/{digest}.json")
        client.set_model_version_tag(
            version.name, version.version, f"{TAG_PREFIX}{digest}", json.dumps(short)
        )
