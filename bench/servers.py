"""Servers in processes of their own: ours as its command starts it, and the plain app under the same uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

ROOT = Path(__file__).parent.parent
START_TIMEOUT_S = 60.0
HOST = "127.0.0.1"


@contextlib.contextmanager
def ours(
    project: Path, log: Path, *, watch: bool = False, environment: Mapping[str, str] | None = None
) -> Iterator[int]:
    """`changeover serve` on a folder; gives its port."""
    port = free_port()
    follow = "--watch" if watch else "--no-watch"
    command = [
        sys.executable,
        "-m",
        "changeover.cli",
        "serve",
        str(project),
        "--host",
        HOST,
        "--port",
        str(port),
        follow,
    ]
    with log.open("wb") as stream, _process(command, stream, environment) as process:
        _wait_for(port, "/readyz", process, log)
        yield port


class Server:
    """`changeover serve` on a folder, that can be killed and started again on its port."""

    def __init__(
        self,
        project: Path,
        log: Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        self.port = port or free_port()
        self.log = log
        serve = [sys.executable, "-m", "changeover.cli", "serve", str(project), "--host", HOST, "--port"]
        self._command = [*serve, str(self.port), *arguments]
        self._environment = {**os.environ, "PYTHONPATH": _paths(), **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and do not wait."""
        with self.log.open("ab") as stream:
            self._process = subprocess.Popen(
                self._command, stdout=stream, stderr=stream, env=self._environment, cwd=ROOT
            )

    async def ready(self) -> None:
        assert self._process is not None
        await asyncio.to_thread(_wait_for, self.port, "/readyz", self._process, self.log)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """SIGTERM; SIGKILL where that does not help."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(40)
        except subprocess.TimeoutExpired:
            self.kill()

    def workers(self) -> list[int]:
        """The processes that it started."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in children.read_text().split()]


@contextlib.asynccontextmanager
async def served(server: Server) -> AsyncIterator[Server]:
    """A server that is ready, and gone at the end."""
    try:
        server.start()
        await server.ready()
        yield server
    finally:
        await asyncio.to_thread(server.stop)


def _paths() -> str:
    return os.pathsep.join([str(ROOT / "runtime"), str(ROOT)])


@contextlib.contextmanager
def plain(graph: Path, database: Path, log: Path) -> Iterator[int]:
    """The plain app; gives its port."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "bench.plain_app:app", "--host", HOST, "--port", str(port)]
    command += [
        "--loop",
        "uvloop",
        "--http",
        "httptools",
        "--workers",
        "1",
        "--no-access-log",
        "--log-level",
        "warning",
    ]
    environment = {"PLAIN_GRAPH": str(graph), "PLAIN_DATABASE": str(database)}
    with log.open("wb") as stream, _process(command, stream, environment) as process:
        _wait_for(port, "/durability", process, log)
        yield port


@contextlib.contextmanager
def _process(command: list[str], log: IO[bytes], more: Mapping[str, str] | None) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": _paths(), **(more or {})}
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=ROOT)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])


def _wait_for(port: int, path: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start:\n{log.read_text('utf-8', 'replace')[-4000:]}")


class Answer(NamedTuple):
    status: int
    head: bytes  # in lower case
    body: bytes


class Connection:
    """One keep-alive connection, with as little work in the client as can be."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: bytes) -> Answer:
        """The whole answer, whatever its framing."""
        if self._writer is None or self._reader is None or self._reader.at_eof():  # the server ends idle connections
            self.close()
            self._reader, self._writer = await asyncio.open_connection(HOST, self._port)
        head = [
            f"POST {path} HTTP/1.1",
            f"host: {HOST}",
            "content-type: application/json",
            f"content-length: {len(body)}",
        ]
        self._writer.write("\r\n".join([*head, "\r\n"]).encode() + body)
        answer_head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        status, lines = int(answer_head[9:12]), answer_head.split(b"\r\n")
        if b"transfer-encoding: chunked" in lines:
            return Answer(status, answer_head, await self._chunks(self._reader))
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        return Answer(status, answer_head, await self._reader.readexactly(length))

    async def _chunks(self, reader: asyncio.StreamReader) -> bytes:
        found = b""
        while size := int(await reader.readline(), 16):
            found += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        return found

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._reader = self._writer = None
