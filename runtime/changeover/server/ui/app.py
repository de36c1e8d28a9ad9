"""The pages as an application of their own below `/ui`, beside the API that they call."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import FastAPI, Form, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from changeover.server.security import PAGE
from changeover.server.sessions import LASTS_S, Sessions
from changeover.server.ui import (
    approvals,
    comparing,
    editing,
    events,
    graphs,
    operations,
    overview,
    planning,
    playground,
    resources,
    threads,
    versions,
)
from changeover.server.ui.api import Api, Refused
from changeover.server.ui.forms import Utf8Forms
from changeover.server.ui.live import Live
from changeover.server.ui.pages import Pages

PARTS = (
    approvals,
    comparing,
    editing,
    events,
    graphs,
    operations,
    overview,
    planning,
    playground,
    resources,
    threads,
    versions,
)


def install(app: FastAPI, token: str | None, sessions: Sessions, stopping: asyncio.Event) -> None:
    """Add `/ui` to the application whose API it calls, and lead browsers there."""
    pages = Pages(Api(app, token), Live(stopping), sessions)
    ui = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    ui.add_middleware(Utf8Forms)
    for part in PARTS:
        ui.include_router(part.router(pages))
    _add_signing_in(ui, pages, sessions)
    _add_problems(ui, pages)
    ui.add_route("/static/{name:path}", pages.static.answer)
    app.mount(PAGE, ui)
    app.add_route("/", _lead_browsers)


async def _lead_browsers(request: Request) -> Response:
    if "text/html" not in request.headers.get("accept", ""):
        raise HTTPException(404, "Not Found")
    return RedirectResponse(f"{request.scope.get('root_path', '')}{PAGE}/", 303)


def _add_signing_in(ui: FastAPI, pages: Pages, sessions: Sessions) -> None:
    @ui.get("/login")
    async def login(request: Request, next: str = "") -> Response:
        return pages.plain(request, "login.html", next=next, wrong=False)

    @ui.post("/login")
    async def sign_in(
        request: Request,
        name: Annotated[str, Form(max_length=200)] = "",
        token: Annotated[str, Form(max_length=10_000)] = "",
        next: Annotated[str, Form(max_length=2_000)] = "",
    ) -> Response:
        if sessions.asks_token and not sessions.is_token(token):
            return pages.plain(request, "login.html", 401, next=next, wrong=True)
        answer = pages.to(request, "")
        base = request.scope["root_path"]
        if _leads_to_a_page(next, base):
            answer.headers["Location"] = next
        answer.set_cookie(
            sessions.cookie,
            sessions.begin(name),
            max_age=LASTS_S,
            path=base.removesuffix(PAGE) or "/",
            secure=_is_https(request),
            httponly=True,
            samesite="lax",
        )
        return answer

    @ui.post("/logout")
    async def sign_out(request: Request) -> Response:
        answer = pages.to(request, "login")
        answer.delete_cookie(sessions.cookie, path=request.scope["root_path"].removesuffix(PAGE) or "/")
        return answer


def _is_https(request: Request) -> bool:
    """Whether the browser speaks TLS, to us or to a proxy: it says so itself, whatever the proxy passes on."""
    return request.url.scheme == "https" or request.headers.get("origin", "").lower().startswith("https://")


def _leads_to_a_page(address: str, base: str) -> bool:
    """Whether an address that somebody else may have written is one of our pages, and nothing else to any browser."""
    return address.startswith(f"{base}/") and address.isprintable() and "\\" not in address and "//" not in address


def _add_problems(ui: FastAPI, pages: Pages) -> None:
    @ui.exception_handler(Refused)
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return pages.refused(request, error)

    @ui.exception_handler(HTTPException)
    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        detail = "there is no such page" if error.status_code == 404 else str(error.detail)
        return pages.refused(request, Refused(error.status_code, {"detail": detail, "code": ""}))

    @ui.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        fault = error.errors()[0]
        at = ".".join(str(part) for part in fault["loc"][1:])
        return pages.refused(request, Refused(422, {"detail": f"{at}: {fault['msg']}", "code": "invalid-request"}))

    @ui.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        """It is raised again after this answer, to be logged at the last border."""
        problem = {"detail": "an unexpected error; the server's log has it", "code": "internal", "hint": "report it"}
        return pages.refused(request, Refused(500, problem))
