"""HTTP/1.1 with as little work in the client as can be: answers whole, or their events as they come."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from bench.servers import HOST

IDLE_S = 3.0  # a server may close a connection that was quiet for 5
LIMIT_BYTES = 64 * 1024 * 1024


class Cut(ConnectionError):
    """The server went away before its answer was whole, or before it began."""


class Event(NamedTuple):
    id: int | None
    name: str
    data: Any


@dataclass
class Reply:
    """An answer whose head is here. Its body is read once, by `body` or by `events`."""

    status: int
    headers: Mapping[str, str]
    reader: asyncio.StreamReader

    async def body(self) -> bytes:
        if "content-length" in self.headers:
            return await _or_cut(self.reader.readexactly(int(self.headers["content-length"])))
        return b"".join([piece async for piece in self._pieces()])

    async def events(self) -> AsyncIterator[Event]:
        """Server-sent events, without the heartbeats. Raises `Cut` if the stream does not end as it should."""
        left = b""
        async for piece in self._pieces():
            *whole, left = (left + piece).split(b"\n\n")
            for text in whole:
                event = _event(text.decode())
                if event is not None:
                    yield event

    async def _pieces(self) -> AsyncIterator[bytes]:
        while size := int((await _or_cut(self.reader.readuntil(b"\r\n"))), 16):
            yield (await _or_cut(self.reader.readexactly(size + 2)))[:-2]
        await _or_cut(self.reader.readexactly(2))


def _event(text: str) -> Event | None:
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(": ")
        fields[name] = fields.get(name, "") + value
    if "event" not in fields:
        return None
    id_ = fields.get("id", "")
    return Event(int(id_) if id_.isdigit() else None, fields["event"], json.loads(fields.get("data") or "null"))


async def _or_cut(reading: Any) -> bytes:
    try:
        found: bytes = await reading
    except (OSError, EOFError) as error:
        raise Cut(f"{type(error).__name__}: {error}") from error
    return found


class Wire:
    """One connection, opened when it is needed, kept open where the server keeps it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._used = 0.0

    async def open(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        """Send a request; returns with the head of its answer."""
        try:
            is_old = time.monotonic() - self._used > IDLE_S
            self._used = time.monotonic()
            if self._writer is None or self._reader is None or is_old or self._reader.at_eof():
                self.close()
                self._reader, self._writer = await asyncio.open_connection(HOST, self._port, limit=LIMIT_BYTES)
            content = b"" if body is None else json.dumps(body).encode()
            lines = [f"{method} {path} HTTP/1.1", f"host: {HOST}", f"content-length: {len(content)}"]
            lines += ["content-type: application/json"] if content else []
            lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
            self._writer.write("\r\n".join([*lines, "\r\n"]).encode() + content)
        except OSError as error:
            raise Cut(f"{type(error).__name__}: {error}") from error
        head = (await _or_cut(self._reader.readuntil(b"\r\n\r\n"))).decode("latin-1").split("\r\n")
        given = (line.partition(":") for line in head[1:] if line)
        return Reply(int(head[0][9:12]), {name.lower(): value.strip() for name, _, value in given}, self._reader)

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """The whole answer: its status and what its JSON says."""
        try:
            reply = await self.open(method, path, body)
            text = await reply.body()
        except BaseException:
            self.close()
            raise
        return reply.status, json.loads(text) if text.strip() else None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._reader = self._writer = None


async def call(port: int, method: str, path: str, body: Any = None) -> Any:
    """One call over a connection of its own; raises where it was refused."""
    wire = Wire(port)
    try:
        status, found = await wire.call(method, path, body)
    finally:
        wire.close()
    if status >= 300:
        raise AssertionError(f"{method} {path}: {status} {str(found)[:1000]}")
    return found
