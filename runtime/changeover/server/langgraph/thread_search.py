"""Finding threads: what SQL can decide is decided there, states are read only where the request is about them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
from langgraph.types import StateSnapshot

from changeover.errors import ChangeoverError, InvalidRequest
from changeover.manager import GraphVersionManager
from changeover.server.encoding import dumps
from changeover.server.langgraph.state import interrupts_by_task
from changeover.server.langgraph.thread_payloads import ThreadSearch, ThreadsWanted
from changeover.store.containment import contains
from changeover.store.records.times import timestamp
from changeover.store.threads import ThreadRow

STATES_LIMIT = 2000  # states that one request may have read, to look for values in them
PAGE = 100


def thread_json(
    row: ThreadRow, snapshot: StateSnapshot | None, problem: ChangeoverError | None = None
) -> dict[str, Any]:
    """The thread as LangGraph's clients know it, and what we know beside."""
    thread = row.thread
    shape = thread.to_json()
    if thread.graph is not None:
        shape["metadata"] = {"graph_id": thread.graph, **shape["metadata"]}
    shape["state_updated_at"] = timestamp(row.state_updated_at)
    shape["values"] = snapshot.values if snapshot else None
    shape["interrupts"] = interrupts_by_task(snapshot) if snapshot else {}
    shape["config"] = {}
    shape["context"] = {}
    if problem is not None:
        shape["problem"] = {"code": problem.code, "detail": problem.message}
    return shape


async def described(manager: GraphVersionManager, row: ThreadRow) -> dict[str, Any]:
    """A thread with its state; one whose state cannot be read here says why, and is shown all the same."""
    try:
        return thread_json(row, await manager.threads.state(row.thread))
    except ChangeoverError as error:
        return thread_json(row, None, error)


async def search(manager: GraphVersionManager, wanted: ThreadSearch) -> tuple[list[dict[str, Any]], str | None]:
    """A page of threads, and the offset of the next one if there is more."""
    page = [row async for row in _page(manager, wanted)]
    shown = [await _shown(manager, row, wanted) for row in page[: wanted.limit]]
    return shown, str(wanted.offset + wanted.limit) if len(page) > wanted.limit else None


async def count(manager: GraphVersionManager, wanted: ThreadsWanted) -> int:
    if not wanted.values:
        return await manager.threads.rows.count(wanted.filter())
    return len([row async for row in _with_values(manager, wanted, "created_at", True)])


async def _page(manager: GraphVersionManager, wanted: ThreadSearch) -> AsyncIterator[ThreadRow]:
    """The rows of a page and one more, which tells whether there is a next page."""
    sort_by, descending = wanted.sort_by or "updated_at", wanted.sort_order != "asc"
    if not wanted.values:
        rows = manager.threads.rows
        for row in await rows.search(wanted.filter(), sort_by, descending, wanted.limit + 1, wanted.offset):
            yield row
        return
    index = 0
    async for row in _with_values(manager, wanted, sort_by, descending):
        if index >= wanted.offset:
            yield row
        index += 1
        if index > wanted.offset + wanted.limit:
            return


async def _with_values(
    manager: GraphVersionManager, wanted: ThreadsWanted, sort_by: Any, descending: bool
) -> AsyncIterator[ThreadRow]:
    """Threads whose state holds the wanted values, read a page of rows at a time."""
    for offset in range(0, STATES_LIMIT, PAGE):
        rows = await manager.threads.rows.search(wanted.filter(), sort_by, descending, PAGE, offset)
        for row in rows:
            values = plain_json((await described(manager, row))["values"])
            if contains(values, wanted.values):
                yield row
        if len(rows) < PAGE:
            return
    if await manager.threads.rows.search(wanted.filter(), sort_by, descending, 1, STATES_LIMIT):
        raise InvalidRequest(
            f"values: more than {STATES_LIMIT} states would have to be read",
            code="too-many-states",
            hint="narrow the search by metadata, status or ids",
        )


async def _shown(manager: GraphVersionManager, row: ThreadRow, wanted: ThreadSearch) -> dict[str, Any]:
    shape = await described(manager, row) if _needs_state(row, wanted) else thread_json(row, None)
    if wanted.extract:
        whole = plain_json(shape)
        shape["extracted"] = {alias: extracted(whole, path) for alias, path in wanted.extract.items()}
    if wanted.select is None:
        return shape
    return {key: shape[key] for key in (*wanted.select, "extracted") if key in shape}


def _needs_state(row: ThreadRow, wanted: ThreadSearch) -> bool:
    roots = {path.partition(".")[0].partition("[")[0] for path in (wanted.extract or {}).values()}
    fields = roots | set(wanted.select if wanted.select is not None else ("values", "interrupts"))
    return "values" in fields or ("interrupts" in fields and row.thread.status != "idle")


def plain_json(value: Any) -> Any:
    """The value as its JSON says it."""
    return orjson.loads(dumps(value))


def extracted(value: Any, path: str) -> Any:
    """What is found at a path such as `values.messages[-1].content`; None where there is nothing."""
    for step in path.replace("[", ".[").split("."):
        if step.startswith("["):
            index = int(step[1:-1])
            is_there = isinstance(value, list) and -len(value) <= index < len(value)
            value = value[index] if is_there else None
        else:
            value = value.get(step) if isinstance(value, Mapping) else None
    return value
