"""Create the night's RayJob and wait for its end: ``night.py TEMPLATE``.

The RayJob is named after the date, so one that is there already is this night's: a pod that is
started again finds it and waits on. Needs nothing but Python and the rights to create and get
rayjobs.
"""

import datetime as dt
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
POLL_S = 15.0
ENDED = {"Complete": 0, "Failed": 1}
CONFLICT = 409


@dataclass(frozen=True)
class Api:
    """Kubernetes, as this pod's service account sees it."""

    url: str  # of the namespace's RayJobs
    token: str
    context: ssl.SSLContext | None

    def request(self, method: str, name: str = "", body: Any = None) -> Any:
        """Send one request and return the answer's JSON."""
        request = urllib.request.Request(
            f"{self.url}{f'/{name}' if name else ''}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30, context=self.context) as answer:
            return json.load(answer)


def in_cluster() -> Api:
    """Return the API as a pod finds it."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    namespace = (ACCOUNT / "namespace").read_text()
    return Api(
        f"https://{host}:{port}/apis/ray.io/v1/namespaces/{namespace}/rayjobs",
        (ACCOUNT / "token").read_text(),
        ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt")),
    )


def run_night(api: Api, template: str, night: str, poll_s: float = POLL_S) -> int:
    """Create the RayJob unless it is there, wait for its end, return 0 when it succeeded."""
    job = json.loads(template.replace("NIGHT", night))
    name = job["metadata"]["name"]
    try:
        api.request("POST", body=job)
        print(f"created RayJob {name}", flush=True)
    except urllib.error.HTTPError as error:
        if error.code != CONFLICT:
            raise
        print(f"RayJob {name} is there already", flush=True)
    while True:
        try:
            status = api.request("GET", name).get("status", {})
        except (urllib.error.URLError, TimeoutError) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                raise  # gone, or not allowed: waiting would not help
            status = {}
        state = status.get("jobDeploymentStatus", "")
        if state in ENDED:
            print(f"RayJob {name}: {state} {status.get('message', '')}".rstrip(), flush=True)
            return ENDED[state]
        time.sleep(poll_s)


if __name__ == "__main__":
    today = dt.datetime.now(dt.UTC).date().isoformat()
    sys.exit(run_night(in_cluster(), Path(sys.argv[1]).read_text(), today))
