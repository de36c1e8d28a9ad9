"""Errors as RFC 9457 problem documents.

`detail` is the sentence a person reads: LangGraph's clients show it. `code` is the word that programs branch on.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from changeover.errors import ChangeoverError, InvalidRequest, ProjectError
from changeover.server.encoding import JSON

log = logging.getLogger(__name__)

TYPE_PREFIX = "urn:changeover:problem:"
RETRY_AFTER_S = 1
SHOWN_FAULTS = 20
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class Problem(JSON):
    media_type = "application/problem+json"


def problem(status: int, code: str, detail: str, /, *, hint: str | None = None, **extra: Any) -> Problem:
    document: dict[str, Any] = {
        **extra,
        "type": TYPE_PREFIX + code,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if hint:
        document["hint"] = hint
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return Problem(document, status, headers)


def problem_of(error: ChangeoverError) -> Problem:
    extra = dict(error.extra)
    if isinstance(error, ProjectError):
        extra |= {"problems": [found.to_json() for found in error.problems], "version": error.version}
    return problem(error.http_status, error.code, error.message, hint=error.hint, **extra)


def invalid(faults: list[Any]) -> InvalidRequest:
    """What pydantic found wrong with a request, without the values that were sent."""
    shown = [{"at": ".".join(str(part) for part in fault["loc"]), "message": fault["msg"]} for fault in faults]
    first = shown[0] if shown else {"at": "body", "message": "it cannot be read"}
    return InvalidRequest(f"{first['at'] or 'body'}: {first['message']}", errors=shown[:SHOWN_FAULTS])


def install(app: FastAPI) -> None:
    app.add_exception_handler(ChangeoverError, _on_changeover_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_changeover_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ChangeoverError)
    return problem_of(error)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem_of(invalid(list(error.errors())))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    codes = {404: "unknown-route", 405: "method-not-allowed", 413: "body-too-large"}
    detail = f"{request.method} {request.url.path}: {error.detail}" if error.status_code in (404, 405) else error.detail
    answer = problem(error.status_code, codes.get(error.status_code, "invalid-request"), detail)
    answer.headers.update(error.headers or {})
    if error.status_code == 405:
        answer.headers["Allow"] = ", ".join(_methods(request))
    return answer


def _methods(request: Request) -> list[str]:
    """Every method that some route has at the path of a request: a router names those of its first one alone."""
    routes = request.app.routes
    return [
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


def _of_middleware(error: ChangeoverError | HTTPException) -> Problem:
    if isinstance(error, ChangeoverError):
        return problem_of(error)
    return problem(error.status_code, "body-too-large" if error.status_code == 413 else "invalid-request", error.detail)


class Border:
    """The last border: an error that nobody foresaw is logged here and answered without its internals."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except (ChangeoverError, HTTPException) as error:  # from a middleware, before any route
            if started:
                raise
            await _of_middleware(error)(scope, receive, send)
        except ClientDisconnect:
            return
        except Exception:
            log.exception("request_failed", extra={"method": scope["method"], "path": scope["path"]})
            if started:
                raise
            answer = problem(500, "internal", "an unexpected error; the server's log has it", hint="report it")
            await answer(scope, receive, send)
