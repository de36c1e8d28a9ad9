"""A run that is executing: LangGraph's stream of one graph, as parts.

Its stream may have several legs. At a boundary whoever asked for it decides: the run goes on, with the graph of
another version if it was handed over, in the same stream; or it is let go of.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, suppress
from types import TracebackType
from typing import Any, Protocol, Self, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphDrained
from langgraph.types import StreamMode

from changeover.build.loaded import CompiledGraph
from changeover.build.modules import CodeTree
from changeover.checkpoints.fence import FENCE, Fence
from changeover.runs.arrivals import with_answers_by
from changeover.runs.control import Boundary
from changeover.runs.inflight import Flight
from changeover.runs.request import PLACE, Part, RunRequest
from changeover.runs.seams import Seams
from changeover.runs.transformers import Transformers
from changeover.store.landings import Landing
from changeover.store.records.outcome import Outcome
from changeover.store.records.run import Run
from changeover.store.records.thread import Waiting

INTERRUPT = "__interrupt__"
EVENTS = "events"
# LangGraph's own words in the configuration.
CONTENT_EVENTS = "__pregel_stream_messages_v2"  # messages as events of their content blocks, instead of chunks
STRICT_RESUME = "__pregel_strict_resume"  # an answer to an interrupt that does not wait is an error


class Observer(Protocol):
    """Somebody who follows every run of a process. Called synchronously; must neither wait nor raise."""

    def began(self, run: Run, request: RunRequest) -> Collection[str] | None:
        """It executes from now on. Returns the stream modes that are wanted of it; None to hear no more of it."""

    def part(self, run: Run, part: Part) -> None:
        """A part that LangGraph gave, in whatever mode."""

    def ended(self, run: Run, outcome: Outcome) -> None:
        """Its end is committed; it may never have begun."""


@dataclasses.dataclass(frozen=True)
class Opened:
    """A graph of the run's version, ready to be run, the code that it came from, and its contract."""

    graph: CompiledGraph
    tree: CodeTree | None
    contract: Mapping[str, Any]


Open = Callable[[], AbstractAsyncContextManager[Opened]]


Ask = Callable[["LiveRun"], Awaitable[None]]


class LiveRun:
    """The row of a run that executes, and the stream of its parts, which is read once.

    `open_` opens the graph of the version that the run is on. `at_boundary` is asked where the run has stopped because
    it should, and changes its version or raises what ends it here; `find_what_is_left` sets what it goes on with.
    """

    graph: CompiledGraph
    contract: Mapping[str, Any]

    def __init__(
        self,
        request: RunRequest,
        flight: Flight,
        open_: Open,
        observers: Sequence[Observer],
        at_boundary: Ask,
        find_what_is_left: Ask,
    ) -> None:
        self.request = request  # what is left of what was asked
        self.asked = request
        self.flight = flight
        self._open = open_
        self._at_boundary = at_boundary
        self._find_what_is_left = find_what_is_left
        self._stack = AsyncExitStack()
        self._tree: CodeTree | None = None
        self._seams = Seams()
        self._renamed_tasks: Mapping[str, str] | None = None  # of a migration at the boundary
        self._has_begun = False  # its first event was told
        self._observers: list[Observer] = []
        self._extra: set[str] = set()
        for observer in observers:
            wanted = observer.began(flight.run, request)
            if wanted is not None:
                self._observers.append(observer)
                self._extra.update(wanted)
        if request.webhook:
            self._extra.add("values")
        self.values: Any = None  # the last that it streamed
        self.waiting: Waiting | None = None
        self.interrupts: list[Any] = []

    async def __aenter__(self) -> Self:
        await self._enter_graph()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _enter_graph(self) -> None:
        opened = await self._stack.enter_async_context(self._open())
        self.graph, self._tree, self.contract = opened.graph, opened.tree, opened.contract
        self._go()

    async def move_to(self, opened: Opened, stack: AsyncExitStack, landing: Landing | None) -> None:
        """From here on it runs this graph, which `stack` closes. `landing`: of its thread, if that was migrated."""
        left, self._stack = self._stack, stack
        self.graph, self._tree, self.contract = opened.graph, opened.tree, opened.contract
        if landing is not None:
            self.asked = with_answers_by(self.asked, landing.interrupts)
            self._renamed_tasks = landing.tasks
        await left.aclose()

    def _go(self) -> None:
        self.flight.goes_on(Boundary(self.graph, keeps_inner=self.request.durability != "exit"))

    def go_on_with(self, request: RunRequest, waiting: Waiting | None) -> None:
        """Run this instead of what was asked for first: what is left of it. Nothing, where it waits for somebody."""
        self.request = request
        self.waiting = waiting

    @property
    def run(self) -> Run:
        return self.flight.run

    def place_of(self, error: BaseException) -> str | None:
        """Where in the project's own code an error was raised."""
        return self._tree.place_of(error) if self._tree else None

    @property
    def config(self) -> RunnableConfig:
        """What the graph is run with."""
        return run_config(
            self.request, self.run, self.graph.checkpointer if self.request.thread_id else InMemorySaver()
        )

    def _watched(self) -> RunnableConfig:
        """The same, seen by who counts what it does."""
        watch = self.flight.watch
        return self.config if watch is None else watch.on(self.run.version, self.config)

    async def parts(self) -> AsyncGenerator[Part, None]:
        """LangGraph's stream in the modes that were asked for, in its order."""
        wanted = set(self.request.stream_modes)
        async with aclosing(self._legs()) as parts:
            async for part in parts:
                if part.mode == "updates":
                    self._note(part)
                elif part.mode == "tasks":
                    self.flight.note_task(part.namespace, part.data)
                elif part.mode == "values" and not part.namespace:
                    self.values = part.data
                for observer in self._observers:
                    observer.part(self.run, part)
                if part.mode in wanted:
                    yield part

    async def _legs(self) -> AsyncGenerator[Part, None]:
        """The stream from boundary to boundary at which the run was asked to stop, as one."""
        while self.waiting is None:
            try:
                async with aclosing(self._stream()) as parts:
                    async for part in parts:
                        if not self._seams.is_repeated(part):
                            yield part
                return
            except GraphDrained:
                await self._go_on()

    async def _go_on(self) -> None:
        """Continue from the boundary, on whatever version the run is on after it."""
        await self._at_boundary(self)
        self._seams.went_on(self._renamed_tasks)
        self._renamed_tasks = None
        self._go()
        await self._find_what_is_left(self)

    async def answer(self) -> Any:
        """What `ainvoke` gives: the last values, with open interrupts under `__interrupt__`."""
        latest: Any = None
        async for part in self.parts():
            if part.mode == "values" and not part.namespace:
                latest = part.data
        return with_interrupts(latest, self.interrupts) if self.interrupts else latest

    def options(self, modes: Collection[str], *, subgraphs: bool) -> dict[str, Any]:
        """The keywords of LangGraph's `astream` for this run."""
        request = self.request
        return {
            "context": self._context(),
            "stream_mode": cast("list[StreamMode]", list(modes)),
            "output_keys": self.graph.output_channels if request.final_output else None,
            "interrupt_before": request.interrupt_before,
            "interrupt_after": request.interrupt_after,
            "durability": request.durability,
            "control": self.flight.control,
            "subgraphs": subgraphs,
        }

    def _stream(self) -> AsyncGenerator[Part, None]:
        modes = {*self.request.stream_modes, *self._extra, "updates"}
        if EVENTS in modes:
            return self._events(modes - {EVENTS})
        if self.request.content_events:
            return self._content_events(modes)
        return self._chunks(modes)

    async def _chunks(self, modes: Collection[str]) -> AsyncGenerator[Part, None]:
        asked = self.request.subgraphs
        subgraphs = asked or bool(self._observers)
        options = self.options({*modes, "tasks"}, subgraphs=subgraphs)  # they tell which nodes are at work
        self.flight.at_work = {}
        stream = self.graph.astream(self.request.input, self._watched(), **options)
        async with aclosing(cast("AsyncGenerator[Any, None]", stream)) as chunks:
            async for chunk in chunks:
                part = Part(*chunk) if subgraphs else Part((), *chunk)
                if part.namespace and not asked:
                    for observer in self._observers:
                        observer.part(self.run, part)
                    continue
                yield part

    async def _content_events(self, modes: Collection[str]) -> AsyncGenerator[Part, None]:
        config = self._watched()
        config["configurable"][CONTENT_EVENTS] = True
        transformers = Transformers.of(self.graph)
        options = self.options(
            {*modes, *(transformers.modes if transformers else ())}, subgraphs=self.request.subgraphs
        )
        stream = self.graph.astream(self.request.input, config, version="v2", **options)
        chunks = cast("AsyncGenerator[Any, None]", stream)
        async with aclosing(transformers.parts(chunks) if transformers else _parts(chunks)) as parts:
            async for part in parts:
                yield part

    async def _events(self, modes: Collection[str]) -> AsyncGenerator[Part, None]:
        """Every event of LangChain's callbacks; those of the graph's own stream carry the other modes."""
        config = self._watched()
        root = str(config.get("run_id") or uuid.uuid4())
        config["run_id"] = uuid.UUID(root)
        options = self.options(modes, subgraphs=True)
        stream = self.graph.astream_events(self.request.input, config, version="v2", **options)
        async with aclosing(cast("AsyncGenerator[Any, None]", stream)) as events:
            async for event in events:
                begins = event["event"] == "on_chain_start" and event["run_id"] == root
                if not (begins and self._has_begun):
                    yield Part((), EVENTS, event)
                self._has_begun = self._has_begun or begins
                if event["event"] == "on_chain_stream" and event["run_id"] == root:
                    part = Part(*event["data"]["chunk"])
                    if self.request.subgraphs or not part.namespace:
                        yield part

    def _context(self) -> Any:
        """The context that was given; a graph that wants one and got none takes what is configurable for it."""
        request = self.request
        schema = self.graph.context_schema
        if request.context is not None or schema is None:
            return request.context
        configurable: Mapping[str, Any] = request.config.get("configurable", {})
        known = _fields(schema)
        found = {key: value for key, value in configurable.items() if key in known}
        return found or None

    def _note(self, part: Part) -> None:
        """Updates tell where the run stands: the node that finished, or that it waits, and for what."""
        if part.namespace or not isinstance(part.data, dict):
            return
        if INTERRUPT in part.data:
            known = {interrupt.id for interrupt in self.interrupts}
            self.interrupts.extend(interrupt for interrupt in part.data[INTERRUPT] if interrupt.id not in known)
            self.waiting = "interrupt" if self.interrupts else "breakpoint"
        else:
            self.flight.node = next(iter(part.data), None)


async def _parts(stream: AsyncGenerator[Any, None]) -> AsyncGenerator[Part, None]:
    async with aclosing(stream) as chunks:
        async for chunk in chunks:
            yield Part(tuple(chunk["ns"]), chunk["type"], chunk["data"])


def with_interrupts(values: Any, interrupts: Sequence[Any]) -> dict[str, Any]:
    return {**(values if isinstance(values, dict) else {}), INTERRUPT: list(interrupts)}


def _fields(schema: Any) -> Collection[str]:
    if dataclasses.is_dataclass(schema):
        return [field.name for field in dataclasses.fields(schema)]
    return getattr(schema, "model_fields", None) or getattr(schema, "__annotations__", {})


def run_config(request: RunRequest, run: Run, saver: Any) -> RunnableConfig:
    """The caller's config with the thread, the saver and the tags that every checkpoint of the run carries.

    What a graph reads of it by LangGraph's custom is there too: the ids of run, graph and assistant, and the context.
    """
    given = dict(request.config)
    context = request.context if isinstance(request.context, Mapping) else {}
    ids = {"run_id": run.id, "graph_id": run.graph}
    if request.assistant_id:
        ids["assistant_id"] = request.assistant_id
    configurable = {
        **context,
        **given.get("configurable", {}),
        **ids,
        "thread_id": request.thread_id or run.id,
        **_place(request.checkpoint),
        "__pregel_checkpointer": saver,
        FENCE: Fence(run.id, run.fence),
    }
    if request.strict_resume:
        configurable[STRICT_RESUME] = True
    metadata = {**given.get("metadata", {}), **request.metadata, "changeover_version": run.version, **ids}
    config: RunnableConfig = {**given, "configurable": configurable, "metadata": metadata}  # type: ignore[typeddict-item]
    with suppress(ValueError):  # traces are found by the run's id, where it has the form of one
        config["run_id"] = uuid.UUID(run.id)
    return config


def _place(checkpoint: Mapping[str, Any] | None) -> dict[str, Any]:
    if checkpoint is None:
        return {}
    return {key: checkpoint[key] for key in PLACE if checkpoint.get(key)}
