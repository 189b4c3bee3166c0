"""The Kubernetes manifests: rendered, valid with unknown fields refused, and safe by default."""

import copy
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml
from kuberay import findings, pod_templates
from web_server import Quiet, serving

from jobs.cli import app

ROOT = Path(__file__).resolve().parents[1] / "infra/kubernetes"
OVERLAYS = ["base", "overlays/dev", "overlays/gpu", "overlays/raycronjob"]
KUBERNETES = "1.32"
GIB = 2**30
MEASURED_WORKER_BYTES = 1_100_000_000  # resident, ResNet-18
CACHE_BYTES = 4_000_000_000  # cache_gb

Document = dict[str, Any]
needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed: it renders the overlays"
)
pytestmark = needs_kubectl


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[Document]]:
    """Every overlay's resources."""
    answer = {}
    for overlay in OVERLAYS:
        done = subprocess.run(
            ["kubectl", "kustomize", ROOT / overlay],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answer[overlay] = list(yaml.safe_load_all(done.stdout))
    return answer


def jobs_by_hand() -> list[Document]:
    return [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "jobs").glob("*.yaml"))]


def every(rendered: dict[str, list[Document]]) -> Iterator[Document]:
    for documents in rendered.values():
        yield from documents
    yield from jobs_by_hand()
    yield json.loads((ROOT / "base/night.json").read_text())


def is_rays(document: Document) -> bool:
    return bool(document["apiVersion"].startswith("ray.io/"))


def as_deployment(template: Document) -> Document:
    """A pod template where Kubernetes' schema can see it."""
    template = copy.deepcopy(template)
    template.setdefault("metadata", {}).setdefault("labels", {})["app"] = "x"
    spec = {"selector": {"matchLabels": {"app": "x"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": spec}


def templates(document: Document) -> list[Document]:
    spec = document.get("spec", {})
    if document["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    found = [spec["template"]] if "template" in spec and not is_rays(document) else []
    return found + (pod_templates(document) if is_rays(document) else [])


def pods(rendered: dict[str, list[Document]]) -> Iterator[Document]:
    for document in every(rendered):
        for template in templates(document):
            yield template["spec"]


def one(documents: list[Document], kind: str) -> Document:
    [found] = [document for document in documents if document["kind"] == kind]
    return found


def test_kubernetes_own_schema_takes_every_resource(rendered: dict[str, list[Document]]) -> None:
    for document in every(rendered):
        if not is_rays(document):
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        for template in templates(document):
            kubernetes_validate.validate(as_deployment(template), KUBERNETES, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_refused(
    rendered: dict[str, list[Document]],
) -> None:
    cluster = one(rendered["base"], "RayCluster")
    wrong = as_deployment(pod_templates(cluster)[0])
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePullPolice"):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_kuberays_resources_have_known_fields_of_known_types(
    rendered: dict[str, list[Document]],
) -> None:
    rays = [document for document in every(rendered) if is_rays(document)]
    assert {document["kind"] for document in rays} == {"RayCluster", "RayJob", "RayCronJob"}
    assert [finding for document in rays for finding in findings(document)] == []


@pytest.mark.parametrize(
    ("path", "value", "finding"),
    [
        (["spec", "minReplica"], 1, "RayCluster.spec.minReplica: unknown field"),
        (["spec", "rayVersion"], 2.60, "RayCluster.spec.rayVersion: 2.6 is no str"),
        (["spec", "authOptions", "mode"], "tokn", "not in"),
        (["spec", "headGroupSpec", "rayStartParams", "num-cpus"], 0, "0 is no text"),
    ],
)
def test_what_kuberay_would_refuse_is_a_finding(
    rendered: dict[str, list[Document]], path: list[str], value: Any, finding: str
) -> None:
    wrong = copy.deepcopy(one(rendered["base"], "RayCluster"))
    place = wrong
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    [found] = findings(wrong)
    assert finding in found


def test_every_container_gives_up_what_it_does_not_need(
    rendered: dict[str, list[Document]],
) -> None:
    for pod in pods(rendered):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])


def test_secrets_come_by_reference_alone(rendered: dict[str, list[Document]]) -> None:
    for pod in pods(rendered):
        for container in pod["containers"]:
            for variable in container.get("env", []):
                secret = re.search(r"SECRET|PASSWORD|TOKEN|KEY|BACKEND", variable["name"])
                assert not (secret and "value" in variable), variable["name"]
    assert not [document for document in every(rendered) if document["kind"] == "Secret"]


def gibibytes(quantity: str) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)(Gi|Mi)", quantity).groups()  # type: ignore[union-attr]
    return float(number) * {"Gi": 1, "Mi": 1 / 1024}[unit]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_worker_has_room_for_what_was_measured(
    rendered: dict[str, list[Document]], overlay: str
) -> None:
    cluster = one(rendered[overlay], "RayCluster")
    for group in cluster["spec"]["workerGroupSpecs"]:
        [container] = group["template"]["spec"]["containers"]
        memory = gibibytes(container["resources"]["requests"]["memory"]) * GIB
        shared = [v["emptyDir"] for v in group["template"]["spec"]["volumes"] if "emptyDir" in v]
        in_memory = sum(gibibytes(v["sizeLimit"]) for v in shared if v.get("medium") == "Memory")
        assert memory >= CACHE_BYTES + in_memory * GIB
        assert memory >= MEASURED_WORKER_BYTES + in_memory * GIB
        assert 1 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_workers_of_the_gpu_overlay_have_a_gpu_each(rendered: dict[str, list[Document]]) -> None:
    [group] = one(rendered["overlays/gpu"], "RayCluster")["spec"]["workerGroupSpecs"]
    [container] = group["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert int(container["resources"]["requests"]["cpu"]) >= 4


def test_workers_know_nothing_of_mlflow(rendered: dict[str, list[Document]]) -> None:
    [group] = one(rendered["base"], "RayCluster")["spec"]["workerGroupSpecs"]
    assert group["template"]["spec"]["automountServiceAccountToken"] is False
    assert "mlflow" not in json.dumps(group)


def test_two_nights_never_run_at_once(rendered: dict[str, list[Document]]) -> None:
    night = one(rendered["base"], "CronJob")["spec"]
    assert night["concurrencyPolicy"] == "Forbid"
    job = json.loads((ROOT / "base/night.json").read_text())["spec"]
    assert 0 < job["activeDeadlineSeconds"] < night["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    assert night["jobTemplate"]["spec"]["backoffLimit"] > 0
    assert (
        one(rendered["overlays/raycronjob"], "RayCronJob")["spec"]["concurrencyPolicy"] == "Forbid"
    )
    kinds = [document["kind"] for document in rendered["overlays/raycronjob"]]
    assert not {"CronJob", "Role", "RoleBinding"} & set(kinds)


def test_the_night_may_create_and_get_rayjobs_and_no_more(
    rendered: dict[str, list[Document]],
) -> None:
    role = one(rendered["base"], "Role")
    assert role["rules"] == [
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get"]}
    ]
    binding = one(rendered["base"], "RoleBinding")
    account = one(rendered["base"], "ServiceAccount")["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == [account]
    pod = one(rendered["base"], "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == account


def test_nobody_is_let_in_by_default(rendered: dict[str, list[Document]]) -> None:
    policies = {
        document["metadata"]["name"]: document["spec"]
        for document in rendered["base"]
        if document["kind"] == "NetworkPolicy"
    }
    assert policies.pop("nobody-by-default") == {"podSelector": {}, "policyTypes": ["Ingress"]}
    guarded = [policy["podSelector"]["matchLabels"] for policy in policies.values()]
    cluster = one(rendered["base"], "RayCluster")["metadata"]["name"]
    assert guarded == [{"app": "mlflow"}, {"app": "postgres"}, {"ray.io/cluster": cluster}]


def commands(rendered: dict[str, list[Document]]) -> set[str]:
    text = json.dumps([d["spec"] for d in every(rendered) if d["kind"] in ("RayJob", "RayCronJob")])
    return set(re.findall(r"nightshift ([a-z]+) s3:", text))


def test_the_commands_of_the_jobs_exist(rendered: dict[str, list[Document]]) -> None:
    known = set(typer.main.get_command(app.app).commands)  # type: ignore[attr-defined]
    assert commands(rendered) == {"score", "onboard", "tune"}
    assert commands(rendered) <= known


@pytest.fixture(scope="module")
def night() -> ModuleType:
    """The night's script; pods run it as a file, so it is no module of any package."""
    spec = importlib.util.spec_from_file_location("night_script", ROOT / "base/night.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["night_script"] = module
    spec.loader.exec_module(module)
    return module


class Kubernetes(Quiet):
    """Keeps RayJobs by name and lets each run through the states it was given."""

    jobs: dict[str, Document]
    states: list[str | int]
    tokens: set[str]

    def do_POST(self) -> None:
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = job["metadata"]["name"]
        self.tokens.add(self.headers["Authorization"])
        if name in self.jobs:
            self.answer(409, {})
        else:
            self.jobs[name] = job
            self.answer(201, job)

    def do_GET(self) -> None:
        state = self.states.pop(0)
        if isinstance(state, int):
            self.answer(state, {})
        else:
            self.answer(200, {"status": {"jobDeploymentStatus": state}})

    def answer(self, code: int, body: Document) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())


@pytest.fixture
def kubernetes() -> Iterator[tuple[type[Kubernetes], str]]:
    class Server(Kubernetes):
        jobs: dict[str, Document] = {}  # noqa: RUF012
        states: list[str | int] = []  # noqa: RUF012
        tokens: set[str] = set()  # noqa: RUF012

    with serving(Server) as place:
        yield Server, f"http://{place}/rayjobs"


TEMPLATE = (ROOT / "base/night.json").read_text()


def test_a_night_creates_one_rayjob_of_its_date_and_waits(
    night: ModuleType, kubernetes: tuple[type[Kubernetes], str]
) -> None:
    server, url = kubernetes
    server.states[:] = ["", "Running", 503, "Running", "Complete"]
    assert night.run_night(night.Api(url, "t0ken", None), TEMPLATE, "2026-03-12", 0.01) == 0
    [(name, job)] = server.jobs.items()
    assert name == "night-2026-03-12"
    assert "--night 2026-03-12" in job["spec"]["entrypoint"]
    assert "s3://dump/2026-03-12/" in job["spec"]["entrypoint"]
    assert findings(job) == []
    assert server.tokens == {"Bearer t0ken"}
    assert server.states == []


def test_a_pod_that_is_started_again_waits_for_the_same_rayjob(
    night: ModuleType, kubernetes: tuple[type[Kubernetes], str]
) -> None:
    server, url = kubernetes
    server.states[:] = ["Complete", "Failed"]
    api = night.Api(url, "t0ken", None)
    assert night.run_night(api, TEMPLATE, "2026-03-12", 0.01) == 0
    assert night.run_night(api, TEMPLATE, "2026-03-12", 0.01) == 1
    assert list(server.jobs) == ["night-2026-03-12"]


def test_a_rayjob_that_was_deleted_ends_the_wait(
    night: ModuleType, kubernetes: tuple[type[Kubernetes], str]
) -> None:
    server, url = kubernetes
    server.states[:] = ["Running", 404]
    with pytest.raises(OSError, match="404"):
        night.run_night(night.Api(url, "t0ken", None), TEMPLATE, "2026-03-12", 0.01)
