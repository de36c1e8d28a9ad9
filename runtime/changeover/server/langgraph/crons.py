"""Crons over HTTP: make, change, find and delete them.

What a cron's run is to be is checked when the cron is made or changed, as the body of a run is, and not when it fires.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Body
from pydantic import AfterValidator, Field
from starlette.responses import Response

from changeover.errors import InvalidRequest
from changeover.manager import GraphVersionManager
from changeover.runs.assistants import assistant_id, default_id
from changeover.runs.crons import new_cron_id
from changeover.runs.encoding import dumps
from changeover.runs.schedules import Schedule
from changeover.server.encoding import JSON
from changeover.server.langgraph.objects import JsonObject, storable
from changeover.server.langgraph.payloads import Durability, Names, StreamMode, Strict, run_body
from changeover.store.crons import Cron, CronFilter, OnRunCompleted
from changeover.store.records.run import MultitaskStrategy
from changeover.store.records.times import timestamp

SortBy = Literal["cron_id", "assistant_id", "thread_id", "created_at", "updated_at", "next_run_date", "end_time"]
Field_ = Literal[
    "cron_id",
    "assistant_id",
    "thread_id",
    "end_time",
    "schedule",
    "timezone",
    "created_at",
    "updated_at",
    "user_id",
    "payload",
    "next_run_date",
    "metadata",
    "now",
    "on_run_completed",
    "enabled",
]
Name = Annotated[str, Field(min_length=1, max_length=255)]
Expression = Annotated[str, Field(min_length=1, max_length=255)]
TIMING = frozenset({"schedule", "timezone", "end_time", "enabled", "on_run_completed", "assistant_id", "metadata"})
NEVER_NULL = ("schedule", "enabled", "on_run_completed")
YEARS = range(1970, 9999)


class RunFields(Strict):
    """What the run is to be: a part of a run's body. Null is as if it were not there."""

    input: Annotated[Any, AfterValidator(storable)] = None
    config: JsonObject | None = None
    context: JsonObject | None = None
    webhook: str | None = None
    interrupt_before: Names | None = None
    interrupt_after: Names | None = None
    stream_mode: StreamMode | list[StreamMode] | None = None
    stream_subgraphs: bool | None = None
    stream_resumable: bool | None = None
    durability: Durability | None = None
    checkpoint_during: bool | None = None
    multitask_strategy: MultitaskStrategy | None = None
    metadata: JsonObject | None = None

    def run_fields(self) -> dict[str, Any]:
        """What was given of the run, None where it is to be taken away."""
        return {name: getattr(self, name) for name in self.model_fields_set - TIMING}


class NewCron(RunFields):
    assistant_id: Name
    schedule: Expression
    timezone: Name | None = None
    end_time: Name | None = None
    enabled: bool | None = None
    on_run_completed: OnRunCompleted | None = None

    def cron(self, assistant: str, thread_id: str | None) -> Cron:
        return Cron(
            id=new_cron_id(),
            assistant_id=assistant,
            thread_id=thread_id,
            schedule=self.schedule,
            timezone=self.timezone,
            end_time=_end_time(self.end_time),
            enabled=self.enabled is not False,
            on_run_completed=self.on_run_completed or "delete",
            payload=_merged({}, self.run_fields()),
            metadata=self.metadata or {},
        )


class CronChange(RunFields):
    """What is given replaces what was; null takes it away."""

    schedule: Expression | None = None
    timezone: Name | None = None
    end_time: Name | None = None
    enabled: bool | None = None
    on_run_completed: OnRunCompleted | None = None

    def of(self, before: Cron) -> Cron:
        changes: dict[str, Any] = {
            name: getattr(self, name) for name in self.model_fields_set & (TIMING - {"end_time", "metadata"})
        }
        if "end_time" in self.model_fields_set:
            changes["end_time"] = _end_time(self.end_time)
        if "metadata" in self.model_fields_set:
            changes["metadata"] = self.metadata or {}
        return replace(before, payload=_merged(before.payload, self.run_fields()), **changes)


class Wanted(Strict):
    """Which crons: the body of a count."""

    assistant_id: Name | None = None
    thread_id: Name | None = None
    enabled: bool | None = None
    metadata: JsonObject | None = None

    def filter(self) -> CronFilter:
        given = self.assistant_id
        id_ = None if given is None else assistant_id(given) or default_id(given)
        return CronFilter(id_, self.thread_id, self.enabled, self.metadata or {})


class Search(Wanted):
    limit: Annotated[int, Field(ge=1, le=1000)] = 10
    offset: Annotated[int, Field(ge=0, le=10**9)] = 0
    sort_by: SortBy | None = None
    sort_order: Literal["asc", "desc"] | None = None
    select: list[Field_] | None = None


def router(manager: GraphVersionManager) -> APIRouter:
    routes = APIRouter(tags=["crons"])

    @routes.post("/runs/crons")
    async def create(new: NewCron) -> JSON:
        return JSON((await _create(manager, new, None)).to_json())

    @routes.post("/threads/{thread_id}/runs/crons")
    async def create_for_thread(thread_id: str, new: NewCron) -> JSON:
        thread = await manager.store.runs.thread(thread_id)
        return JSON((await _create(manager, new, thread.id)).to_json())

    @routes.post("/runs/crons/search")
    async def search(wanted: Annotated[Search, Body(default_factory=Search)]) -> JSON:
        found = await manager.crons.rows.search(
            wanted.filter(),
            sort_by=wanted.sort_by or "created_at",
            descending=wanted.sort_order != "asc",
            limit=wanted.limit + 1,  # one more tells whether there is a next page
            offset=wanted.offset,
        )
        headers = {"X-Pagination-Next": str(wanted.offset + wanted.limit)} if len(found) > wanted.limit else None
        return JSON([_selected(cron, wanted.select) for cron in found[: wanted.limit]], headers=headers)

    @routes.post("/runs/crons/count")
    async def count(wanted: Annotated[Wanted, Body(default_factory=Wanted)]) -> JSON:
        return JSON(await manager.crons.rows.count(wanted.filter()))

    @routes.get("/runs/crons/{cron_id}")
    async def get(cron_id: str) -> JSON:
        return JSON((await manager.crons.rows.get(cron_id)).to_json())

    @routes.patch("/runs/crons/{cron_id}")
    async def update(cron_id: str, change: CronChange) -> JSON:
        _refuse_nulls(change)

        def changed(before: Cron) -> Cron:
            return _checked(manager, change.of(before), "on_run_completed" in change.model_fields_set)

        return JSON((await manager.crons.change(cron_id, changed)).to_json())

    @routes.delete("/runs/crons/{cron_id}", status_code=204)
    async def delete(cron_id: str) -> Response:
        await manager.crons.delete(cron_id)
        return Response(status_code=204)

    return routes


async def _create(manager: GraphVersionManager, new: NewCron, thread_id: str | None) -> Cron:
    assistant = await manager.assistants.resolve(new.assistant_id)
    cron = new.cron(assistant.id, thread_id)
    return await manager.crons.add(_checked(manager, cron, new.on_run_completed is not None))


def _checked(manager: GraphVersionManager, cron: Cron, says_what_becomes_of_threads: bool) -> Cron:
    """A cron that can fire, with the run it makes in the form of `runs.kwargs`. Raises `InvalidRequest`."""
    if cron.thread_id is not None and says_what_becomes_of_threads:
        raise InvalidRequest(
            "on_run_completed: a cron on a thread leaves it as it is", code="unsupported", hint="leave it out"
        )
    Schedule.parse(cron.schedule, cron.timezone)
    body = run_body(dumps({**cron.payload, "assistant_id": cron.assistant_id, "metadata": dict(cron.metadata)}))
    if body.webhook is not None:
        manager.addresses.check(body.webhook, "webhook")
    payload = body.kwargs(cron.thread_id)
    if body.multitask_strategy is not None:
        payload["multitask_strategy"] = body.multitask_strategy
    return replace(cron, payload=payload)


def _refuse_nulls(change: CronChange) -> None:
    for name in NEVER_NULL:
        if name in change.model_fields_set and getattr(change, name) is None:
            raise InvalidRequest(f"{name}: it cannot be null", hint="leave it out to keep what it is")


def _merged(before: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    fields = {**before, **given}
    if given.get("checkpoint_during") is not None and given.get("durability") is None:
        fields.pop("durability", None)  # the older name of the same was given
    return {name: value for name, value in fields.items() if value is not None}


def _end_time(given: str | None) -> float | None:
    """A time in ISO 8601, in UTC where it names no offset, in Unix seconds."""
    if given is None:
        return None
    try:
        time_ = datetime.fromisoformat(given)
    except ValueError:
        raise InvalidRequest("end_time: it is no time", hint="as in 2027-01-31T12:00:00+00:00") from None
    if time_.year not in YEARS:
        raise InvalidRequest(f"end_time: a year from {YEARS[0]} to {YEARS[-1]}")
    return (time_ if time_.tzinfo is not None else time_.replace(tzinfo=UTC)).timestamp()


def _selected(cron: Cron, select: list[Field_] | None) -> dict[str, Any]:
    shape = cron.to_json()
    if select is None:
        return shape
    shape["now"] = timestamp(time.time())
    return {name: shape[name] for name in get_args(Field_) if name in select}
