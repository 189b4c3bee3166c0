"""Make up the credentials of ``infra/compose.yaml``: ``python infra/make_env.py``.

Writes infra/.env and infra/s3.json, which git ignores and only this user may read. What is there
already stays: a database keeps the password it was made with.
"""

import json
import secrets
import sys
from pathlib import Path

HERE = Path(__file__).parent
SECRETS = (
    "POSTGRES_PASSWORD",
    "MLFLOW_PASSWORD",
    "MLFLOW_SESSION_KEY",
    "RAY_AUTH_TOKEN",
    "GRAFANA_PASSWORD",
)
OWNER = "owner"  # makes the buckets
ROLES = (OWNER, "jobs", "mlflow")


def make_settings() -> tuple[dict[str, str], dict[str, object]]:
    """Return the variables of compose.yaml and the identities of its object store."""
    rights = json.loads((HERE / "rights/seaweedfs.json").read_text())
    rights[OWNER] = ["Admin", "Read", "Write", "List"]
    rights["jobs"] = rights["onboard"] + rights["night"]
    variables = {name: secrets.token_hex(32) for name in SECRETS}
    identities = []
    for role in ROLES:
        keys = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}
        variables[f"S3_{role.upper()}_KEY"] = keys["accessKey"]
        variables[f"S3_{role.upper()}_SECRET"] = keys["secretKey"]
        identities.append({"name": role, "credentials": [keys], "actions": rights[role]})
    return variables, {"identities": identities}


def main() -> int:
    """Write both files, or neither."""
    environment, identities = HERE / ".env", HERE / "s3.json"
    if environment.exists() or identities.exists():
        print(f"{environment} and {identities.name} stay as they are.")  # noqa: T201
        return 0
    variables, config = make_settings()
    for path, text in (
        (environment, "".join(f"{name}={value}\n" for name, value in variables.items())),
        (identities, json.dumps(config, indent=1)),
    ):
        path.touch(mode=0o600)
        path.write_text(text)
    print(f"wrote {environment} and {identities.name}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
