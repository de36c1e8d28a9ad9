"""What clients ask of a thread, each command answered in the protocol's words, done or not.

Owns the meaning of commands; how they come and where answers go is `http`'s and `websocket`'s. Subscriptions belong to
a connection and are not found here.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langgraph.types import StateSnapshot

from changeover.errors import ChangeoverError, NotFound
from changeover.manager import GraphVersionManager
from changeover.runs.threads import Place
from changeover.server.langgraph.execution import accepted
from changeover.server.langgraph.payloads import CommandBody, RunBody
from changeover.server.langgraph.requests import run_request
from changeover.server.langgraph.v3 import tree
from changeover.server.langgraph.v3.answers import Refused, failure, failure_of, success
from changeover.server.langgraph.v3.events import RUN_MODES
from changeover.server.langgraph.v3.hub import Hub
from changeover.server.langgraph.v3.payloads import (
    Command,
    Fork,
    GetTree,
    InputRespond,
    ListCheckpoints,
    RunStart,
    StateGet,
    params,
)
from changeover.store.records.run import Run
from changeover.store.records.thread import Thread

log = logging.getLogger(__name__)

SETTLE_S = 10.0  # how long an answer waits for the end of the run that asked to be written
NOT_SUPPORTED = {
    "input.inject": "a run takes no input while it is at work; start the next one with run.start",
    "subscription.subscribe": "over HTTP a subscription is a stream: POST to stream/events",
    "subscription.unsubscribe": "over HTTP a subscription ends with its stream",
    "subscription.reconnect": "subscriptions end with their connection: subscribe again, with `since`",
}


@dataclass(frozen=True)
class Terms:
    """What a caller insists on beside the command: a version to be served by, a state that the thread still has."""

    version: str | None = None
    seen: Sequence[str] = ()  # tags of its state


@dataclass(frozen=True)
class Answered:
    """An answer, and the version that gave it where it is about a run."""

    body: dict[str, Any]
    version: str | None = None


@dataclass(frozen=True)
class Done:
    result: dict[str, Any]
    version: str | None = None


class Commands:
    """The commands of all threads."""

    def __init__(self, manager: GraphVersionManager, hub: Hub) -> None:
        self._manager = manager
        self._hub = hub
        self._methods: Mapping[str, Callable[[str, Any, Terms], Awaitable[Done]]] = {
            "run.start": self._start,
            "input.respond": self._respond,
            "state.get": self._state,
            "state.listCheckpoints": self._checkpoints,
            "state.fork": self._fork,
            "agent.getTree": self._tree,
        }

    async def handle(self, thread_id: str, command: Command, terms: Terms) -> Answered:
        """Do a command. Raises nothing."""
        try:
            through = self._hub.thread(thread_id).last
            method = self._methods.get(command.method)
            if method is None:
                raise _unknown(command.method)
            done = await method(thread_id, command.params, terms)
        except Refused as refused:
            return Answered(failure(command.id, refused.code, refused.message))
        except ChangeoverError as error:
            return Answered(failure_of(command.id, error))
        except Exception:  # border: what nobody foresaw is logged here and answered without its internals
            log.exception("command_failed", extra={"method": command.method[:50]})
            return Answered(failure(command.id, "unknown_error", "an unexpected error; the server's log has it"))
        meta: dict[str, Any] = {"thread_id": thread_id, "applied_through_seq": through}
        if done.version is not None:
            meta["changeover_version"] = done.version
        return Answered(success(command.id, done.result, meta), done.version)

    # --- runs ------------------------------------------------------------------------------------

    async def _start(self, thread_id: str, given: Any, terms: Terms) -> Done:
        """A new run; where the thread waits for answers, an input is the answer."""
        wanted = params(RunStart, given)
        if wanted.langsmith_tracer is not None:
            raise Refused("not_supported", "langsmith_tracer: set LANGSMITH_PROJECT in the environment of the server")
        body = RunBody(
            assistant_id=wanted.assistant_id,
            config=wanted.config,
            metadata=wanted.metadata,
            multitask_strategy=wanted.strategy,
        )
        await self._settled(thread_id)
        is_fork = bool(((wanted.config and wanted.config.configurable) or {}).get("checkpoint_id"))
        if wanted.input is not None and not is_fork and await self._asked(thread_id):
            body.command = CommandBody(resume=wanted.input)
        else:
            body.input = wanted.input
        run = await self._submit(thread_id, body, terms, wanted.if_match)
        return Done({"run_id": run.id}, run.version)

    async def _respond(self, thread_id: str, given: Any, terms: Terms) -> Done:
        """Answer interrupts, in one run. The one that asked may still be about to end."""
        wanted = params(InputRespond, given)
        await self._settled(thread_id)
        asked = await self._asked(thread_id)
        if unknown := sorted(set(wanted.answers) - asked):
            raise Refused("no_such_interrupt", f"interrupt '{unknown[0]}' does not wait for an answer, or no longer")
        more = wanted.model_dump(include={"update", "goto"}, exclude_unset=True, exclude_none=True)
        body = RunBody(
            assistant_id=await self._assistant_of(thread_id),
            command=CommandBody(resume=wanted.answers, **more),
            config=wanted.config,
            metadata=wanted.metadata,
        )
        run = await self._submit(thread_id, body, terms, wanted.if_match)
        return Done({"run_id": run.id}, run.version)

    async def _fork(self, thread_id: str, given: Any, terms: Terms) -> Done:
        wanted = params(Fork, given)
        body = RunBody(
            assistant_id=await self._assistant_of(thread_id),
            input=wanted.input,
            config=wanted.config,
            checkpoint_id=wanted.checkpoint_id,
        )
        run = await self._submit(thread_id, body, terms)
        return Done({"run_id": run.id, "thread_id": thread_id}, run.version)

    async def _submit(self, thread_id: str, body: RunBody, terms: Terms, if_match: str | None = None) -> Run:
        body.stream_mode = list(RUN_MODES)
        body.stream_subgraphs = True
        body.if_not_exists = "create"
        request = await run_request(
            self._manager, body, thread_id, terms.version, seen=terms.seen if if_match is None else (if_match,)
        )
        kwargs = {**(request.kwargs or {}), "content_events": True}
        self._hub.thread(thread_id)
        return await accepted(self._manager.submit(replace(request, content_events=True, kwargs=kwargs)))

    async def _settled(self, thread_id: str) -> None:
        """Until the end of the run that is at work on the thread, if it asked for something, is written."""
        flights = [flight for flight in self._manager.in_flight.on() if flight.run.thread_id == thread_id]
        if any(self._hub.has_asked(flight.run.id) for flight in flights):
            await self._manager.in_flight.landed(flights, SETTLE_S)

    async def _asked(self, thread_id: str) -> set[str]:
        """The ids of the interrupts that wait for an answer."""
        try:
            snapshot = await self._snapshot(thread_id)
        except Refused:
            return set()
        return {interrupt.id for interrupt in snapshot.interrupts} if snapshot else set()

    async def _assistant_of(self, thread_id: str) -> str:
        """Who ran last on the thread."""
        last = await self._manager.store.runs.list(thread_id=thread_id, limit=1)
        if last:
            return last[0].assistant_id or last[0].graph
        thread = await self._thread(thread_id)
        if thread.graph is None:
            raise Refused("no_such_run", f"nothing ran on thread {thread_id} yet")
        return thread.graph

    # --- state -----------------------------------------------------------------------------------

    async def _state(self, thread_id: str, given: Any, terms: Terms) -> Done:
        wanted = params(StateGet, given)
        snapshot = await self._snapshot(thread_id, tuple(wanted.namespace))
        values = snapshot.values if snapshot else {}
        if wanted.keys is not None:
            values = {key: value for key, value in values.items() if key in wanted.keys}
        result: dict[str, Any] = {"values": values}
        if snapshot and (checkpoint := _checkpoint(snapshot)):
            result["checkpoint"] = checkpoint
        return Done(result, (await self._thread(thread_id)).version)

    async def _checkpoints(self, thread_id: str, given: Any, terms: Terms) -> Done:
        wanted = params(ListCheckpoints, given)
        thread = await self._thread(thread_id)
        place = Place(namespace="|".join(wanted.namespace))
        states = await self._manager.threads.history(thread, place, limit=wanted.limit, before=wanted.before)
        return Done({"checkpoints": [_summary(state) for state in states]}, thread.version)

    async def _tree(self, thread_id: str, given: Any, terms: Terms) -> Done:
        run_id = params(GetTree, given).run_id
        found = tree.of(self._hub.thread(thread_id), run_id)
        if found is None:
            raise Refused("no_such_run", "this server keeps no events of such a run on the thread")
        return Done({"tree": found})

    async def _thread(self, thread_id: str) -> Thread:
        return await self._manager.store.runs.thread(thread_id)

    async def _snapshot(self, thread_id: str, namespace: tuple[str, ...] = ()) -> StateSnapshot | None:
        """The state of the thread, or of a subgraph; None if nothing ran there yet."""
        try:
            thread = await self._thread(thread_id)
        except NotFound:
            if namespace:
                raise Refused("no_such_namespace", "nothing ran on the thread yet") from None
            return None
        snapshot = await self._manager.threads.state(thread, Place(namespace="|".join(namespace)))
        if namespace and (snapshot is None or snapshot.metadata is None):
            raise Refused("no_such_namespace", f"there is no state in namespace {list(namespace)}")
        return snapshot


def _unknown(method: str) -> Refused:
    if method in NOT_SUPPORTED:
        return Refused("not_supported", f"{method}: {NOT_SUPPORTED[method]}")
    return Refused("unknown_command", f"there is no command '{method[:100]}'")


def _checkpoint(snapshot: StateSnapshot) -> dict[str, Any] | None:
    configurable = snapshot.config.get("configurable", {})
    if not configurable.get("checkpoint_id"):
        return None
    return {"id": configurable["checkpoint_id"], "ns": configurable.get("checkpoint_ns", "")}


def _summary(state: StateSnapshot) -> dict[str, Any]:
    metadata = state.metadata or {}
    summary: dict[str, Any] = {
        "id": state.config.get("configurable", {}).get("checkpoint_id"),
        "timestamp": state.created_at,
        "step": metadata.get("step"),
        "metadata": metadata,
    }
    writes = metadata.get("writes")
    if isinstance(writes, Mapping) and len(writes) == 1:
        summary["node_name"] = next(iter(writes))
    return summary
