"""What the cells of the matrix share: a world outside of the graphs, ways to talk to a graph, and what was seen.

The journal of a thread holds what its nodes did outside, once for each time they did it: a node that is run again
without need, or never, is seen there. `Talk` is one conversation; the same script is held with plain LangGraph, which
says what is expected, and with a manager, which is tested.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.config import get_config
from langgraph.pregel import Pregel
from langgraph.types import Command, StateUpdate
from pydantic import BaseModel

from changeover import GraphVersionManager
from changeover.runs.threads import Place

ROUNDS_LIMIT = 12  # of answers in one turn; a thread that asks for more is stuck
ANSWERS = {
    "ask?": "yes",
    "ask please?": "yes",
    "name?": "Ann",
    "colour?": "blue",
    "first?": "one",
    "second?": "two",
    "third?": "three",
    "left?": "l",
    "right?": "r",
    "middle?": "m",
    "item?": "i",
    "confirm?": "sure",
    "confirm please?": "sure",
    "deep?": "down",
    "task?": "done",
    "between?": "well",
    "tool?": "go",
    "model?": "fits",
    "memory?": "kept",
}


class World:
    """Outside of all graphs: what was done for each thread, and whose branch is broken."""

    def __init__(self) -> None:
        self.journal: dict[str, Counter[str]] = defaultdict(Counter)
        self.broken: set[str] = set()

    def did(self, what: str) -> None:
        self.journal[self.thread()][what] += 1

    def break_if_broken(self) -> None:
        if self.thread() in self.broken:
            raise ValueError("the branch is broken")

    @staticmethod
    def thread() -> str:
        return str(get_config()["configurable"]["thread_id"])


@dataclass(frozen=True)
class Question:
    id: str
    asked: Any

    @property
    def answer(self) -> Any:
        if isinstance(self.asked, str):
            return ANSWERS[self.asked]
        return {"decisions": [{"type": "approve"} for _ in self.asked["action_requests"]]}


@dataclass(frozen=True)
class Seen:
    """What a client can tell of a thread."""

    values: Any
    next: tuple[str, ...]
    questions: tuple[Question, ...] = ()

    def same_as(self, other: Seen) -> bool:
        asked = sorted(repr(question.asked) for question in self.questions)
        return (self.values, sorted(self.next), asked) == (
            other.values,
            sorted(other.next),
            sorted(repr(question.asked) for question in other.questions),
        )


class Talk(Protocol):
    thread_id: str
    world: World

    async def run(self, given: Any) -> None: ...

    async def seen(self) -> Seen: ...

    async def fork(self, node: str, values: Mapping[str, Any], as_node: str) -> None:
        """Edit the state at the newest checkpoint in which `node` alone was next, as if `as_node` had."""


@dataclass
class PlainTalk:
    """A conversation with LangGraph alone."""

    graph: Pregel[Any, Any, Any, Any]
    saver: BaseCheckpointSaver[Any]
    world: World
    thread_id: str
    place: Any = field(init=False)

    def __post_init__(self) -> None:
        self.graph = self.graph.copy({"checkpointer": self.saver})
        self.place = {"configurable": {"thread_id": self.thread_id}}

    async def run(self, given: Any) -> None:
        await self.graph.ainvoke(given, self.place)

    async def seen(self) -> Seen:
        return told(await self.graph.aget_state(self.place))

    async def fork(self, node: str, values: Mapping[str, Any], as_node: str) -> None:
        async for past in self.graph.aget_state_history(self.place):
            if past.next == (node,):
                await self.graph.aupdate_state(past.config, dict(values), as_node)
                return
        raise AssertionError(f"'{node}' was never next")


@dataclass
class ManagedTalk:
    """A conversation through a manager, on a version that can be changed."""

    manager: GraphVersionManager
    version: str
    graph: str
    world: World
    thread_id: str

    async def run(self, given: Any) -> None:
        await self.manager.invoke(self.graph, given, thread_id=self.thread_id, version=self.version)

    async def seen(self) -> Seen:
        return told(await self.manager.state(self.thread_id))

    async def fork(self, node: str, values: Mapping[str, Any], as_node: str) -> None:
        thread = (await self.manager.store.threads.get(self.thread_id)).thread
        for past in await self.manager.threads.history(thread, limit=100):
            if past.next == (node,):
                place = Place(past.config["configurable"]["checkpoint_id"])
                await self.manager.threads.update(self.thread_id, [[StateUpdate(dict(values), as_node)]], place)
                return
        raise AssertionError(f"'{node}' was never next")


def told(snapshot: Any) -> Seen:
    questions = tuple(Question(found.id, found.value) for found in snapshot.interrupts)
    return Seen(plain(snapshot.values), tuple(snapshot.next), questions)


def plain(value: Any) -> Any:
    """A value without what differs between two equal conversations: ids of messages, and identity of classes."""
    match value:
        case BaseMessage():
            calls = [(call["name"], call["args"]) for call in value.tool_calls] if isinstance(value, AIMessage) else []
            of = value.tool_call_id if isinstance(value, ToolMessage) else None
            return (value.type, value.content, calls, of, value.name)
        case BaseModel():
            return (type(value).__name__, {name: plain(getattr(value, name)) for name in type(value).model_fields})
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case set() | frozenset():
            return sorted(plain(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return (type(value).__name__, {one.name: plain(getattr(value, one.name, "missing")) for one in fields})
    return value


async def reply(talk: Talk, questions: Sequence[Question], *, by_id: bool) -> None:
    """Answer what was asked; a single question can be answered without its id, as most clients do."""
    if len(questions) == 1 and not by_id:
        await talk.run(Command(resume=questions[0].answer))
    else:
        await talk.run(Command(resume={question.id: question.answer for question in questions}))


async def drive(talk: Talk) -> Seen:
    """Answer and go on until nothing waits. Raises `AssertionError` where it never comes to an end."""
    for _ in range(ROUNDS_LIMIT):
        seen = await talk.seen()
        if seen.questions:
            await reply(talk, seen.questions, by_id=False)
        elif seen.next:
            await talk.run(None)
        else:
            return seen
    raise AssertionError(f"still waits for {seen.next}, {[question.asked for question in seen.questions]}")
