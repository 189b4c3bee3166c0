"""The fields of KubeRay's resources that manifests may use, and their types; no others.

Written from the API of KubeRay 1.5 and later (ray.io/v1). Pod templates inside are checked as the
pods of a Deployment, by Kubernetes' own schema.
"""

from collections.abc import Callable, Mapping
from typing import Any

Findings = list[str]
Field = Callable[[Any, str], Findings]


def kind_of(*types: type) -> Field:
    """A value of one of these types; True is no number."""

    def check(value: Any, where: str) -> Findings:
        wrong = type(value) not in types
        return [f"{where}: {value!r} is no {types[0].__name__}"] if wrong else []

    return check


def one_of(*values: str) -> Field:
    """One of these words."""
    return lambda value, where: [] if value in values else [f"{where}: {value!r} not in {values}"]


def texts(value: Any, where: str) -> Findings:
    """A map of texts to texts."""
    if not isinstance(value, dict):
        return [f"{where}: {value!r} is no map"]
    return [
        f"{where}.{key}: {text!r} is no text"
        for key, text in value.items()
        if type(text) is not str
    ]


def record(fields: Mapping[str, Field], needed: set[str] | None = None) -> Field:
    """A map with these fields and no others."""

    def check(value: Any, where: str) -> Findings:
        if not isinstance(value, dict):
            return [f"{where}: {value!r} is no map"]
        found = [f"{where}.{name}: unknown field" for name in value.keys() - fields.keys()]
        found += [f"{where}.{name}: missing" for name in (needed or set()) - value.keys()]
        for name in value.keys() & fields.keys():
            found += fields[name](value[name], f"{where}.{name}")
        return found

    return check


def each(field: Field) -> Field:
    """A list of such values."""

    def check(value: Any, where: str) -> Findings:
        if not isinstance(value, list):
            return [f"{where}: {value!r} is no list"]
        return [finding for i, item in enumerate(value) for finding in field(item, f"{where}[{i}]")]

    return check


def anything(value: Any, where: str) -> Findings:
    """What Kubernetes' own schema checks elsewhere."""
    return []


TEXT, WHOLE, NUMBER, YES_NO = kind_of(str), kind_of(int), kind_of(float, int), kind_of(bool)
AUTOSCALER = record(
    {
        "resources": anything,
        "image": TEXT,
        "env": anything,
        "idleTimeoutSeconds": WHOLE,
        "upscalingMode": one_of("Default", "Aggressive", "Conservative"),
        "version": one_of("v1", "v2"),
    }
)
HEAD = record(
    {"serviceType": TEXT, "rayStartParams": texts, "template": anything},
    {"rayStartParams", "template"},
)
WORKERS = record(
    {
        "groupName": TEXT,
        "replicas": WHOLE,
        "minReplicas": WHOLE,
        "maxReplicas": WHOLE,
        "numOfHosts": WHOLE,
        "idleTimeoutSeconds": WHOLE,
        "suspend": YES_NO,
        "rayStartParams": texts,
        "template": anything,
    },
    {"groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"},
)
CLUSTER = record(
    {
        "rayVersion": TEXT,
        "suspend": YES_NO,
        "authOptions": record({"mode": one_of("token", "disabled"), "secretName": TEXT}),
        "enableInTreeAutoscaling": YES_NO,
        "autoscalerOptions": AUTOSCALER,
        "headServiceAnnotations": texts,
        "headGroupSpec": HEAD,
        "workerGroupSpecs": each(WORKERS),
    },
    {"headGroupSpec"},
)
JOB = record(
    {
        "entrypoint": TEXT,
        "entrypointNumCpus": NUMBER,
        "entrypointNumGpus": NUMBER,
        "clusterSelector": texts,
        "rayClusterSpec": CLUSTER,
        "activeDeadlineSeconds": WHOLE,
        "backoffLimit": WHOLE,
        "submitterConfig": record({"backoffLimit": WHOLE}),
        "submissionMode": one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
        "shutdownAfterJobFinishes": YES_NO,
        "ttlSecondsAfterFinished": WHOLE,
        "runtimeEnvYAML": TEXT,
        "suspend": YES_NO,
        "metadata": texts,
        "jobId": TEXT,
    }
)
CRON_JOB = record(
    {
        "schedule": TEXT,
        "concurrencyPolicy": one_of("Allow", "Forbid", "Replace"),
        "suspend": YES_NO,
        "jobTemplate": JOB,
    },
    {"schedule", "jobTemplate"},
)
METADATA = record(
    {
        "name": TEXT,
        "generateName": TEXT,
        "namespace": TEXT,
        "labels": texts,
        "annotations": texts,
    }
)
SPECS = {"RayCluster": CLUSTER, "RayJob": JOB, "RayCronJob": CRON_JOB}


def findings(document: dict[str, Any]) -> Findings:
    """Everything that is wrong with one of KubeRay's resources."""
    kind = document["kind"]
    fields = {
        "apiVersion": one_of("ray.io/v1"),
        "kind": one_of(*SPECS),
        "metadata": METADATA,
        "spec": SPECS[kind],
    }
    return record(fields, set(fields))(document, kind)


def pod_templates(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod templates of a RayCluster."""
    if document["kind"] != "RayCluster":
        return []
    spec = document["spec"]
    groups = [spec["headGroupSpec"], *spec.get("workerGroupSpecs", [])]
    return [group["template"] for group in groups]
