"""What runs used, by version and graph, over time."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query

from changeover.errors import InvalidRequest
from changeover.manager import GraphVersionManager
from changeover.server.admin.common import Name
from changeover.server.encoding import JSON
from changeover.settings import duration

Moment = Annotated[str | None, Query(max_length=64)]


def router(manager: GraphVersionManager, stopping: asyncio.Event) -> APIRouter:
    routes = APIRouter()

    @routes.get("/usage")
    async def usage(
        since: Moment = None,
        until: Moment = None,
        step: Moment = None,
        version: Name | None = None,
        graph: Name | None = None,
        by: Literal["graph", "version"] = "graph",
    ) -> JSON:
        """Since a time or for a duration (`6h`), in steps of a duration; by the minute at the finest.

        By version and graph, or with `by=version` by version alone.
        """
        return JSON(
            await manager.usage(
                since=_moment("since", since),
                until=_moment("until", until),
                step_s=_step_s(step),
                version=version,
                graph=graph,
                by=by,
            )
        )

    return routes


def _moment(name: str, given: str | None) -> float | None:
    """Unix seconds of a time in ISO 8601 (in UTC where it names no offset), or of a duration before now."""
    if given is None:
        return None
    try:
        return time.time() - duration(given)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(given.replace(" ", "+"))  # a + that the address did not escape
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{name} is neither a time nor a duration",
            code=f"invalid-{name}",
            hint=f"such as {name}=6h, or {name}=2027-01-31T12:00:00Z",
        ) from None


def _step_s(given: str | None) -> float | None:
    try:
        return None if given is None else duration(given)
    except ValueError:
        raise InvalidRequest("step is no duration", code="invalid-step", hint="such as step=5m") from None
