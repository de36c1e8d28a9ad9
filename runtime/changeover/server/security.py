"""Who may call: the token, the names a browser may use for us, and how large a request may be.

Without a token everybody who reaches the port may do everything, which is why it is then a loopback port. A page in a
browser on the same machine reaches it too: requests under a foreign name (DNS rebinding) and writes from a foreign
origin are refused.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from changeover.server.problems import problem
from changeover.settings import Settings

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/ok"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
EXPOSED_HEADERS = ("Content-Location", "Location", "Changeover-Version", "ETag", "X-Pagination-Next")


def install(app: FastAPI, settings: Settings) -> None:
    """Add the middlewares; the one that is added last sees a request first."""
    app.add_middleware(BodyLimit, limit_bytes=settings.limit_body_bytes)
    app.add_middleware(Guard, token=settings.token, origins=settings.cors)
    if settings.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
            allow_private_network=True,
        )


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Guard:
    """Asks for the token where there is one, else keeps foreign pages out."""

    def __init__(self, app: ASGIApp, token: str | None, origins: Collection[str]) -> None:
        self._app = app
        self._token = token.encode() if token else None
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)
        self._hosts = frozenset(urlsplit(origin).netloc for origin in self._origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = None
        if route_path(scope) not in OPEN_PATHS:
            headers = Headers(scope=scope)
            refusal = self._ask_token(headers) if self._token else self._look_at_browser(scope, headers)
        await (refusal or self._app)(scope, receive, send)

    def _ask_token(self, headers: Headers) -> ASGIApp | None:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if hmac.compare_digest(given.encode(), self._token or b""):
            return None
        answer = problem(
            401,
            "token-required",
            "this server asks for a token",
            hint="send it as 'Authorization: Bearer TOKEN' or as 'x-api-key'",
        )
        answer.headers["WWW-Authenticate"] = "Bearer"
        return answer

    def _look_at_browser(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        host = headers.get("host", "").lower()
        if self._is_foreign_name(scope, host):
            return problem(
                403,
                "foreign-host",
                f"this server does not answer to the name '{host[:200]}'",
                hint="add its origin to server.cors, or start the server with a token",
            )
        origin = headers.get("origin")
        if origin is None or scope.get("method") in SAFE_METHODS or self._is_allowed(origin.lower(), host):
            return None
        return problem(
            403, "foreign-origin", f"pages of '{origin[:200]}' may not call this server", hint="add it to server.cors"
        )

    def _is_foreign_name(self, scope: Scope, host: str) -> bool:
        """On a loopback socket a name that is not this machine's was led here by somebody else's DNS."""
        server = scope.get("server")
        if not host or not server or not is_loopback(str(server[0])):
            return False
        name = urlsplit(f"//{host}").hostname or ""
        return not is_loopback(name) and name != server[0] and host not in self._hosts

    def _is_allowed(self, origin: str, host: str) -> bool:
        return "*" in self._origins or origin in self._origins or urlsplit(origin).netloc == host


def route_path(scope: Scope) -> str:
    """The path within this application, wherever it is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


class BodyLimit:
    """Refuses a body that is too large: by its header, or as it comes, if it does not say its length."""

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS:
            await self._app(scope, receive, send)
            return
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not declared.isdigit() or int(declared[:20]) > self._limit_bytes:
            await problem(413, "body-too-large", self._sentence(), hint="limits.body raises the limit")(
                scope, receive, send
            )
            return
        seen = 0

        async def counting() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit_bytes:
                raise HTTPException(413, self._sentence())
            return message

        await self._app(scope, counting, send)

    def _sentence(self) -> str:
        return f"the request's body is larger than {self._limit_bytes} bytes"
