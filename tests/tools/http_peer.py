"""A real HTTP server on a loopback socket for tools to call: it does what its path says, and counts its connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Asked:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(urlsplit(self.target).query, keep_blank_values=True)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Peer:
    """`script` has for a path the whole answers that are given one after the other, the last one for good; without
    one, an answer is the request as JSON. A text instead of an answer is what is done: `hang`, `drip`, `flood`, `cut`.
    """

    port: int = 0
    opened: int = 0
    closed: int = 0
    asked: list[Asked] = field(default_factory=list)
    script: dict[str, list[bytes | str]] = field(default_factory=dict)
    _writers: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def sockets(self) -> int:
        """Connections that the other side has not closed yet."""
        return self.opened - self.closed

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        self._writers[writer] = asyncio.current_task()
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._answered(reader, writer):
                    pass
                await reader.read()
        finally:
            self.closed += 1
            self._writers.pop(writer)
            writer.close()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:] if line)}
        method, target, _ = lines[0].split(" ")
        asked = Asked(method, target, headers, await reader.readexactly(int(headers.get("content-length", "0"))))
        self.asked.append(asked)
        script = self.script.get(asked.path, [])
        answer = (script.pop(0) if len(script) > 1 else script[0]) if script else _echo(asked)
        if isinstance(answer, str):
            await _misbehave(answer, reader, writer)
            return False
        writer.write(answer)
        await writer.drain()
        return True

    async def hang_up(self) -> None:
        tasks = [task for task in self._writers.values() if task is not None]
        for writer in self._writers:
            writer.close()
        if tasks:
            await asyncio.wait(tasks, timeout=5)


async def _misbehave(how: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if how == "hang":
        await reader.read()
        return
    if how == "cut":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly")
        writer.close()
        return
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
    size = 65536 if how == "flood" else 1
    while not reader.at_eof():
        writer.write(b"%x\r\n%s\r\n" % (size, b"x" * size))
        await writer.drain()
        with suppress(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05 if how == "drip" else 0.0001)


def _echo(asked: Asked) -> bytes:
    data = {"method": asked.method, "target": asked.target, "body": asked.body.decode("utf-8", "replace")}
    return said(200, json.dumps(data), "Content-Type: application/json")


def said(status: int, text: str | bytes = "", *headers: str) -> bytes:
    body = text.encode() if isinstance(text, str) else text
    kind = [] if any(header.lower().startswith("content-type") for header in headers) else ["Content-Type: text/plain"]
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", *kind, *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def peering() -> AsyncIterator[Peer]:
    peer = Peer()
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        await peer.hang_up()
