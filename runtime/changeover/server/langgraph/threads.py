"""Threads: make one, look at one, read its state."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body
from langgraph.types import StateSnapshot
from pydantic import Field

from changeover.errors import Conflict, InvalidRequest, NotFound
from changeover.manager import GraphVersionManager
from changeover.server.encoding import JSON
from changeover.server.langgraph.payloads import THREAD_ID, Strict
from changeover.server.langgraph.state import empty_state, interrupts_by_task, state_json
from changeover.store.records import Thread, ThreadId


class NewThread(Strict):
    thread_id: Annotated[str, Field(pattern=f"^{THREAD_ID}$")] | None = None
    metadata: dict[str, Any] | None = None
    if_exists: Literal["raise", "do_nothing"] | None = None
    supersteps: Any = None
    ttl: Any = None


def router(manager: GraphVersionManager) -> APIRouter:
    routes = APIRouter(prefix="/threads", tags=["threads"])

    @routes.post("")
    async def create(new: Annotated[NewThread, Body(default_factory=NewThread)]) -> JSON:
        _refuse_unsupported(new)
        id_ = ThreadId(new.thread_id or str(uuid.uuid4()))
        thread, created = await manager.store.runs.put_thread(id_, new.metadata or {})
        if not created and new.if_exists != "do_nothing":
            raise Conflict(f"thread {id_} exists", code="thread-exists", hint="send if_exists=do_nothing to get it")
        return JSON(thread_json(thread, None if created else await _snapshot(manager, id_)))

    @routes.get("/{thread_id}")
    async def get(thread_id: str) -> JSON:
        thread = await manager.store.runs.thread(thread_id)
        return JSON(thread_json(thread, await _snapshot(manager, thread_id)))

    @routes.get("/{thread_id}/state")
    async def get_state(thread_id: str, subgraphs: bool = False) -> JSON:
        snapshot = await _snapshot(manager, thread_id, subgraphs)
        return JSON(empty_state(thread_id) if snapshot is None else state_json(snapshot))

    return routes


def thread_json(thread: Thread, snapshot: StateSnapshot | None) -> dict[str, Any]:
    """The thread as LangGraph's clients know it, and what we know beside."""
    shape = thread.to_json()
    if thread.graph is not None:
        shape["metadata"] = {"graph_id": thread.graph, **shape["metadata"]}
    shape["values"] = snapshot.values if snapshot else None
    shape["interrupts"] = interrupts_by_task(snapshot) if snapshot else {}
    shape["config"] = {}
    return shape


async def _snapshot(manager: GraphVersionManager, thread_id: str, subgraphs: bool = False) -> StateSnapshot | None:
    """The state of a thread; None if nothing ran on it yet."""
    try:
        snapshot: StateSnapshot = await manager.state(thread_id, subgraphs=subgraphs)
    except NotFound as error:
        if error.code != "empty-thread":
            raise
        return None
    return snapshot


def _refuse_unsupported(new: NewThread) -> None:
    for name in ("supersteps", "ttl"):
        if getattr(new, name) not in (None, []):
            raise InvalidRequest(
                f"{name}: this server does not support it yet", code="unsupported", hint="leave it out"
            )
