"""Forms as browsers send them: in UTF-8.

Owns that no other encoding is read. The parser would take any that Python knows, and some of those take hours for what
one request may bring.
"""

from __future__ import annotations

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from changeover.server.problems import problem

UTF_8 = (b"utf-8", b"utf8")


class Utf8Forms:
    """Refuses a form that says to be in another encoding."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            _, told = parse_options_header(Headers(scope=scope).get("content-type"))
            if told.get(b"charset", b"utf-8").lower() not in UTF_8:
                refusal = problem(415, "invalid-request", "a form is read in UTF-8 alone")
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)
