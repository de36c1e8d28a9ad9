"""Who may call: the token, the names a browser may use for us, and how large a request may be.

Without a token everybody who reaches the port may do everything, which is why it is then a loopback port. A page in a
browser on the same machine reaches it too: requests under a foreign name (DNS rebinding) and writes from a foreign
origin are refused. Pages that this machine itself serves may call; others where `server.cors` names them.

Our own page may be used with the cookie of a session instead of the token. A browser sends cookies by itself, so that
with one a write counts only if a page of ours asks for it; forms of `/ui` always have to come from one.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import logging
import re
from collections.abc import Collection
from contextlib import suppress
from urllib.parse import urlencode, urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from changeover.server.problems import problem
from changeover.server.sessions import Sessions
from changeover.settings import Settings

log = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/ok"})
PAGE = "/ui"
SIGN_IN = f"{PAGE}/login"
SIGN_IN_LIMIT_BYTES = 64 * 1024
OPEN_PAGES = (SIGN_IN, f"{PAGE}/static/")
FOREIGN_SCRIPTS = ("/docs",)  # loads what another host sends, which shall not act for who is signed in
# An address that holds a secret of its own, and is used by pages and links that have no token.
FEEDBACK_PATH = re.compile(r"/runs/[^/]{1,255}/feedback/[A-Za-z0-9_-]{43}")
# Pages cannot send headers with a WebSocket: they offer the token as a subprotocol, in base64url, beside ours.
SUBPROTOCOL = "changeover"
TOKEN_SUBPROTOCOL = "changeover.token."
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
EXPOSED_HEADERS = (
    "Content-Location",
    "Location",
    "Changeover-Version",
    "ETag",
    "Retry-After",
    "X-Pagination-Next",
    "X-Pagination-Total",
    "Idempotency-Replayed",
)
LOCAL_PAGES = r"https?://(localhost|([a-z0-9-]+\.)+localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])(:\d{1,5})?"
ORIGINS_TOLD = 100  # foreign origins that the log names, once each


def install(app: FastAPI, settings: Settings, sessions: Sessions) -> None:
    """Add the middlewares; the one that is added last sees a request first."""
    origins = Origins(settings.cors)
    app.add_middleware(BodyLimit, limit_bytes=settings.limit_body_bytes)
    app.add_middleware(Guard, token=settings.token, origins=origins, sessions=sessions)
    app.add_middleware(Cors, origins=origins)


class Origins:
    """Whose pages may call."""

    def __init__(self, named: Collection[str]) -> None:
        self.named = frozenset(origin.rstrip("/").lower() for origin in named)
        self.hosts = frozenset(urlsplit(origin).netloc for origin in self.named)
        self._local = re.compile(LOCAL_PAGES)
        self._told: set[str] = set()

    def allow(self, origin: str) -> bool:
        asked = origin.lower()
        return "*" in self.named or asked in self.named or self._local.fullmatch(asked) is not None

    def refusal(self, origin: str) -> Response:
        """A page cannot read why it is refused, but who runs the server can."""
        shown = origin[:200]
        hint = f"add '{shown}' to server.cors in changeover.yaml, or to CHANGEOVER_CORS"
        if shown not in self._told and len(self._told) < ORIGINS_TOLD:
            self._told.add(shown)
            log.warning("origin_refused", extra={"origin": shown, "hint": hint})
        return problem(403, "foreign-origin", f"pages of '{shown}' may not call this server", hint=hint)


class Cors(CORSMiddleware):
    """What browsers ask before a page may call, and the leave to read the answer."""

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        super().__init__(
            app,
            allow_origins=("*",) if "*" in origins.named else (),
            allow_methods=METHODS,
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
            allow_private_network=True,
        )
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and any(name == b"origin" for name, _ in scope["headers"]):
            await super().__call__(scope, receive, send)
        else:  # no page asks
            await self.app(scope, receive, send)

    def is_allowed_origin(self, origin: str) -> bool:
        return self._origins.allow(origin)

    def preflight_response(self, request_headers: Headers) -> Response:
        if self._origins.allow(request_headers["origin"]):
            return super().preflight_response(request_headers)
        return self._origins.refusal(request_headers["origin"])


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

    def __init__(self, app: ASGIApp, token: str | None, origins: Origins, sessions: Sessions) -> None:
        self._app = app
        self._token = token.encode() if token else None
        self._origins = origins
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = None
        path = route_path(scope)
        if path not in OPEN_PATHS and FEEDBACK_PATH.fullmatch(path) is None:
            headers = Headers(scope=scope)
            refusal = self._ask_token(scope, headers) if self._token else self._look_at_browser(scope, headers)
            if path.startswith(f"{PAGE}/") and not _is_safe(scope):
                refusal = refusal or _ask_own_page(headers)
        await (refusal or self._app)(scope, receive, send)

    def _ask_token(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if hmac.compare_digest(given.encode() or _offered_token(headers), self._token or b""):
            return None
        path = route_path(scope)
        if path.startswith(OPEN_PAGES):
            return None
        if (
            scope["type"] == "http"
            and not path.startswith(FOREIGN_SCRIPTS)
            and self._sessions.of(headers.get("cookie", "")) is not None
        ):
            return None if _is_safe(scope) else _ask_own_page(headers)
        if (path == PAGE or path.startswith(f"{PAGE}/")) and _is_safe(scope) and "html" in headers.get("accept", ""):
            return _to_sign_in(scope)
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
        if origin is None or scope.get("method") in SAFE_METHODS or self._is_allowed(origin, host):
            return None
        return self._origins.refusal(origin)

    def _is_foreign_name(self, scope: Scope, host: str) -> bool:
        """On a loopback socket a name that is not this machine's was led here by somebody else's DNS."""
        server = scope.get("server")
        if not host or not server or not is_loopback(str(server[0])):
            return False
        name = urlsplit(f"//{host}").hostname or ""
        return not is_loopback(name) and name != server[0] and host not in self._origins.hosts

    def _is_allowed(self, origin: str, host: str) -> bool:
        return self._origins.allow(origin) or urlsplit(origin.lower()).netloc == host


def _is_safe(scope: Scope) -> bool:
    return scope.get("method", "") in SAFE_METHODS


def _ask_own_page(headers: Headers) -> ASGIApp | None:
    """Browsers say whose page asks, and no page can make them lie; who says nothing is no browser of today."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin.lower()).netloc == headers.get("host", "").lower():
        return None
    if origin is None and headers.get("sec-fetch-site") == "same-origin":
        return None
    return problem(403, "foreign-page", "only a page of this server may do this with a browser's cookie")


def _to_sign_in(scope: Scope) -> Response:
    query = scope.get("query_string", b"").decode("latin-1")
    asked = scope["path"] + (f"?{query}" if query else "")
    root = scope.get("root_path", "")
    return RedirectResponse(f"{root}{SIGN_IN}?{urlencode({'next': asked})}", 303, {"Cache-Control": "no-store"})


def _offered_token(headers: Headers) -> bytes:
    """The token that a WebSocket offers as a subprotocol; empty if there is none."""
    for offered in headers.get("sec-websocket-protocol", "").split(","):
        name = offered.strip()
        if name.startswith(TOKEN_SUBPROTOCOL):
            encoded = name.removeprefix(TOKEN_SUBPROTOCOL)
            with suppress(ValueError):
                return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    return b""


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
        limit_bytes = self._limit_of(scope)
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not declared.isdigit() or int(declared[:20]) > limit_bytes:
            answer = problem(413, "body-too-large", _too_large(limit_bytes), hint="limits.body raises the limit")
            await answer(scope, receive, send)
            return
        seen = 0

        async def counting() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit_bytes:
                raise HTTPException(413, _too_large(limit_bytes))
            return message

        await self._app(scope, counting, send)

    def _limit_of(self, scope: Scope) -> int:
        """Of what anybody may send, without a token, little is read."""
        return min(self._limit_bytes, SIGN_IN_LIMIT_BYTES) if route_path(scope) == SIGN_IN else self._limit_bytes


def _too_large(limit_bytes: int) -> str:
    return f"the request's body is larger than {limit_bytes} bytes"
