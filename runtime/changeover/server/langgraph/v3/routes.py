"""The protocol's routes, over one hub."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI

from changeover.manager import GraphVersionManager
from changeover.server.langgraph.v3 import http, websocket
from changeover.server.langgraph.v3.commands import Commands
from changeover.server.langgraph.v3.hub import Hub


def install(app: FastAPI, manager: GraphVersionManager, stopping: asyncio.Event) -> None:
    hub = Hub(manager, stopping)
    commands = Commands(manager, hub)
    app.include_router(http.router(commands, hub))
    websocket.install(app, commands, hub, manager.settings.limit_body_bytes)
