"""The HTTP client of a session with an MCP server: answers of bounded size, and none that says nothing.

Owns what becomes of an answer before the SDK reads it: one that is too long, or no message of the protocol, becomes an
error for the request that waits for it, which would wait until its deadline else.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx

from changeover.resources.mcp_messages import (
    EDGE_BYTES,
    MAX_MESSAGE_BYTES,
    TOO_LONG,
    UNREADABLE,
    Line,
    failure,
    is_message,
    message_of,
)

JSON = "application/json"
EVENTS = "text/event-stream"
PLAIN = ("", "identity")
_EVENT_END = re.compile(rb"\r?\n\r?\n|\r\r")


class BoundedClient(httpx.AsyncClient):
    """As the SDK makes it, but for its answers. It asks for them as they are: what is compressed has no known size."""

    def __init__(
        self,
        headers: dict[str, str] | None = None,
        timeout: httpx.Timeout | None = None,
        auth: httpx.Auth | None = None,
    ) -> None:
        super().__init__(headers={"Accept-Encoding": "identity", **(headers or {})}, timeout=timeout, auth=auth)

    async def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        response = await _bounded(request, await super().send(request, stream=True, **options))
        if not stream:
            await response.aread()
        return response


async def _bounded(request: httpx.Request, response: httpx.Response) -> httpx.Response:
    stream = response.stream
    if not response.is_success or not isinstance(stream, httpx.AsyncByteStream):
        return response
    asked = _asked(request)
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if response.headers.get("content-encoding", "").lower() not in PLAIN:
        return response
    if kind == EVENTS:
        response.stream = _Events(stream, asked)
    elif asked is not None and response.status_code != httpx.codes.ACCEPTED:
        if kind != JSON:
            await response.aclose()
            text = f"it answered with {kind or 'no type'} instead of JSON"
            return _answer(request, failure(asked, text).model_dump_json())
        response.stream = _Whole(stream, asked)
    return response


class _Stream(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream, asked: str | int | None) -> None:
        self._inner = inner
        self._asked = asked

    async def aclose(self) -> None:
        await self._inner.aclose()

    def _instead(self, reason: str, content: bytes = b"") -> bytes:
        """Of `content` the begin and the end are enough."""
        if self._asked is not None:
            return failure(self._asked, reason).model_dump_json().encode()
        text = content.decode("utf-8", "replace")
        message = message_of(Line(text[text.find("{") :], is_cut=True))
        return message.message.model_dump_json().encode() if message else b""


class _Whole(_Stream):
    """An answer in one piece."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = bytearray()
        async for chunk in self._inner:
            content += chunk
            if len(content) > MAX_MESSAGE_BYTES:
                yield self._instead(TOO_LONG)
                return
        yield bytes(content) if is_message(content) else self._instead(UNREADABLE)


class _Events(_Stream):
    """An answer in events; in place of one that is too long stands what to say of it."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        held, head = bytearray(), b""
        async for chunk in self._inner:
            looked = max(0, len(held) - 3)  # an end may be in two chunks
            held += chunk
            ends = [found.end() for found in _EVENT_END.finditer(held, looked)]
            if ends:
                if head:
                    yield self._event(head + held[: ends[0]])
                    del held[: ends[0]]
                    head, ends = b"", [end - ends[0] for end in ends]
                yield bytes(held[: ends[-1]])
                del held[: ends[-1]]
            if len(held) > MAX_MESSAGE_BYTES or head:
                head = head or bytes(held[:EDGE_BYTES])
                del held[:-EDGE_BYTES]
        yield self._event(head + held) if head else bytes(held)

    def _event(self, content: bytes) -> bytes:
        return b"event: message\ndata: " + self._instead(TOO_LONG, content) + b"\n\n"


def _asked(request: httpx.Request) -> str | int | None:
    """The id of the call that a request is."""
    if request.method != "POST":
        return None
    try:
        message = json.loads(request.content)
    except (ValueError, httpx.RequestNotRead):
        return None
    id_ = message.get("id") if isinstance(message, dict) and "method" in message else None
    return id_ if isinstance(id_, str | int) else None


def _answer(request: httpx.Request, text: str) -> httpx.Response:
    return httpx.Response(httpx.codes.OK, headers={"content-type": JSON}, content=text.encode(), request=request)
