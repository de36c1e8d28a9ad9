"""Keeps out text that is none: half of a surrogate pair, which JSON can spell and no database, log or answer can hold.

Looks at the bytes of a body as they come, so that no route has to look at each of its fields.
"""

from __future__ import annotations

import re

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ESCAPES = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair
    rb"|\\(u[dD][89a-fA-F][0-9a-fA-F]{2})"  # half of one
    rb"|\\."  # every other escape, of a backslash too: what follows that is no escape
)
_ENCODED = re.compile(rb"\xed[\xa0-\xbf]")  # half of a pair in UTF-8, which is not to have any


class WholeText:
    """Refuses a body with half of a surrogate pair in it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        suspect = bytearray()

        async def looking() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                body = message.get("body", b"")
                is_last = not message.get("more_body", False)
                if is_last and not suspect:
                    _check(body)
                else:
                    suspect.extend(body)
                    if is_last:
                        _check(suspect)
            return message

        await self._app(scope, looking, send)


def holds_half_a_pair(body: bytes | bytearray) -> bool:
    if b"\\u" in body and any(found[1] is not None for found in _ESCAPES.finditer(body)):
        return True
    return b"\xed" in body and _ENCODED.search(body) is not None


def _check(body: bytes | bytearray) -> None:
    if holds_half_a_pair(body):
        raise HTTPException(422, "body: it holds half of a surrogate pair, which is no text")
