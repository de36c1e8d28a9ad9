"""Conditions: how a thread is brought to where it waits, and what it is then told.

A condition knows no node and no key: it speaks to a graph through its description, so that the same script is held
with a graph before and after a change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import matrix_agents
import matrix_desk
import matrix_functional
import matrix_models
from langgraph.pregel import Pregel
from matrix_world import Talk, World, drive, reply

Graphs = Mapping[str, Pregel[Any, Any, Any, Any]]


@dataclass(frozen=True)
class Condition:
    """`bring` takes a thread from its first word to where it waits, on one graph of the version.

    `leaves` says that it is left there; `mend` makes whole what was broken before it goes on.
    """

    name: str
    graph: str
    bring: Callable[[Talk, Any], Awaitable[None]]
    last: str = "plain"  # what the turn after the pause says

    async def go_on(self, talk: Talk, spec: Any) -> tuple[Any, Any]:
        """Answer what is asked, to the end of the turn, and hold one more; returns what was seen after each."""
        talk.world.broken.discard(talk.thread_id)
        middle = await drive(talk)
        return middle, await self.last_turn(talk, spec)

    async def last_turn(self, talk: Talk, spec: Any) -> Any:
        await talk.run(spec.given(self.last))
        return await drive(talk)


@dataclass(frozen=True)
class Family:
    """Graphs of one make, and the conditions that can be met in them."""

    name: str
    graphs: Callable[[Any, World], Graphs]
    spec: Any
    conditions: tuple[Condition, ...]


def waiting(do: str, first: str = "plain") -> Callable[[Talk, Any], Awaitable[None]]:
    """One turn that ends, then one that waits."""

    async def bring(talk: Talk, spec: Any) -> None:
        await talk.run(spec.given(first))
        await drive(talk)
        await talk.run(spec.given(do))

    return bring


def finished(*turns: str) -> Callable[[Talk, Any], Awaitable[None]]:
    async def bring(talk: Talk, spec: Any) -> None:
        for do in turns:
            await talk.run(spec.given(do))
            await drive(talk)

    return bring


def answered(do: str, question: str) -> Callable[[Talk, Any], Awaitable[None]]:
    """A turn that waits for more than one answer, and has had one of them."""

    async def bring(talk: Talk, spec: Any) -> None:
        await waiting(do)(talk, spec)
        for _ in range(3):  # a graph that asks something else before
            asked = (await talk.seen()).questions
            this = [one for one in asked if one.asked == question]
            await reply(talk, this or asked, by_id=True)
            if this:
                return

    return bring


async def failed(talk: Talk, spec: Any) -> None:
    await talk.run(spec.given("plain"))
    await drive(talk)
    talk.world.broken.add(talk.thread_id)
    with suppress(ValueError):
        await talk.run(spec.given("fail"))


async def forked(talk: Talk, spec: Any) -> None:
    """A finished turn is taken up again at an older checkpoint, with an edited state, and waits there."""
    await waiting("ask")(talk, spec)
    await drive(talk)
    await talk.fork(spec.way_to_ask, {spec.key("note"): "forked"}, spec.name("intake"))
    await talk.run(None)


DESK = Family(
    "desk",
    matrix_desk.graphs,
    matrix_desk.Desk(),
    (
        Condition("finished", "desk", finished("plain", "ask")),
        Condition("asked", "desk", waiting("ask")),
        Condition("asked_twice", "desk", answered("asks", "first?")),
        Condition("asked_in_parallel", "desk", waiting("both")),
        Condition("half_answered", "desk", answered("both", "right?")),
        Condition("breakpoint_before", "before", waiting("plain")),
        Condition("breakpoint_after", "after", waiting("plain")),
        Condition("failed", "desk", failed),
        Condition("sends_half_done", "desk", waiting("send")),
        Condition("in_subgraph", "desk", waiting("inner")),
        Condition("in_nested_subgraph", "desk", waiting("nested")),
        Condition("forked", "desk", forked),
    ),
)
AGENT = Family(
    "agent",
    matrix_agents.graphs,
    matrix_agents.Agent(),
    (
        Condition("agent_finished", "agent", finished("hello", "hello"), "hello"),
        Condition("agent_approval", "agent", waiting("refund", "hello"), "refund"),
        Condition("agent_two_approvals", "agent", waiting("two", "hello"), "hello"),
        Condition("agent_tool_asks", "agent", waiting("ask", "hello"), "hello"),
        Condition("agent_calls_queued", "stops", waiting("refund", "hello"), "hello"),
        Condition("agent_inside_a_graph", "inside", waiting("refund", "hello"), "hello"),
    ),
)
FUNCTIONAL = Family(
    "functional",
    matrix_functional.graphs,
    matrix_functional.Script(),
    (
        Condition("functional_finished", "script", finished("plain", "plain")),
        Condition("functional_in_task", "script", waiting("task")),
        Condition("functional_between_tasks", "script", waiting("between")),
    ),
)
MODEL_CONDITIONS = (
    Condition("model_finished", "model", finished("plain", "ask")),
    Condition("model_asked", "model", waiting("ask")),
    Condition("model_in_subgraph", "model", waiting("inner")),
    Condition("model_breakpoint", "stops", waiting("plain")),
)
MEMORY = Family(
    "memory",
    matrix_models.memory_graphs,
    matrix_models.Memory(),
    (
        Condition("memory_finished", "memory", finished("plain", "plain"), "ask"),
        Condition("memory_asked", "memory", waiting("ask")),
    ),
)
