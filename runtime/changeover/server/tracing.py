"""The trace that a request belongs to: runs that it begins are spans of it, as its `traceparent` says."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from changeover.usage.tracing import exporters

FIELDS = ("traceparent", "tracestate", "baggage")


def install(app: FastAPI, environ: Mapping[str, str]) -> None:
    """Heed these headers, where the variables `OTEL_*` ask for spans; else nobody would ever look."""
    if not exporters(environ):
        return
    try:
        import opentelemetry.propagate  # noqa: F401 - whether it is there
    except ImportError:  # the manager says what is missing
        return
    app.add_middleware(Traced)


class Traced:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        from opentelemetry.context import attach, detach
        from opentelemetry.propagate import extract

        headers = Headers(scope=scope)
        token = attach(extract({name: headers[name] for name in FIELDS if name in headers}))
        try:
            await self._app(scope, receive, send)
        finally:
            detach(token)
