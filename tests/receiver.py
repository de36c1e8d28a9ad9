"""Somebody who takes webhooks: a real HTTP server on a loopback socket that answers as it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Received:
    target: str
    headers: dict[str, str]
    body: Any


@dataclass
class Receiver:
    """`answers` are given one after the other, the last one for good: a status, or a whole answer, or None to hang."""

    answers: list[int | bytes | None]
    received: list[Received] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head[1:] if line)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.received.append(Received(head[0].split()[1], headers, json.loads(body)))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if answer is None:
                await reader.read()  # until the caller gives up
            else:
                writer.write(answer if isinstance(answer, bytes) else status_line(answer))
                await writer.drain()
        writer.close()


def status_line(status: int, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Said", "Content-Length: 0", "Connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@asynccontextmanager
async def receiving(*answers: int | bytes | None, port: int = 0) -> AsyncIterator[Receiver]:
    receiver = Receiver(list(answers or (200,)))
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", port)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        server.close_clients() if hasattr(server, "close_clients") else None
