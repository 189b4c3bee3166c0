"""What a laptop's servers are given: free ports and credentials, made up once and kept.

They lie in one file that only this user may read; nothing secret is ever on a command line.
"""

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs.local.process import HOST, free_ports
from jobs.local.s3 import OWNER, OWNER_ACTIONS, PORT_FLAGS, client_environment, make_identity

BUCKETS = ("factory", "dump", "results", "runs", "mlflow")
RIGHTS = Path(__file__).parents[1] / "rights" / "seaweedfs.json"
USER = "nightshift"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that must be the same at the next start."""

    host: str = HOST  # where every server listens
    s3_ports: dict[str, int]
    s3_identities: list[dict[str, object]]
    postgres_port: int
    postgres_password: str
    mlflow_port: int
    mlflow_password: str
    mlflow_session_key: str
    ray_port: int
    ray_client_port: int
    ray_token: str

    def s3_environment(self, identity: str) -> dict[str, str]:
        """AWS_* of one of the identities."""
        endpoint_url = f"http://{self.host}:{self.s3_ports['s3.port']}"
        return client_environment(self.s3_identities, identity, endpoint_url)

    def client_environment(self) -> dict[str, str]:
        """What a shell needs for ``nightshift`` to use these servers."""
        return {
            **self.s3_environment("jobs"),
            **self.ray_environment(),
            "RAY_ADDRESS": f"{self.host}:{self.ray_port}",
            "MLFLOW_TRACKING_URI": f"http://{self.host}:{self.mlflow_port}",
            "MLFLOW_TRACKING_USERNAME": USER,
            "MLFLOW_TRACKING_PASSWORD": self.mlflow_password,
            "NIGHTSHIFT_RUNS": "s3://runs",
        }

    def ray_environment(self) -> dict[str, str]:
        """What every process of the Ray cluster must agree on."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.ray_token}


def load_or_make(path: Path, host: str = HOST) -> Settings:
    """Read the settings of an earlier start, or make them up and keep them."""
    if path.exists():
        return Settings(**json.loads(path.read_text()))
    postgres_port, mlflow_port, ray_port, client_port, *s3_ports = free_ports(4 + len(PORT_FLAGS))
    made = Settings(
        host=host,
        s3_ports=dict(zip(PORT_FLAGS, s3_ports, strict=True)),
        s3_identities=_identities(),
        postgres_port=postgres_port,
        postgres_password=secrets.token_urlsafe(24),
        mlflow_port=mlflow_port,
        mlflow_password=secrets.token_urlsafe(24),
        mlflow_session_key=secrets.token_urlsafe(24),
        ray_port=ray_port,
        ray_client_port=client_port,
        ray_token=secrets.token_hex(32),
    )
    write_private(path, json.dumps(asdict(made), indent=1))
    return made


def _identities() -> list[dict[str, object]]:
    """The owner, who makes buckets; one per role; and ``jobs``: all that one cluster runs."""
    rights = json.loads(RIGHTS.read_text())
    rights["jobs"] = rights["onboard"] + rights["night"]
    rights[OWNER] = OWNER_ACTIONS
    return [make_identity(name, actions) for name, actions in rights.items()]


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user may read, from its first byte on."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)
