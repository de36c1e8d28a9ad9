"""What a version is made of: its graphs with picture and contract, its agents, its tools."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Header
from starlette.responses import PlainTextResponse, Response

from changeover.contracts.chain import chain_of
from changeover.errors import NotFound
from changeover.manager import GraphVersionManager
from changeover.server.encoding import JSON


def router(manager: GraphVersionManager, stopping: asyncio.Event) -> APIRouter:
    routes = APIRouter()

    @routes.get("/versions/{v}/graphs")
    async def graphs(v: str) -> JSON:
        version = await manager.version(v)
        return JSON(
            {
                "graphs": [
                    {"name": name, "digest": entry.digest, "description": entry.description, "threads": entry.threads}
                    for name, entry in sorted(version.graphs.items())
                ]
            }
        )

    @routes.get("/versions/{v}/agents")
    async def agents(v: str) -> JSON:
        """The agents of a version: model, prompt as written and as rendered, tools with their schemas, middleware."""
        return JSON({"agents": await manager.agents(v)})

    @routes.get("/versions/{v}/tools")
    async def tools(v: str) -> JSON:
        """The tools of a version with the schemas of their arguments, and the agents that may call them."""
        return JSON({"tools": await manager.tools(v)})

    @routes.get("/versions/{v}/graphs/{g}")
    async def graph(
        v: str,
        g: str,
        format: Literal["json", "mermaid"] | None = None,
        accept: Annotated[str, Header()] = "",
    ) -> Response:
        version = await manager.version(v)
        if g not in version.graphs:
            raise NotFound(f"{version.id} has no graph or agent '{g[:255]}'", code="unknown-graph")
        _, loaded = await manager.graph(g, version.id)
        drawing = await loaded.runnable.aget_graph(xray=1)
        if format == "mermaid" or (format is None and accept.startswith("text/plain")):
            return PlainTextResponse(drawing.draw_mermaid())
        entry = version.graphs[g]
        return JSON(
            {
                "name": g,
                "version": version.id,
                "digest": entry.digest,
                "description": entry.description,
                "threads": entry.threads,
                "graph": drawing.to_json(),
                "mermaid": drawing.draw_mermaid(),
                "contract": dict(loaded.compiled.contract),
                "migrations": [step.to_json() for step in chain_of(entry.chain)],
            }
        )

    return routes
