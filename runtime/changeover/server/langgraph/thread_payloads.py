"""Requests about threads, checked."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from langgraph.types import StateUpdate
from pydantic import AfterValidator, Field

from changeover.errors import InvalidRequest
from changeover.runs.kwargs import command_of
from changeover.runs.threads import Place, Supersteps
from changeover.server.langgraph.objects import JsonObject, storable
from changeover.server.langgraph.payloads import THREAD_ID, CommandBody, Strict
from changeover.store.thread_search import SortBy, ThreadFilter
from changeover.store.threads import TimeToLive

TTL_LIMIT_MIN = 60.0 * 24 * 366 * 100
PATHS_LIMIT = 10
PATH = re.compile(r"[A-Za-z_][\w-]*(?:\.[\w-]+|\[-?\d{1,9}\])*")

ThreadField = Literal[
    "thread_id",
    "created_at",
    "updated_at",
    "state_updated_at",
    "metadata",
    "config",
    "context",
    "status",
    "values",
    "interrupts",
]
StateField = Literal[
    "values", "next", "tasks", "checkpoint", "metadata", "created_at", "parent_checkpoint", "interrupts"
]
Id = Annotated[str, Field(pattern=f"^{THREAD_ID}$")]
CheckpointId = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(storable)]
Namespace = Annotated[str, Field(max_length=10_000), AfterValidator(storable)]
Limit = Annotated[int, Field(ge=1, le=1000)]
Offset = Annotated[int, Field(ge=0, le=10**9)]
Minutes = Annotated[float, Field(gt=0, le=TTL_LIMIT_MIN, strict=False)]
Values = Annotated[Any, AfterValidator(storable)]


class TtlBody(Strict):
    ttl: Minutes
    strategy: Literal["delete", "keep_latest"] = "delete"


Ttl = TtlBody | Minutes


def time_to_live(given: TtlBody | float | None) -> TimeToLive | None:
    if given is None:
        return None
    return TimeToLive(given.strategy, given.ttl) if isinstance(given, TtlBody) else TimeToLive("delete", given)


class UpdateBody(Strict):
    values: Values = None
    command: CommandBody | None = None
    as_node: str | None = None

    def update(self) -> StateUpdate:
        if self.command is not None and self.values is not None:
            raise InvalidRequest("supersteps: an update has values or a command, not both")
        if self.command is None:
            return StateUpdate(self.values, self.as_node)
        command: Any = command_of(self.command.model_dump(exclude_unset=True))
        return StateUpdate(command, self.as_node)


class Superstep(Strict):
    updates: Annotated[list[UpdateBody], Field(min_length=1, max_length=1000)]


class NewThreadBody(Strict):
    thread_id: Id | None = None
    metadata: JsonObject | None = None
    graph_id: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    if_exists: Literal["raise", "do_nothing"] | None = None
    supersteps: Annotated[list[Superstep], Field(max_length=10_000)] | None = None
    ttl: Ttl | None = None

    @property
    def whole_metadata(self) -> dict[str, Any]:
        return {**(self.metadata or {}), **({"graph_id": self.graph_id} if self.graph_id else {})}

    def updates(self) -> Supersteps:
        return [[update.update() for update in step.updates] for step in self.supersteps or []]


class ThreadPatch(Strict):
    metadata: JsonObject | None = None
    ttl: Ttl | None = None


class MetadataPatch(Strict):
    metadata: JsonObject


class PlaceBody(Strict):
    """A place in a thread, as clients have it from a state."""

    thread_id: str | None = None
    checkpoint_ns: Namespace | None = None
    checkpoint_id: CheckpointId | None = None
    checkpoint_map: Annotated[dict[str, str], AfterValidator(storable)] | None = None

    def place(self, thread_id: str) -> Place:
        if self.thread_id not in (None, thread_id):
            raise InvalidRequest("checkpoint.thread_id: it is not the thread of the path")
        namespace = self.checkpoint_ns or ""
        id_ = self.checkpoint_id or (self.checkpoint_map or {}).get(namespace)
        return Place(id_, namespace, self.checkpoint_map or None)


def place_of(checkpoint: PlaceBody | None, checkpoint_id: str | None, thread_id: str) -> Place:
    place = checkpoint.place(thread_id) if checkpoint is not None else Place()
    if checkpoint_id is None or place.checkpoint_id == checkpoint_id:
        return place
    if place.checkpoint_id is not None:
        raise InvalidRequest("checkpoint and checkpoint_id: they name different checkpoints", hint="send one of them")
    return Place(checkpoint_id, place.namespace, place.checkpoint_map)


class ConfigWithCheckpoint(Strict):
    """The older form of a place: LangGraph's config."""

    configurable: PlaceBody


def selected_field(given: str) -> str:
    if given in StateField.__args__ or given.startswith("values."):  # type: ignore[attr-defined]
        return given
    raise ValueError(f"a state has no '{given[:100]}'")


Select = Annotated[list[Annotated[str, AfterValidator(selected_field)]], Field(max_length=1000)]


class StateQuery(Strict):
    checkpoint: PlaceBody
    subgraphs: bool | None = None
    select: Select | None = None


class StateUpdateBody(Strict):
    values: Values = None
    as_node: Annotated[str, Field(min_length=1)] | None = None
    checkpoint: PlaceBody | None = None
    checkpoint_id: CheckpointId | None = None


class HistoryQuery(Strict):
    limit: Limit = 10
    before: CheckpointId | PlaceBody | ConfigWithCheckpoint | None = None
    metadata: JsonObject | None = None
    checkpoint: PlaceBody | None = None
    select: Select | None = None

    def before_id(self, thread_id: str) -> str | None:
        if self.before is None or isinstance(self.before, str):
            return self.before
        body = self.before.configurable if isinstance(self.before, ConfigWithCheckpoint) else self.before
        id_ = body.place(thread_id).checkpoint_id
        if id_ is None:
            raise InvalidRequest("before: it names no checkpoint", hint="send a checkpoint_id")
        return id_


class ThreadsWanted(Strict):
    """Which threads: the body of a count."""

    metadata: JsonObject | None = None
    values: JsonObject | None = None
    status: Literal["idle", "busy", "interrupted", "error"] | None = None
    ids: Annotated[list[Id], Field(max_length=10_000)] | None = None

    def filter(self) -> ThreadFilter:
        return ThreadFilter(self.metadata or {}, self.status, self.ids)


def path_of(given: str) -> str:
    if PATH.fullmatch(given) is None or len(given) > 1000:
        raise ValueError("a path such as values.messages[-1].content")
    return given


Path_ = Annotated[str, AfterValidator(path_of)]
Alias = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(storable)]


class ThreadSearch(ThreadsWanted):
    limit: Limit = 10
    offset: Offset = 0
    sort_by: SortBy | None = None
    sort_order: Literal["asc", "desc"] | None = None
    select: list[ThreadField] | None = None
    extract: Annotated[dict[Alias, Path_], Field(max_length=PATHS_LIMIT)] | None = None


class PruneBody(Strict):
    thread_ids: Annotated[list[Id], Field(max_length=1000)]
    strategy: Literal["delete", "keep_latest"] = "delete"
