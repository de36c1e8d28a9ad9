"""Assistants: what clients may run. A graph under its name, or a graph with settings of its own.

Each graph has a default assistant, whose id follows from its name; it has rows only once somebody has changed it.
Owns what an assistant is and what it adds to a run. Whether its graph is served, and by which version, is decided
for each run by `routing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4, uuid5

from changeover.errors import Conflict, NotFound
from changeover.store import assistants as stored
from changeover.store.assistants import SortBy
from changeover.store.known_routing import KnownRouting
from changeover.store.records.assistant import Assistant, AssistantFilter
from changeover.store.records.ids import AssistantId
from changeover.store.records.routing import Routing
from changeover.store.records.version import GraphEntry, Version
from changeover.store.versions import Versions

NAMESPACE = UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")  # the LangGraph server's, so that ids agree
UNTITLED = "Untitled"
MERGED_BY_KEY = ("configurable", "metadata")

Served = Mapping[str, tuple[Version, GraphEntry]]


@dataclass(frozen=True)
class AssistantChange:
    """What is given replaces what was, except that `metadata` is merged into it."""

    graph: str | None = None
    name: str | None = None
    description: str | None = None
    config: Mapping[str, Any] | None = None
    context: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] | None = None

    def of(self, before: Assistant) -> Assistant:
        return replace(
            before,
            graph=before.graph if self.graph is None else self.graph,
            name=before.name if self.name is None else self.name,
            description=before.description if self.description is None else self.description,
            config=before.config if self.config is None else self.config,
            context=before.context if self.context is None else self.context,
            metadata={**before.metadata, **(self.metadata or {})},
        )


def default_id(graph: str) -> AssistantId:
    return AssistantId(str(uuid5(NAMESPACE, graph)))


def assistant_id(given: str) -> AssistantId | None:
    """The id as rows have it, or None if the text is none."""
    try:
        return AssistantId(str(UUID(given))) if len(given) == 36 else None
    except ValueError:
        return None


def applied(
    assistant: Assistant,
    config: Mapping[str, Any] | None,
    context: Mapping[str, Any] | None,
    metadata: Mapping[str, Any] | None,
) -> tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any]]:
    """Config, context and metadata of a run: the assistant's, and over them the run's own.

    `configurable` and `metadata` of the config, the context and the metadata are merged key by key; without any
    context on either side it stays None. The metadata names the assistant and its graph, whatever the run says.
    """
    own = config or {}
    merged = {**assistant.config, **own}
    for name in MERGED_BY_KEY:
        if name in assistant.config and name in own:
            merged[name] = {**(assistant.config[name] or {}), **(own[name] or {})}
    whole_context = None if context is None and not assistant.context else {**assistant.context, **(context or {})}
    identity = {"graph_id": assistant.graph, "assistant_id": assistant.id}
    return merged, whole_context, {**assistant.metadata, **(metadata or {}), **identity}


class Assistants:
    """The assistants of a project: those with rows, and the default ones of its graphs."""

    def __init__(
        self,
        rows: stored.Assistants,
        routing: KnownRouting,
        versions: Versions,
    ) -> None:
        self._rows = rows
        self._routing = routing
        self._versions = versions
        self._revision = 0
        self._served: Served = {}
        self._since: Mapping[str, float] = {}
        self._names: Mapping[str, str] = {}

    async def resolve(self, given: str) -> Assistant:
        """The assistant that a client names by its id or by the name of a graph. Raises `unknown-assistant`."""
        id_ = assistant_id(given)
        found = await self._rows.get(id_ or default_id(given))
        if found is None:
            found = await (self._default_of_id(id_) if id_ else self._default(given))
        if found is None:
            raise stored.unknown(given)
        return found

    async def served(self) -> Served:
        """Every graph that new threads may use, with the version that serves it."""
        routing = self._routing.now
        if routing is None:
            return {}
        if routing.revision != self._revision:  # what the versions of a routing have does not change
            ids = {routing.current, *routing.graphs.values()}
            self._served = _served(routing, {id_: await self._versions.get(id_) for id_ in ids})
            self._revision = routing.revision
        return self._served

    async def create(self, new: AssistantChange, id_: AssistantId | None, or_get: bool) -> Assistant:
        """A new assistant. Raises `unknown-graph` if no version serves its graph, `assistant-exists` for a taken id."""
        graph = new.graph or ""
        await self._must_serve(graph)
        id_ = id_ or AssistantId(str(uuid4()))
        blank = Assistant(id_, graph, 1, UNTITLED, None, {}, {}, {}, 0.0, 0.0)
        assistant, created = await self._rows.put(new.of(blank), await self._default_of_id(id_))
        if not created and not or_get:
            raise stored.exists(assistant)
        return assistant

    async def change(self, given: str, change: AssistantChange) -> Assistant:
        """A further version of the assistant, which applies from now on."""
        if change.graph is not None:
            await self._must_serve(change.graph)
        before = await self.resolve(given)
        return await self._rows.change(before.id, change.of, await self._default_of_id(before.id))

    async def set_latest(self, given: str, version: int) -> Assistant:
        """Let another of its versions apply."""
        before = await self.resolve(given)
        return await self._rows.set_latest(before.id, version, await self._default_of_id(before.id))

    async def versions(
        self, given: str, metadata: Mapping[str, Any], *, limit: int, offset: int
    ) -> Sequence[Assistant]:
        assistant = await self.resolve(given)
        default = await self._default_of_id(assistant.id)
        return await self._rows.versions(assistant.id, metadata, limit, offset, default)

    async def deletable(self, given: str) -> Assistant:
        """The assistant, if it can be deleted: a default one that nobody changed comes from its graph."""
        assistant = await self.resolve(given)
        if await self._rows.get(assistant.id) is None:
            raise Conflict(
                f"'{assistant.graph}' is the default assistant of its graph and stays as long as the graph is there",
                code="default-assistant",
                hint="take the graph out of the project",
            )
        return assistant

    async def delete(self, assistant: Assistant) -> None:
        """Delete it; a default one is as its graph makes it again."""
        is_default = await self._default_of_id(assistant.id) is not None
        if not await self._rows.delete(assistant.id, keep_crons=is_default):
            raise stored.unknown(assistant.id)

    async def threads(self, assistant: Assistant) -> Sequence[str]:
        """The ids of its threads."""
        return await self._rows.threads(assistant.id)

    async def search(
        self, wanted: AssistantFilter, *, sort_by: SortBy, descending: bool, limit: int, offset: int
    ) -> Sequence[Assistant]:
        return await self._rows.search(
            wanted, await self._defaults(), sort_by=sort_by, descending=descending, limit=limit, offset=offset
        )

    async def count(self, wanted: AssistantFilter) -> int:
        return await self._rows.count(wanted, await self._defaults())

    # --- default assistants ----------------------------------------------------------------------

    async def _defaults(self) -> list[Assistant]:
        found = [await self._default(graph) for graph in await self.served()]
        return [assistant for assistant in found if assistant is not None]

    async def _default(self, graph: str) -> Assistant | None:
        """What a graph is without anybody's settings. None if no version ever had such a graph."""
        if graph not in self._since:
            self._since = await self._rows.graphs()
            self._names = {default_id(name): name for name in self._since}
        if graph not in self._since:
            return None
        since = self._since[graph]
        version, entry = (await self.served()).get(graph, (None, None))
        return Assistant(
            id=default_id(graph),
            graph=graph,
            version=1,
            name=graph,
            description=(entry.description or None) if entry else None,
            config={},
            context={},
            metadata={"created_by": "system"},
            created_at=since,
            updated_at=max(since, version.created_at) if version else since,
        )

    async def _default_of_id(self, id_: AssistantId) -> Assistant | None:
        if id_ not in self._names:
            self._since = await self._rows.graphs()
            self._names = {default_id(name): name for name in self._since}
        name = self._names.get(id_)
        return None if name is None else await self._default(name)

    async def _must_serve(self, graph: str) -> None:
        served = await self.served()
        if graph not in served:
            known = ", ".join(sorted(served)[:20]) or "none"
            raise NotFound(
                f"no version that serves has a graph or agent '{graph[:255]}'",
                code="unknown-graph",
                hint=f"those that are served: {known}",
            )


def _served(routing: Routing, versions: Mapping[str, Version]) -> Served:
    found: dict[str, tuple[Version, GraphEntry]] = {}
    for name in sorted({*versions[routing.current].graphs, *routing.graphs}):
        version = versions[routing.version_for(name)]
        if name in version.graphs:
            found[name] = (version, version.graphs[name])
    return found
