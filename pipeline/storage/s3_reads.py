"""Whole objects of S3, read by a client that is no Python: for a fifth of the CPU time.

s3fs takes 3 ms of Python for an object, and other threads wait for Python's lock meanwhile. obstore
does not, but it says little of what goes wrong and knows fewer ways to reach a server. So it only
brings what is there: whatever fails is asked for again by ``s3.py``, which says what was wrong and
waits for a server to recover. Where that succeeds time and again, obstore is left out.
"""

import functools
import logging
import os
import threading
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import s3fs
from fsspec.asyn import sync
from obstore import exceptions
from obstore.store import S3Store

CONNECT_TIMEOUT_S = 1
READ_TIMEOUT_S = 3  # without a single byte; who takes longer is waited for by s3.py
TIMEOUT_S = 27  # of a whole object
ASK_AGAIN_S = 60  # for credentials that may be renewed
MOST_FAILURES = 8  # in a row, where the other client then succeeded

logger = logging.getLogger(__name__)


class ObjectReader:
    """Reads with the endpoint, region and credentials of an s3fs file system."""

    def __init__(self, filesystem: s3fs.S3FileSystem) -> None:
        """Take over how the server is reached; nothing is asked for before the first object."""
        self.is_usable = True
        self._filesystem = filesystem
        self._failures = 0
        self._lock = threading.Lock()
        self._store = functools.lru_cache(maxsize=64)(self._connect)

    def read(self, bucket: str, key: str) -> tuple[bytes, str] | None:
        """Return an object's bytes and etag; None: ask the other client."""
        if not self.is_usable:
            return None
        try:
            answer = self._store(bucket).get(key)
            return answer.bytes().to_bytes(), str(answer.meta["e_tag"] or "").strip('"')
        except (exceptions.BaseError, OSError, ValueError):  # the other client says why
            return None

    def note(self, *, failed: bool) -> None:
        """Say whether an object that could be read was not to be had here."""
        with self._lock:
            self._failures = self._failures + 1 if failed else 0
            if self.is_usable and self._failures == MOST_FAILURES:
                self.is_usable = False
                logger.info("objects are read by s3fs alone: obstore does not reach this server")

    def _connect(self, bucket: str) -> S3Store:
        client: Any = sync(self._filesystem.loop, self._filesystem.set_session)
        endpoint = client.meta.endpoint_url
        if _is_special(endpoint):
            raise ValueError("obstore has certificates and proxies of its own")
        return S3Store(
            bucket,
            endpoint=endpoint,
            region=client.meta.region_name,
            virtual_hosted_style_request=False,
            credential_provider=self._credentials,
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
                "read_timeout": timedelta(seconds=READ_TIMEOUT_S),
                "timeout": timedelta(seconds=TIMEOUT_S),
                "user_agent": "nightshift",
            },
            retry_config={"max_retries": 0},
        )

    def _credentials(self) -> Any:
        """Return what the other client signs with; it renews them in time."""
        filesystem = self._filesystem
        found = sync(filesystem.loop, filesystem.session.get_credentials)
        if found is None:
            raise ValueError("no credentials")
        frozen = sync(filesystem.loop, found.get_frozen_credentials)
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token or None,
            "expires_at": datetime.now(UTC) + timedelta(seconds=ASK_AGAIN_S),
        }


def _is_special(endpoint: str) -> bool:
    """Whether a server is reached by a proxy, or trusted by certificates of the user's own."""
    address = urlsplit(endpoint)
    if address.scheme == "https" and os.environ.get("AWS_CA_BUNDLE"):
        return True
    proxies = urllib.request.getproxies().keys() & {"http", "https", "all"}
    return bool(proxies) and not urllib.request.proxy_bypass(str(address.hostname))
