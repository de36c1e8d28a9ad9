"""Whether we live, whether we can serve, and what LangGraph's clients ask about a server."""

from __future__ import annotations

import asyncio
import os
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

import changeover
from changeover.manager import GraphVersionManager
from changeover.server.encoding import JSON
from changeover.server.metrics import Metrics
from changeover.server.problems import problem


def router(manager: GraphVersionManager, stopping: asyncio.Event) -> APIRouter:
    routes = APIRouter(tags=["health"])
    metrics = Metrics(manager)

    @routes.get("/healthz")
    @routes.head("/healthz")
    async def healthz() -> JSON:
        return JSON({"status": "ok"})

    @routes.get("/ok")
    @routes.head("/ok")
    async def ok() -> JSON:
        return JSON({"ok": True})

    @routes.get("/readyz")
    @routes.head("/readyz")
    async def readyz() -> Response:
        if stopping.is_set():
            return problem(503, "stopping", "the server stops")
        if not manager.is_open:
            return problem(503, "starting", "the server starts")
        if manager.routing is None:
            return problem(503, "nothing-current", "no version is current yet", hint="see /admin/status for problems")
        trouble = manager.trouble
        if trouble is not None:
            return problem(503, trouble.code, trouble.message, hint=trouble.hint)
        degraded = manager.resources.degraded()  # the rest serves: it is no reason to send nobody here
        return JSON({"status": "ready", "current": manager.routing.current, "degraded": degraded})

    @routes.get("/metrics")
    async def prometheus() -> Response:
        return Response(await metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @routes.get("/info")
    @routes.head("/info")
    async def info() -> JSON:
        return JSON(_info(manager))

    return routes


def _info(manager: GraphVersionManager) -> dict[str, Any]:
    """What clients ask before they offer something: the flags name only what this server does."""
    flags = {
        "assistants": True,
        "crons": True,
        "strict_resume": True,
        "langsmith": False,
        "langsmith_tracing_replicas": False,
    }
    current = manager.routing.current if manager.routing else None
    return {
        "version": changeover.__version__,
        "langgraph_py_version": version("langgraph"),
        "server": "changeover",
        "flags": flags,
        "current": current,
        "metadata": {"server": "changeover", "changeover_version": current, "pid": os.getpid()},
    }
