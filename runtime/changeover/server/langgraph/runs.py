"""Runs that nobody waits for from the start: make them, look at them, join them, cancel them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query, Request
from pydantic import Field
from starlette.responses import Response
from starlette.types import Scope

from changeover.errors import Conflict, InvalidRequest, NotFound
from changeover.manager import GraphVersionManager
from changeover.server.encoding import JSON
from changeover.server.langgraph.answers import place_of
from changeover.server.langgraph.execution import accepted
from changeover.server.langgraph.payloads import RunBody, Strict, check_thread_id
from changeover.server.langgraph.requests import address_of, run_request, seen_of, version_of
from changeover.store.records.ids import RunId
from changeover.store.records.run import Run, RunStatus
from changeover.store.records.times import timestamp

Action = Literal["interrupt", "rollback"]
Select = Annotated[list[str] | None, Query()]
Reason = Annotated[str, Query(max_length=500)]
BATCH_LIMIT = 1_000
CANCELLED = "cancelled by a client"


Name = Annotated[str, Field(max_length=255)]


class ThreadRunBody(RunBody):
    """A run of a batch, which says itself on which thread it is to be."""

    thread_id: str | None = None
    assistantId: str | None = None


class CancelBody(Strict):
    thread_id: Name | None = None
    run_ids: Annotated[list[Name], Field(min_length=1, max_length=1_000)] | None = None
    status: Literal["pending", "running", "all"] | None = None


def router(manager: GraphVersionManager) -> APIRouter:
    routes = APIRouter(tags=["runs"])

    async def create(body: RunBody, thread_id: str | None, scope: Scope) -> Run:
        if body.on_disconnect is not None:
            raise InvalidRequest("on_disconnect: nobody waits for a run in the background", code="unsupported")
        if thread_id is not None:
            check_thread_id(thread_id)
        request = await run_request(
            manager,
            body,
            thread_id,
            version_of(scope),
            background=True,
            address=address_of(scope),
            seen=seen_of(scope),
        )
        return await accepted(manager.submit(request))

    @routes.post("/threads/{thread_id}/runs")
    async def create_on_thread(thread_id: str, body: RunBody, request: Request) -> JSON:
        return _created(await create(body, thread_id, request.scope))

    @routes.post("/runs")
    async def create_without_thread(body: RunBody, request: Request) -> JSON:
        return _created(await create(body, None, request.scope))

    @routes.post("/runs/batch")
    async def create_batch(
        bodies: Annotated[list[ThreadRunBody], Body(min_length=1, max_length=BATCH_LIMIT)], request: Request
    ) -> JSON:
        """All of them or, if one is refused, those before it: the answer then says which one and why."""
        if seen_of(request.scope):
            raise InvalidRequest("If-Match: a batch is on many threads", code="unsupported", hint="make each run alone")
        runs = [await create(body, body.thread_id, request.scope) for body in bodies]
        return JSON([run_json(run) for run in runs])

    @routes.get("/threads/{thread_id}/runs")
    async def list_(
        thread_id: str,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 10,
        offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
        status: RunStatus | None = None,
        select: Select = None,
    ) -> JSON:
        await manager.store.runs.thread(thread_id)
        runs = await manager.store.runs.list(thread_id=thread_id, status=status, limit=limit, offset=offset)
        return JSON([_selected(run_json(run), select) for run in runs])

    @routes.get("/threads/{thread_id}/runs/{run_id}")
    async def get(thread_id: str, run_id: str) -> JSON:
        run = await run_of(manager, run_id, thread_id)
        return JSON(run_json(run), headers={"Changeover-Version": run.version})

    @routes.delete("/threads/{thread_id}/runs/{run_id}", status_code=204)
    async def delete(thread_id: str, run_id: str) -> Response:
        await manager.store.runs.delete(run_id, thread_id)
        return Response(status_code=204)

    @routes.post("/threads/{thread_id}/runs/{run_id}/cancel", status_code=202)
    async def cancel(
        thread_id: str, run_id: str, wait: bool = False, action: Action = "interrupt", reason: Reason = ""
    ) -> Response:
        return await cancel_one(await run_of(manager, run_id, thread_id), wait, action, reason)

    @routes.post("/runs/{run_id}/cancel", status_code=202)
    async def cancel_without_thread(
        run_id: str, wait: bool = False, action: Action = "interrupt", reason: Reason = ""
    ) -> Response:
        return await cancel_one(await run_of(manager, run_id, None), wait, action, reason)

    async def cancel_one(run: Run, wait: bool, action: Action, reason: str) -> Response:
        if not run.is_active:
            raise Conflict(f"run {run.id} has ended: {run.status}", code="run-ended")
        background = manager.background.get(run.id)
        if not await manager.cancel(run.id, reason or CANCELLED, undo=action == "rollback"):
            run = await run_of(manager, run.id, run.thread_id)
            raise Conflict(f"run {run.id} cannot be cancelled: it is {run.status}", code="run-ended")
        if not wait:
            return Response(status_code=202)
        if background is not None:
            await background.ended.wait()
        else:
            async for _ in manager.background.end_of(run, 60.0):
                continue
        return Response(status_code=204)

    @routes.post("/runs/cancel", status_code=204)
    async def cancel_many(wanted: CancelBody, action: Action = "interrupt") -> Response:
        for run in await _to_cancel(manager, wanted):
            await manager.cancel(run.id, CANCELLED, undo=action == "rollback")
        return Response(status_code=204)

    return routes


async def run_of(manager: GraphVersionManager, run_id: str, thread_id: str | None) -> Run:
    """The row of a run, which must be of that thread; None: of a run without one."""
    run = await manager.store.runs.get(run_id)
    if run.thread_id != thread_id:
        raise NotFound(f"there is no run '{run_id[:255]}' on thread '{(thread_id or '')[:255]}'", code="unknown-run")
    return run


def run_json(run: Run) -> dict[str, Any]:
    """A run as LangGraph's clients know it, and what we know beside."""
    is_cancelled = run.status == "interrupted" and bool(run.status_reason)
    return {
        **run.to_json(),
        "assistant_id": run.assistant_id,
        "updated_at": timestamp(run.ended_at or run.started_at or run.created_at),
        "kwargs": dict(run.kwargs or {}),
        "multitask_strategy": run.multitask_strategy,
        "cancel_reason": run.status_reason if is_cancelled else None,
    }


def _created(run: Run) -> JSON:
    headers = {"Content-Location": place_of(run), "Changeover-Version": run.version}
    return JSON(run_json(run), headers=headers)


def _selected(shape: dict[str, Any], select: Sequence[str] | None) -> dict[str, Any]:
    if select is None:
        return shape
    if unknown := sorted(set(select) - shape.keys()):
        raise InvalidRequest(f"select: a run has no '{unknown[0][:100]}'")
    return {key: shape[key] for key in select}


async def _to_cancel(manager: GraphVersionManager, wanted: CancelBody) -> Sequence[Run]:
    """The active runs that a client names: by their ids, or all of a status."""
    if wanted.run_ids is not None:
        if wanted.status is not None:
            raise InvalidRequest("run_ids and status: give one of them")
        if wanted.thread_id is None:
            raise InvalidRequest("thread_id: say on which thread these runs are")
        found = [await run_of(manager, RunId(id_), wanted.thread_id) for id_ in wanted.run_ids]
        return [run for run in found if run.is_active]
    if wanted.status is None:
        raise InvalidRequest("give thread_id and run_ids, or status")
    status: RunStatus | None = None if wanted.status == "all" else wanted.status
    runs = manager.store.runs
    return await runs.list(thread_id=wanted.thread_id, status=status, active=True, limit=1_000_000)
