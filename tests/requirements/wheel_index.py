"""A package index over HTTP that counts what it hands out, and may stop in the middle of a wheel."""

from __future__ import annotations

import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class WheelIndex:
    """`asked` is set when a wheel is asked for; while `stalls` it is begun and not ended. `hung_up` is set when a
    client goes away meanwhile."""

    def __init__(self, wheels: Path) -> None:
        self.wheels = wheels
        self.stalls = False
        self.asked = threading.Event()
        self.hung_up = threading.Event()
        self.served: Counter[str] = Counter()
        index = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                index.answer(self)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def variables(self) -> dict[str, str]:
        return {"UV_DEFAULT_INDEX": f"http://someone:s3cr3t-word@127.0.0.1:{self._server.server_port}/simple"}

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        name = request.path.rstrip("/").rpartition("/")[2]
        if request.path.startswith("/simple/"):
            found = [path.name for path in self.wheels.iterdir() if path.name.startswith(name.replace("-", "_") + "-")]
            page = "".join(f"<a href='/files/{file}' data-core-metadata='true'>{file}</a>\n" for file in found)
            _send(request, 200 if found else 404, page.encode(), "text/html")
            return
        if name.endswith(".metadata"):
            wheel = name.removesuffix(".metadata")
            with zipfile.ZipFile(self.wheels / wheel) as archive:
                stem = "-".join(wheel.split("-")[:2])
                _send(request, 200, archive.read(f"{stem}.dist-info/METADATA"), "text/plain")
            return
        self.served[name] += 1
        self.asked.set()
        content = (self.wheels / name).read_bytes()
        try:
            _send(request, 200, content, "application/octet-stream", end=2)
            self._stall(request)
            request.wfile.write(content[2:])
        except ConnectionError:
            self.hung_up.set()
            request.close_connection = True

    def _stall(self, request: BaseHTTPRequestHandler) -> None:
        """As long as it is told to; raises `ConnectionError` once the client is gone."""
        request.connection.settimeout(0.05)
        while self.stalls:
            with suppress(TimeoutError):
                if not request.connection.recv(1):
                    raise ConnectionResetError
        request.connection.settimeout(None)

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.stalls = False
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def _send(request: BaseHTTPRequestHandler, status: int, body: bytes, kind: str, end: int | None = None) -> None:
    request.send_response(status)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body[:end])
