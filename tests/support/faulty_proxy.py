"""An S3 server on a bad day: a proxy in front of a real one that lets some requests fail."""

import http.client
import random
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

FAULTS = ("500", "503", "reset", "cut", "slow")
SLOW_S = 1.0
BUSY = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>later</Message></Error>'


class FaultyProxy:
    """Forwards to ``upstream``; each request fails with probability ``share``, in some way.

    It may answer 500 or 503, hang up before or in the middle of the answer, or take its time.
    """

    def __init__(self, upstream: str, share: float, seed: int = 0) -> None:
        self.address = urlsplit(upstream).netloc
        self.share, self._random = share, random.Random(seed)
        self.faults: Counter[str] = Counter()
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint_url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def draw(self) -> str:
        """Returns what happens to the next request; "" for nothing."""
        with self._lock:
            fault = self._random.choice(FAULTS) if self._random.random() < self.share else ""
            self.faults[fault] += 1
            return fault

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultyProxy

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.owner.draw()
        if fault == "reset":
            self._hang_up()
            return
        if fault in ("500", "503"):
            self._answer(int(fault), [], BUSY)
            return
        if fault == "slow":
            time.sleep(SLOW_S)
        upstream = http.client.HTTPConnection(self.owner.address, timeout=60)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            content = answer.read()
            self._answer(answer.status, answer.getheaders(), content, cut=fault == "cut")
        finally:
            upstream.close()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    def _answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, *, cut: bool = False
    ) -> None:
        self.send_response(status)
        length = str(len(content))
        for name, value in headers:
            if name.lower() == "content-length":
                length = value  # of a HEAD, which has no content
            elif name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut and content:
            self.wfile.write(content[: len(content) // 2])
            self._hang_up()
            return
        self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""
