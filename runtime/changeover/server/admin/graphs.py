"""What a version is made of: its graphs with picture and contract, its agents, its tools."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import Annotated, Literal

from fastapi import APIRouter, Header
from starlette.responses import PlainTextResponse, Response

from changeover.contracts.chain import chain_of
from changeover.errors import NotFound
from changeover.manager import GraphVersionManager
from changeover.server.encoding import JSON
from changeover.store.records.version import Version

LIVE = ("running", "waiting", "failed")


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
        _demand_graph(version, g)
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

    @routes.get("/versions/{v}/graphs/{g}/live")
    async def live(v: str, g: str) -> JSON:
        """What is on the nodes of a graph now: runs at work, and threads that wait or have failed there."""
        version = await manager.version(v)
        _demand_graph(version, g)
        active, standing = await asyncio.gather(
            manager.store.runs.active_on(version.id, g), manager.store.thread_lists.nodes(version.id, g)
        )
        here = [flight for flight in manager.in_flight.on(version.id) if flight.run.graph == g]
        nodes: defaultdict[str | None, Counter[str]] = defaultdict(Counter)
        for flight in here:
            for node in flight.nodes_at_work or (None,):
                nodes[node]["running"] += 1
        running = max(active.get("running", 0), len(here))
        if running > len(here):
            nodes[None]["running"] += running - len(here)
        for found in standing:
            nodes[found.node][_as_live(found.state)] += found.count
        return JSON(
            {
                "runs": running,
                "pending": active.get("pending", 0),
                "nodes": [
                    {"node": node, **{kind: nodes[node][kind] for kind in LIVE}}
                    for node in sorted(nodes, key=lambda node: node or "")
                ],
            }
        )

    return routes


def _demand_graph(version: Version, graph: str) -> None:
    if graph not in version.graphs:
        raise NotFound(f"{version.id} has no graph or agent '{graph[:255]}'", code="unknown-graph")


def _as_live(state: str) -> str:
    """What stands at a node has failed there, or waits: for somebody, or for the rest of its step."""
    return "failed" if state in ("failed", "failure") else "waiting"
