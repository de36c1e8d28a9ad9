"""Graph factories: functions that make a graph anew for every access, called as LangGraph's server calls them.

Owns what a factory is given (which of it, says `parameters`), its forms (plain or async function, sync or async
context manager), the time it may take and the comparison of what it made with the contract of its version. A plain
function runs in a thread, so that compiling a graph holds nobody up; everything async runs in the server's event loop,
where the run itself runs.

Invariant: what a factory opened for a graph is closed when the access is over, whatever happened meanwhile.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import inspect
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Literal, TypeVar

from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from langgraph.store.base import BaseStore
from pydantic import BaseModel

from changeover.build.parameters import Takes
from changeover.deadline import DeadlinePassed, run_in_thread
from changeover.errors import ChangeoverError, Conflict, InvalidRequest, TimedOut

T = TypeVar("T")
CompiledGraph = Pregel[Any, Any, Any, Any]
AccessContext = Literal["threads.create_run", "threads.update", "threads.read", "assistants.read"]
"""Why a graph is wanted, in LangGraph's words: to run it, to write a thread's state, to read it, to describe it."""

RUN: AccessContext = "threads.create_run"
AT_ONCE = 8  # factories at work at one time; more wait
CLOSE_S = 30.0  # what a factory opened must be closed within this

log = logging.getLogger(__name__)

Arguments = tuple[list[Any], dict[str, Any]]
LogicalName = Callable[[str], str | None]
Contract = Callable[[CompiledGraph, LogicalName], dict[str, Any]]


class FactoryFailed(ChangeoverError):
    """The project's factory raised instead of making a graph."""

    default_code = "factory-failed"


class FactoryRoom:
    """Where factories work: how many at once, how long, and on which event loop."""

    def __init__(self, timeout_s: float, store: BaseStore | None = None) -> None:
        self.timeout_s = timeout_s
        self.store = store
        self.loop: asyncio.AbstractEventLoop | None = None
        self.slots = asyncio.Semaphore(AT_ONCE)


@dataclass(frozen=True)
class Factory:
    """A project's factory. `takes` are its parameters in order, by name where they have one for callers, and each is
    `config` or `runtime`."""

    name: str
    call: Callable[..., Any]
    takes: Takes
    context_type: Any
    room: FactoryRoom
    contract_of: Contract
    logical_name: LogicalName
    place_of: Callable[[BaseException], str | None]

    def opened(
        self,
        access: AccessContext,
        config: Mapping[str, Any] | None,
        context: Any,
        expected: Mapping[str, Any] | None,
        schema: Any = None,
        user: Any = None,
    ) -> AbstractAsyncContextManager[CompiledGraph]:
        """The graph for one access. With `expected`, a graph of another contract raises `Conflict`."""
        named = self.context_type if isinstance(self.context_type, type) else schema
        return _Opened(self, access, _config(config), context, expected, named, user)


class AsItIs:
    """An ordinary graph, opened: there is nothing to make and nothing to close."""

    __slots__ = ("_graph",)

    def __init__(self, graph: CompiledGraph) -> None:
        self._graph = graph

    async def __aenter__(self) -> CompiledGraph:
        return self._graph

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class _Opened:
    """One access: the graph is made on entering and let go of on leaving. Errors of the block are never swallowed."""

    def __init__(
        self,
        factory: Factory,
        access: AccessContext,
        config: dict[str, Any],
        context: Any,
        expected: Mapping[str, Any] | None,
        schema: Any,
        user: Any,
    ) -> None:
        self._factory = factory
        self._access = access
        self._config = config
        self._context = context
        self._expected = expected
        self._schema = schema
        self._user = user
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> CompiledGraph:
        room = self._factory.room
        try:
            async with room.slots:
                graph = await self._graph(room.timeout_s)
            self._compare(graph)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return graph

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._stack.__aexit__(kind, error, trace)
        except Exception as failed:  # the project's code; what failed in the block comes before what failed here
            if failed is error:
                return
            if error is None:
                raise self._failed(failed) from failed
            log.warning("factory_not_closed", extra={"graph": self._factory.name, "error": type(failed).__name__})

    async def _graph(self, timeout_s: float) -> CompiledGraph:
        factory = self._factory
        arguments = self._arguments()
        try:
            async with asyncio.timeout(timeout_s) as limit:
                made = await self._made(arguments)
            return _compiled(factory.name, made)
        except (DeadlinePassed, TimeoutError) as error:
            if isinstance(error, TimeoutError) and not limit.expired():
                raise self._failed(error) from error
            said = f"the factory of graph '{factory.name}' did not end within {timeout_s:g} s"
            raise TimedOut(said, code="factory-timeout", hint="move what takes long out of it") from None
        except ChangeoverError:
            raise
        except Exception as error:  # the project's code
            raise self._failed(error) from error

    def _failed(self, error: BaseException) -> FactoryFailed:
        place = self._factory.place_of(error)
        where = f" ({place})" if place else ""
        said = f"the factory of graph '{self._factory.name}' failed: {type(error).__name__}: {error}"[:2000] + where
        return FactoryFailed(said, hint="correct it and save; the version it belongs to cannot run without it")

    async def _made(self, arguments: Arguments) -> Any:
        made = await self._called(arguments)
        if inspect.isawaitable(made):
            made = await made
        if isinstance(made, AsyncGenerator):
            made = asynccontextmanager(lambda: made)()
        elif isinstance(made, Generator):
            made = contextmanager(lambda: made)()
        if hasattr(made, "__aenter__"):
            return await self._stack.enter_async_context(made)
        if hasattr(made, "__enter__"):
            return await self._stack.enter_async_context(_in_thread(made, self._factory.room.timeout_s))
        return made

    async def _called(self, arguments: Arguments) -> Any:
        call = partial(self._factory.call, *arguments[0], **arguments[1])
        if _is_async(self._factory.call):  # only makes a coroutine or a context manager
            return call()
        return await _thread(call, self._factory.room.timeout_s)

    def _arguments(self) -> Arguments:
        given = [(name, self._config if kind == "config" else self._runtime()) for name, kind in self._factory.takes]
        return [value for name, value in given if not name], {name: value for name, value in given if name}

    def _runtime(self) -> Any:
        from langgraph_sdk import runtime  # LangGraph's own classes; imported where a factory asks for them

        shared: dict[str, Any] = {"access_context": self._access, "user": self._user, "store": self._factory.room.store}
        if self._access == RUN:
            return runtime._ExecutionRuntime(**shared, context=_typed(self._context, self._schema))
        return runtime._ReadRuntime(**shared)

    def _compare(self, graph: CompiledGraph) -> None:
        if self._expected is None:
            return
        contract = self._factory.contract_of(graph, self._factory.logical_name)
        if contract != self._expected:
            parts = "; ".join(_differences(self._expected, contract))
            raise Conflict(
                f"the factory of graph '{self._factory.name}' made another graph than its version has: {parts}",
                code="graph-differs",
                hint="nodes, edges and state must be the same for every config; what differs belongs into the nodes",
            )


def _compiled(name: str, made: Any) -> CompiledGraph:
    if isinstance(made, StateGraph):
        return made.compile(name=name)
    if not isinstance(made, Pregel):
        raise TypeError(f"it gave a {type(made).__name__}, not a graph")
    return made if made.name != "LangGraph" else made.copy({"name": name})


def _config(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """A config of its own for the factory, with what every config has; LangGraph's private entries stay outside."""
    given = dict(config or {})
    configurable = {key: value for key, value in (given.get("configurable") or {}).items() if not key.startswith("__")}
    return {
        **given,
        "tags": list(given.get("tags") or ()),
        "metadata": dict(given.get("metadata") or {}),
        "configurable": configurable,
    }


def _is_async(call: Callable[..., Any]) -> bool:
    inner = inspect.unwrap(call)
    own = getattr(call, "__call__", None)  # noqa: B004
    return any(
        inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function) for function in (call, inner, own)
    )


def _typed(context: Any, schema: Any) -> Any:
    """The run's context as the type that the factory or its graph names."""
    is_model = isinstance(schema, type) and (dataclasses.is_dataclass(schema) or issubclass(schema, BaseModel))
    if not is_model or not isinstance(context, Mapping):
        return context
    try:
        return schema(**context)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"this context is none for the graph: {error}", code="context") from None


async def _thread(call: Callable[[], T], timeout_s: float, discard: Callable[[T], None] | None = None) -> T:
    return await run_in_thread(partial(contextvars.copy_context().run, call), timeout_s, discard)


@asynccontextmanager
async def _in_thread(manager: Any, timeout_s: float) -> AsyncGenerator[Any, None]:
    """A plain context manager of the project, entered and left in threads."""
    leave = partial(manager.__exit__, None, None, None)

    def leave_late(_: Any) -> None:  # it was entered when nobody waited for it any more
        threading.Thread(target=leave, name="changeover-factory", daemon=True).start()

    entered = await _thread(manager.__enter__, timeout_s, leave_late)
    try:
        yield entered
    except BaseException as error:
        await _thread(partial(manager.__exit__, type(error), error, error.__traceback__), CLOSE_S)
        raise
    await _thread(leave, CLOSE_S)


def _differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    said: list[str] = []
    for part in sorted({*expected, *found}):
        old, new = expected.get(part), found.get(part)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping) and part in ("channels", "nodes"):
            said += [f"{part} without '{name}'" for name in sorted(old.keys() - new.keys())]
            said += [f"{part} with '{name}'" for name in sorted(new.keys() - old.keys())]
            said += [
                f"{part} with another '{name}'" for name in sorted(old.keys() & new.keys()) if old[name] != new[name]
            ]
        else:
            said.append(f"another {part.replace('_', ' ')}")
    return said[:10]
