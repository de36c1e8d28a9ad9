"""The state of a thread over HTTP: now, at a checkpoint, its history, and updates by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Request
from langgraph.types import StateUpdate

from changeover.errors import InvalidRequest
from changeover.manager import GraphVersionManager
from changeover.runs.threads import HEAD, Place
from changeover.server.encoding import JSON
from changeover.server.langgraph.payloads import THREAD_ID
from changeover.server.langgraph.requests import seen_of
from changeover.server.langgraph.state import checkpoint_json, empty_state, state_json
from changeover.server.langgraph.thread_payloads import (
    HistoryQuery,
    MetadataPatch,
    StateQuery,
    StateUpdateBody,
    place_of,
    selected_field,
)
from changeover.store.records.thread import Thread
from changeover.store.state_tags import tag
from changeover.store.threads import ThreadRow

ThreadPath = Annotated[str, Path(pattern=f"^{THREAD_ID}$")]
CheckpointPath = Annotated[str, Path(min_length=1, max_length=255)]
Selected = Annotated[list[str] | None, Query(alias="select")]
MISSING: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such thread, or no such checkpoint"}}
UNREADABLE: dict[int | str, dict[str, Any]] = {409: {"description": "The version of the thread cannot read its state"}}
REFUSED: dict[int | str, dict[str, Any]] = {
    409: {"description": "A run is at work on the thread, or it belongs to no graph yet"},
    422: {"description": "The request is wrong, or the graph refuses the update"},
    503: {"description": "No version serves yet, to bind the thread to"},
    504: {"description": "The graph's code took too long"},
}


def add(routes: APIRouter, manager: GraphVersionManager) -> None:
    """Add the routes below a thread."""
    _add_reading(routes, manager)
    _add_writing(routes, manager)


def _add_reading(routes: APIRouter, manager: GraphVersionManager) -> None:
    async def state(thread_id: str, place: Place, subgraphs: bool, select: Sequence[str] | None) -> JSON:
        row = await manager.threads.rows.get(thread_id)  # before its state: a tag may be too old for it, never too new
        snapshot = await manager.threads.state(row.thread, place, subgraphs=subgraphs)
        shape = empty_state(thread_id) if snapshot is None else state_json(snapshot)
        headers = state_headers(row) if place == HEAD else version_header(row.thread)
        return JSON(_selected(shape, select), headers=headers)

    @routes.get("/{thread_id}/state", responses={**MISSING, **UNREADABLE})
    async def get_state(thread_id: ThreadPath, subgraphs: bool = False, select: Selected = None) -> JSON:
        return await state(thread_id, HEAD, subgraphs, _asked(select))

    @routes.get("/{thread_id}/state/{checkpoint_id}", responses={**MISSING, **UNREADABLE})
    async def get_state_at(
        thread_id: ThreadPath, checkpoint_id: CheckpointPath, subgraphs: bool = False, select: Selected = None
    ) -> JSON:
        return await state(thread_id, Place(checkpoint_id), subgraphs, _asked(select))

    @routes.post("/{thread_id}/state/checkpoint", responses={**MISSING, **UNREADABLE})
    async def get_state_of_checkpoint(thread_id: ThreadPath, query: StateQuery) -> JSON:
        return await state(thread_id, query.checkpoint.place(thread_id), bool(query.subgraphs), query.select)

    @routes.post("/{thread_id}/history", responses={**MISSING, **UNREADABLE})
    async def history(
        thread_id: ThreadPath, query: Annotated[HistoryQuery, Body(default_factory=HistoryQuery)]
    ) -> JSON:
        thread = (await manager.threads.rows.get(thread_id)).thread
        found = await manager.threads.history(
            thread,
            place_of(query.checkpoint, None, thread_id),
            limit=query.limit,
            before=query.before_id(thread_id),
            metadata=query.metadata,
        )
        return JSON([_selected(state_json(one), query.select) for one in found], headers=version_header(thread))


def _add_writing(routes: APIRouter, manager: GraphVersionManager) -> None:
    @routes.post("/{thread_id}/state", responses={**MISSING, **REFUSED})
    async def update_state(thread_id: ThreadPath, update: StateUpdateBody, request: Request) -> JSON:
        place = place_of(update.checkpoint, update.checkpoint_id, thread_id)
        step = [StateUpdate(update.values, update.as_node)]
        written = checkpoint_json(await manager.threads.update(thread_id, [step], place, seen_of(request.scope)))
        thread = (await manager.threads.rows.get(thread_id)).thread
        return JSON({"checkpoint": written, "configurable": written}, headers=version_header(thread))

    @routes.patch("/{thread_id}/state", responses=MISSING)
    async def patch_state(thread_id: ThreadPath, change: MetadataPatch) -> JSON:
        row = await manager.threads.rows.patch(thread_id, change.metadata)
        return JSON(row.thread.to_json(), headers=version_header(row.thread))


def version_header(thread: Thread) -> dict[str, str]:
    """Which version reads and writes the thread's state."""
    return {"Changeover-Version": thread.version} if thread.version else {}


def state_headers(row: ThreadRow) -> dict[str, str]:
    """These of a thread's newest state, with its tag. A state that a run is at work on has none: it is none yet."""
    headers = version_header(row.thread)
    return headers if row.thread.status == "busy" else {**headers, "ETag": f'"{tag(row.state_updated_at)}"'}


def _asked(select: Sequence[str] | None) -> list[str] | None:
    """Fields as query parameters, one each or separated by commas."""
    if select is None:
        return None
    try:
        return [selected_field(name) for given in select for name in given.split(",") if name]
    except ValueError as error:
        raise InvalidRequest(f"select: {error}") from None


def _selected(shape: dict[str, Any], select: Sequence[str] | None) -> dict[str, Any]:
    if not select:
        return shape
    found = {name: shape[name] for name in select if name in shape}
    keys = [name.removeprefix("values.") for name in select if name.startswith("values.")]
    if keys and "values" not in found:
        values = shape["values"] if isinstance(shape["values"], dict) else {}
        found["values"] = {key: values[key] for key in keys if key in values}
    return found
