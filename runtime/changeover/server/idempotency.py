"""`Idempotency-Key` on the POSTs of the administration: the same call twice is done once, for a day.

What is remembered is the answer of a call that succeeded. One that failed has changed nothing and may be tried again
under its key. The same key with another request is refused.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from changeover.errors import Conflict, InvalidRequest
from changeover.manager import GraphVersionManager
from changeover.server.encoding import JSON
from changeover.server.receiving import read_body, replaying
from changeover.server.security import route_path

KEY_LIMIT_CHARS = 255


class Idempotency:
    def __init__(self, app: ASGIApp, manager: GraphVersionManager) -> None:
        self._app = app
        self._manager = manager
        self._under_way: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not route_path(scope).startswith("/admin/"):
            await self._app(scope, receive, send)
            return
        key = Headers(scope=scope).get("idempotency-key")
        if key is None:
            await self._app(scope, receive, send)
            return
        if not 0 < len(key) <= KEY_LIMIT_CHARS:
            raise InvalidRequest(
                f"an Idempotency-Key has 1 to {KEY_LIMIT_CHARS} characters", code="bad-idempotency-key"
            )
        await self._once(key, scope, receive, send)

    async def _once(self, key: str, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        query: bytes = scope.get("query_string", b"")
        digest = hashlib.sha256(b"\0".join((route_path(scope).encode(), query, body))).hexdigest()
        known = await self._manager.store.journal.answered(key)
        if known is not None:
            await _repeat(known, digest)(scope, receive, send)
            return
        if key in self._under_way:
            raise Conflict("the first call with this Idempotency-Key is under way", code="idempotency-under-way")
        self._under_way.add(key)
        try:
            recorder = _Recorder(send)
            await self._app(scope, replaying(body, receive), recorder)
            if recorder.status < 300:
                answer = json.loads(recorder.body or b"null")
                await self._manager.store.journal.remember_answer(key, digest, recorder.status, answer)
        finally:
            self._under_way.discard(key)


def _repeat(known: tuple[str, int, Any], digest: str) -> ASGIApp:
    request, status, body = known
    if request != digest:
        raise InvalidRequest(
            "this Idempotency-Key was used for another request", code="idempotency-key-reused", hint="use a new key"
        )
    return JSON(body, status, {"Idempotency-Replayed": "true"})


class _Recorder:
    """Passes an answer on and keeps a copy."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 500
        self.body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")
        await self._send(message)
