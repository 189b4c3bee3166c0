"""The files under infra/: what can be proved of them without a container engine."""

import json
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

INFRA = Path(__file__).resolve().parents[1] / "infra"
SERVICES = {
    *("object-store", "buckets", "postgres", "mlflow", "ray-head", "ray-worker"),
    *("prometheus", "grafana"),
}
SERVICE_KEYS = {
    *("image", "build", "command", "environment", "secrets", "configs", "volumes", "ports"),
    *("healthcheck", "depends_on", "restart", "shm_size"),
}
METRICS = {
    "ray_nightshift_images_total",
    "ray_nightshift_flagged_images_total",
    "ray_nightshift_queue_images",
    "ray_nightshift_stage_seconds_bucket",
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text())
    return document


def test_the_dockerfile_passes_its_linter() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, INFRA / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_runs_as_nobody_special_and_is_checked() -> None:
    lines = (INFRA / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER 1000:1000"]
    stages = [line for line in lines if line.startswith("FROM ")]
    assert stages == ["FROM ${BASE} AS build", "FROM ${BASE}"]
    text = "\n".join(lines)
    assert "--constraint constraints.txt" in text
    assert "check_names.py" in text
    assert "HEALTHCHECK" in text


def test_the_image_gets_nothing_but_what_it_copies() -> None:
    ignored = (INFRA / "Dockerfile.dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", (INFRA / "Dockerfile").read_text(), re.M)
    sources = {name for line in copied for name in line.split()}
    assert sources == allowed
    assert all((INFRA.parent / name).exists() for name in sources)


def write_process(root: Path, pid: int, name: str, command: str) -> None:
    (root / str(pid)).mkdir(parents=True)
    (root / str(pid) / "comm").write_text(f"{name}\n")
    (root / str(pid) / "cmdline").write_bytes(command.replace(" ", "\0").encode())


@pytest.mark.parametrize(
    ("command", "others", "healthy"),
    [
        ("/opt/nightshift/bin/python /opt/nightshift/bin/ray start --head", ["raylet"], True),
        ("/opt/nightshift/bin/python /opt/nightshift/bin/ray start --head", ["gcs_server"], False),
        ("ray start --block", [], False),
        ("nightshift score s3://dump", [], True),
    ],
)
def test_a_ray_container_is_as_healthy_as_its_raylet(
    tmp_path: Path, command: str, others: list[str], healthy: bool
) -> None:
    write_process(tmp_path, 1, "python", command)
    for pid, name in enumerate(others, 2):
        write_process(tmp_path, pid, name, name)
    code = (INFRA / "image/health.py").read_text().replace('"/proc"', f'"{tmp_path}"')
    done = subprocess.run([sys.executable, "-c", code], timeout=30, check=False)
    assert (done.returncode == 0) is healthy


def install(site: Path, name: str, files: list[str]) -> None:
    """What an installer leaves of a distribution."""
    about = f"{name}-1.0.dist-info"
    names = [*files, f"{about}/METADATA", f"{about}/RECORD", "../../../bin/nightshift"]
    for file in [*files, f"{about}/RECORD"]:
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).touch()
    (site / about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (site / about / "RECORD").write_text("".join(f"{file},,\n" for file in names))


OURS = ["model/__init__.py", "pipeline/__init__.py", "jobs/cli/app.py"]


@pytest.mark.parametrize(
    ("ours", "theirs", "code", "said"),
    [
        (OURS, ["other/x.py"], 0, "only jobs, model, pipeline"),
        ([*OURS, "tests/x.py"], [], 1, "brought along: ['tests']"),
        (OURS, ["model/x.py"], 1, "not ours alone: {'model'"),
        (OURS[:2], [], 1, "'jobs': None"),
    ],
)
def test_an_image_with_other_import_names_is_refused(
    tmp_path: Path, ours: list[str], theirs: list[str], code: int, said: str
) -> None:
    install(tmp_path, "nightshift", ours)
    install(tmp_path, "other", theirs)
    done = subprocess.run(
        [sys.executable, "-S", INFRA / "image/check_names.py"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, said in done.stdout) == (code, True), done.stdout + done.stderr


def test_compose_has_each_service_with_known_keys_and_a_health_check(
    compose: dict[str, Any],
) -> None:
    assert set(compose["services"]) == SERVICES
    for name, service in compose["services"].items():
        assert set(service) <= SERVICE_KEYS, name
        assert name == "buckets" or {"test", "interval", "timeout"} <= set(service["healthcheck"])
        for other in service.get("depends_on", []):
            assert other in SERVICES


def test_what_compose_refers_to_is_there(compose: dict[str, Any]) -> None:
    named = {
        kind: {
            entry.split(":")[0] if isinstance(entry, str) else entry["source"]
            for service in compose["services"].values()
            for entry in service.get(kind, [])
        }
        for kind in ("volumes", "configs", "secrets")
    }
    folders = {name for name in named["volumes"] if name.startswith("./")}
    assert all((INFRA / name).exists() for name in folders)
    assert named["volumes"] - folders == set(compose["volumes"])
    assert named["configs"] == set(compose["configs"])
    assert named["secrets"] == set(compose["secrets"])


def test_every_port_is_published_on_loopback(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) >= 5
    assert all(port.startswith("127.0.0.1:") for port in ports)


def run_make_env(root: Path) -> dict[str, str]:
    subprocess.run([sys.executable, root / "make_env.py"], check=True, capture_output=True)
    lines = (root / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_credentials_are_made_once_and_are_the_ones_that_compose_needs(tmp_path: Path) -> None:
    shutil.copy(INFRA / "make_env.py", tmp_path)
    shutil.copytree(INFRA / "rights", tmp_path / "rights")
    made = run_make_env(tmp_path)
    needed = set(re.findall(r"\$\{([A-Z0-9_]+)", (INFRA / "compose.yaml").read_text()))
    assert needed == set(made)
    assert len(set(made.values())) == len(made)
    for name in (".env", "s3.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    identities = json.loads((tmp_path / "s3.json").read_text())["identities"]
    keys = {entry["name"]: entry["credentials"][0]["secretKey"] for entry in identities}
    assert keys == {name: made[f"S3_{name.upper()}_SECRET"] for name in keys}
    assert run_make_env(tmp_path) == made


def test_git_ignores_every_file_with_credentials() -> None:
    names = ["infra/.env", "infra/s3.json", "nightshift-laptop/settings.json"]
    done = subprocess.run(
        ["git", "check-ignore", *names],
        cwd=INFRA.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == names


def test_the_dashboard_shows_what_the_jobs_export() -> None:
    board = json.loads((INFRA / "grafana/dashboards/nightshift.json").read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    used = {name for text in expressions for name in re.findall(r"ray_\w+", text)}
    assert used == METRICS
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) == 6
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]}
    assert len(places) == 6
    [source] = yaml.safe_load(
        (INFRA / "grafana/provisioning/datasources/prometheus.yaml").read_text()
    )["datasources"]
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {source["uid"]}


def test_each_alert_is_explained_in_the_guide() -> None:
    [group] = yaml.safe_load((INFRA / "alerts.yaml").read_text())["groups"]
    guide = (INFRA / "README.md").read_text()
    used = {name for rule in group["rules"] for name in re.findall(r"ray_\w+", rule["expr"])}
    assert used <= METRICS
    for rule in group["rules"]:
        assert f"**{rule['alert']}**" in guide
        assert rule["labels"]["severity"] in ("page", "ticket")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed")
@pytest.mark.parametrize("check", [["rules", "alerts.yaml"], ["config", "prometheus.yaml"]])
def test_prometheus_takes_its_files(check: list[str]) -> None:
    kind, name = check
    done = subprocess.run(
        ["promtool", "check", kind, INFRA / name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
