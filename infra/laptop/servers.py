"""The servers of a laptop: object store, database, MLflow, Ray head and worker."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from infra.laptop.process import LaptopError, Server
from infra.laptop.settings import USER, Settings, write_private
from jobs.cluster.session_folder import sockets_fit
from jobs.local.s3 import find_weed, has_storage, http_get, server_arguments, write_config

POSTGRES_PACKAGES = Path("/usr/lib/postgresql")  # Debian keeps its programs off the PATH
POSTGRES_USER = "postgres"  # the database refuses to run as root


@dataclass(frozen=True, kw_only=True)
class Database:
    """Where MLflow keeps its tables."""

    uri: str
    server: Server | None
    reason: str = ""  # why there is no PostgreSQL


def object_store(home: Path, settings: Settings) -> Server:
    """SeaweedFS; what it stores stays from one start to the next."""
    home.mkdir(exist_ok=True)
    if not (home / "s3.json").exists():
        write_config(home, settings.s3_identities)
    ports, host = settings.s3_ports, settings.host

    def healthy() -> bool:
        _, topology = http_get(ports["master.port"], "/dir/status", host)
        return http_get(ports["s3.port"], "/", host)[0] == 403 and has_storage(topology)

    return Server(
        name="object-store",
        command=[str(find_weed()), *server_arguments(home, ports, host)],
        home=home,
        environment={"HOME": str(home)},
        healthy=healthy,
    )


def database(home: Path, settings: Settings) -> Database:
    """PostgreSQL where it is installed and can be used, else SQLite, with the reason."""
    fallback = f"sqlite:///{home.parent}/mlflow.db"
    programs = _postgres_programs()
    if programs is None:
        reason = "PostgreSQL is not installed (Debian: apt-get install postgresql)"
        return Database(uri=fallback, server=None, reason=reason)
    user = POSTGRES_USER if os.getuid() == 0 else None
    try:
        _prepare_cluster(programs, home, user, settings)
    except (OSError, KeyError, LaptopError) as error:
        return Database(uri=fallback, server=None, reason=f"PostgreSQL cannot be used: {error}")
    return Database(uri=_uri(settings), server=_postgres(programs, home, user, settings))


def _postgres(programs: Path, home: Path, user: str | None, settings: Settings) -> Server:
    port = str(settings.postgres_port)
    ready = [str(programs / "pg_isready"), "-q", "-h", settings.host, "-p", port, "-d", "postgres"]
    options = {
        "listen_addresses": settings.host,
        "port": port,
        "unix_socket_directories": "",
        "password_encryption": "scram-sha-256",
    }
    return Server(
        name="postgres",
        command=[
            str(programs / "postgres"),
            *("-D", str(home / "data")),
            *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
        ],
        home=home,
        environment={"LC_ALL": "C.UTF-8"},
        healthy=lambda: subprocess.run(ready, check=False).returncode == 0,  # noqa: S603
        end_by=signal.SIGINT,  # "fast": it does not wait for its clients
        user=user,
    )


def _uri(settings: Settings) -> str:
    password = quote(settings.postgres_password, safe="")
    return (
        f"postgresql+psycopg2://{USER}:{password}@{settings.host}:{settings.postgres_port}/postgres"
    )


def _postgres_programs() -> Path | None:
    found = shutil.which("postgres")
    if found is not None:
        return Path(found).resolve().parent
    versions = sorted(POSTGRES_PACKAGES.glob("*/bin/postgres"), key=lambda path: path.parts[-3])
    return versions[-1].parent if versions else None


def _prepare_cluster(programs: Path, home: Path, user: str | None, settings: Settings) -> None:
    """Make the database's files on first use, owned by the user who will run it."""
    home.mkdir(exist_ok=True)
    if user is not None:
        shutil.chown(home, user)
    if (home / "data" / "PG_VERSION").exists():
        return
    password = home / "password"
    write_private(password, settings.postgres_password)
    if user is not None:
        shutil.chown(password, user)
    command = [str(programs / "initdb"), "-D", str(home / "data"), "-U", USER]
    command += [f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
    try:
        done = subprocess.run(  # noqa: S603
            command, cwd=home, user=user, capture_output=True, text=True, check=False
        )
    finally:
        password.unlink()
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise LaptopError(f"initdb in {home}: {said}")
    with (home / "data" / "pg_hba.conf").open("a") as rules:  # beyond loopback: same network only
        rules.write("host all all samenet scram-sha-256\n")


def mlflow(home: Path, settings: Settings, database_uri: str) -> Server:
    """The tracking server, with authentication; artifacts go through it to the object store."""
    home.mkdir(exist_ok=True)
    auth = home / "auth.ini"
    accounts = f"sqlite:///{home}/accounts.db"
    write_private(auth, f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {accounts}\n")
    port = settings.mlflow_port
    return Server(
        name="mlflow",
        command=[
            *(sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth"),
            *("--host", settings.host, "--port", str(port), "--workers", "1"),
        ],
        home=home,
        environment={
            **settings.s3_environment("mlflow"),
            "MLFLOW_BACKEND_STORE_URI": database_uri,
            "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow",
            "MLFLOW_AUTH_CONFIG_PATH": str(auth),
            "MLFLOW_AUTH_ADMIN_USERNAME": USER,
            "MLFLOW_AUTH_ADMIN_PASSWORD": settings.mlflow_password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": settings.mlflow_session_key,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 0.7 GB for what nobody here uses
        },
        healthy=lambda: http_get(port, "/health", settings.host)[0] == 200,
    )


def ray_nodes(home: Path, logs: Path, settings: Settings) -> Iterator[Server]:
    """A head that only leads and a worker with all CPUs, as on a cluster."""
    home.mkdir(exist_ok=True)
    address = f"{settings.host}:{settings.ray_port}"
    ray = shutil.which("ray", path=sysconfig.get_path("scripts")) or "ray"
    shared = [f"--node-ip-address={settings.host}", "--block", "--disable-usage-stats"]
    shared += ["--min-worker-port=0", "--max-worker-port=0"]
    environment = {**settings.s3_environment("jobs"), **settings.ray_environment()}
    scratch = Path(tempfile.gettempdir(), f"nightshift-{settings.ray_port}")  # home may be deep
    if not sockets_fit(scratch):
        scratch = Path("/tmp", scratch.name)  # noqa: S108  where Ray goes by itself
    roles = {
        "ray-head": ["--head", f"--port={settings.ray_port}", "--num-cpus=0"],
        "ray-worker": [f"--address={address}", f"--num-cpus={os.cpu_count()}"],
    }
    for name, options in roles.items():
        if name == "ray-head":
            options += ["--include-dashboard=false", f"--temp-dir={scratch}"]
            if find_spec("grpc"):  # or Ray takes port 10001, which another cluster may have
                options += [f"--ray-client-server-port={settings.ray_client_port}"]
        yield Server(
            name=name,
            command=[ray, "start", *options, *shared],
            home=home,
            environment=environment,
            healthy=partial(_has_joined, logs / f"{name}.log", settings),
        )


def _has_joined(log: Path, settings: Settings) -> bool:
    """A head that listens can be joined; a worker says when it has."""
    if log.stem == "ray-head":
        with socket.socket() as probe:
            return probe.connect_ex((settings.host, settings.ray_port)) == 0
    return "Ray runtime started" in log.read_text(errors="replace")
