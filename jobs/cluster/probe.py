"""Does a Ray cluster answer at an address? Asked by a process of its own, in bounded time.

Ray itself waits for many minutes, or for ever, for a cluster that is away or for a server that is
something else. A process can be ended whatever it hangs in.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

from jobs.local.process import bound_to_this_process
from model.errors import ServiceAway

CONNECT_TIMEOUT_S = 5
JOIN_TIMEOUT_S = 30  # Ray starts and joins in 4 s, on a busy machine in 10
DEFAULT_PORTS = {"ray": 10001, "": 6379}
JOIN = "import ray; ray.init(logging_level='error', log_to_driver=False); print('joined')"
# In a job Ray has to live through a restart of the head; here it may give up sooner.
IMPATIENT = {
    "RAY_gcs_rpc_server_connect_timeout_s": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "3",
}


class ClusterError(ServiceAway):
    """The Ray cluster does not answer or has nothing to work with."""


def ask_cluster(
    address: str,
    code: str = JOIN,
    arguments: Sequence[str] = (),
    timeout_s: float = JOIN_TIMEOUT_S,
) -> str:
    """Run Python code that joins the cluster, in a process of its own; return its last line.

    Raises:
        ClusterError: nobody listens at the address, no cluster was joined, or not in time.
    """
    try:
        if address != "auto":  # Ray looks for a cluster on this machine, and finds out at once
            _probe_tcp(address)
        done = subprocess.run(  # noqa: S603  ourselves, no shell
            bound_to_this_process([sys.executable, "-c", code, *arguments]),
            env=os.environ | IMPATIENT | {"RAY_ADDRESS": address},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _away(address, f"no answer within {timeout_s:g} s") from None
    except (OSError, ValueError) as error:
        raise _away(address, str(error)) from error
    if done.returncode or not done.stdout.strip():
        raise _away(address, _reason(done.stderr))
    return done.stdout.strip().splitlines()[-1]


def _probe_tcp(address: str) -> None:
    """See whether anybody listens, which takes no process to find out."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    port = parts.port or DEFAULT_PORTS.get(parts.scheme, 6379)
    socket.create_connection((parts.hostname or "", port), CONNECT_TIMEOUT_S).close()


def _reason(stderr: str) -> str:
    """Return the last line that is not a log of Ray's core, which is about its attempts."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith("[")]
    return said[-1][:300] if said else "something listens, but Ray cannot join it"


def _away(address: str, reason: str) -> ClusterError:
    return ClusterError(
        f"no Ray cluster answers at RAY_ADDRESS={address} ({reason}). Start it, correct the "
        f"address, use the same Ray, Python and RAY_AUTH_MODE (and token) here as there, or unset "
        f"RAY_ADDRESS to run on this machine."
    )
