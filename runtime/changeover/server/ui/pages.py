"""A page: a template and what it tells, whole for a browser that opens it, and as a region that stays up to date.

What agents, tools and people say is text: every value is escaped, and nothing of it is ever marked as safe.
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from changeover.server.sessions import Sessions
from changeover.server.ui import shown
from changeover.server.ui.api import Api, Refused
from changeover.server.ui.live import Live
from changeover.server.ui.static import StaticFiles

log = logging.getLogger(__name__)

TEMPLATES = Path(__file__).parent / "templates"
REGION = "live"  # the block of a template that stays up to date
PACKED_FROM_BYTES = 1_000
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "Accept, Accept-Encoding, Cookie",
}

Tells = Mapping[str, Any]
Look = Callable[[], Awaitable[Tells]]


class Pages:
    """Makes pages. `api(request)` is our API with the name of who asks."""

    def __init__(self, api: Api, live: Live, sessions: Sessions) -> None:
        self._api = api
        self._live = live
        self._sessions = sessions
        self.static = StaticFiles()
        self._templates = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= shown.FILTERS
        self._templates.globals |= {"static": self.static.address}

    def api(self, request: Request) -> Api:
        return self._api.as_(self.name(request))

    def name(self, request: Request) -> str:
        """What who asks calls himself, or nothing."""
        session = self._sessions.of(request.headers.get("cookie", ""))
        return session.name if session else ""

    async def show(
        self, request: Request, template: str, look: Look, status: int = 200, follow: Look | None = None
    ) -> Response:
        """A page; or, for who follows it, its region each time it changes. `look` finds out what it tells.

        `follow` finds out what the region alone tells, where that is less.
        """
        if "text/event-stream" in request.headers.get("accept", ""):
            make = partial(self._region, template, follow or look, self._place(request))
            stream = self._live.follow(request.url.path + "?" + request.url.query, make)
            return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        tells = {**self._place(request), **await look(), "actor": self.name(request)}
        return self._html(request, self._templates.get_template(template).render(tells), status)

    def plain(self, request: Request, template: str, status: int = 200, **tells: Any) -> Response:
        """A page, or a part of one, that does not follow anything."""
        known = {**self._place(request), "actor": self.name(request)}
        return self._html(request, self._templates.get_template(template).render({**known, **tells}), status)

    def refused(self, request: Request, error: Refused) -> Response:
        """A problem as a page: what is wrong, where, and what to do."""
        return self.plain(request, "problem.html", error.status, problem=error.problem)

    def to(self, request: Request, path: str, /, **query: Any) -> Response:
        """On to another page, by a new GET: a reload repeats nothing."""
        given = {name: value for name, value in query.items() if value not in (None, "")}
        where = f"{self._base(request)}/{path}" + (f"?{urlencode(given, doseq=True)}" if given else "")
        return RedirectResponse(where, 303, {"Cache-Control": "no-store"})

    async def _region(self, template: str, look: Look, place: Tells) -> str:
        """A region on its own. It says so where it cannot be made, and goes on when it can."""
        try:
            tells = {**place, **await look(), "actor": ""}
            page = self._templates.get_template(template)
            return "".join(page.blocks[REGION](page.new_context(tells))).strip()
        except Refused as error:
            return self._templates.get_template("refused.html").render(**place, problem=error.problem)
        except Exception:  # root of a task
            log.exception("page_failed", extra={"template": template})
            problem = {"detail": "an unexpected error; the server's log has it"}
            return self._templates.get_template("refused.html").render(**place, problem=problem)

    def _place(self, request: Request) -> dict[str, Any]:
        """What every template may use: where it is."""
        base = self._base(request)
        path = quote(request.scope["path"].removeprefix(base).removeprefix("/"))
        query = request.url.query
        return {
            "base": base,
            "api": base.removesuffix("/ui"),
            "path": path,
            "query": query,
            "section": path.partition("/")[0],
            "asks_token": self._sessions.asks_token,
        }

    def _base(self, request: Request) -> str:
        return str(request.scope.get("root_path", ""))

    def _html(self, request: Request, html: str, status: int) -> Response:
        data = html.encode()
        if len(data) < PACKED_FROM_BYTES or "gzip" not in request.headers.get("accept-encoding", ""):
            return HTMLResponse(data, status, HEADERS)
        return HTMLResponse(gzip.compress(data, 5), status, {**HEADERS, "Content-Encoding": "gzip"})
