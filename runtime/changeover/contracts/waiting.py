"""What a thread waits for: its waiting set.

The tasks of the next superstep of a thread's head, those of its subgraphs inside of them: which node, whether it asks a
person, stands at a breakpoint, has failed or has finished beside others, and which calls of tools go on from there. It
is kept as text with the thread, so that a plan reads no checkpoint.

Not here: reading a head, deciding what a new version makes of it (`grading`).

Invariants: the text is canonical. It has no ids and no values, only names; tasks that are alike are written once. Two
threads with one text stand in the same situation, and are graded alike.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from langchain_core.messages import AIMessage, ToolMessage
from langgraph.types import PregelTask, StateSnapshot

TaskState = Literal["interrupt", "breakpoint", "failed", "finished", "next"]
Tools = Mapping[str, tuple[str, ...]]

NOTHING = "[]"
PUSH = "__pregel_push"
BRANCH = "branch:to:"
JOIN = "join:"
NULL_TASK = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True)
class WaitingTask:
    """One task. `asked` counts its questions so far, the open one included; `calls` the finished calls of tasks."""

    node: str
    state: TaskState
    send: bool = False
    asked: int = 0
    tools: Tools = field(default_factory=dict)  # tool -> names of the arguments, sorted
    calls: int = 0
    called: bool = False
    inner: WaitingSet | None = None
    leads: tuple[str, ...] | None = None  # of a finished task: the nodes that run because of it; None: not known

    def to_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "node": self.node,
            "state": self.state,
            "send": self.send,
            "asked": self.asked,
            "tools": {name: list(self.tools[name]) for name in sorted(self.tools)},
            "inner": self.inner.to_json() if self.inner is not None else None,
        }
        if self.calls:
            told["calls"] = self.calls
        if self.called:
            told["called"] = True
        if self.leads is not None:
            told["leads"] = list(self.leads)
        return told

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> WaitingTask:
        state = told["state"]
        if state not in get_args(TaskState):
            raise ValueError(f"unknown state of a waiting task: {state!r}")
        inner = WaitingSet.from_json(told.get("inner"))
        return cls(
            node=str(told["node"]),
            state=state,
            send=bool(told.get("send", False)),
            asked=int(told.get("asked", 0)),
            tools={name: tuple(arguments) for name, arguments in told.get("tools", {}).items()},
            calls=int(told.get("calls", 0)),
            called=bool(told.get("called", False)),
            inner=None if inner.is_empty else inner,
            leads=tuple(told["leads"]) if told.get("leads") is not None else None,
        )


@dataclass(frozen=True)
class WaitingSet:
    """The tasks that wait, in canonical order. Empty: the thread rests, its next run starts anew.

    `joined` is what the joins of this graph have gathered so far, by the name of their channel; None: not known.
    """

    tasks: tuple[WaitingTask, ...] = ()
    joined: Mapping[str, tuple[str, ...]] | None = None

    @classmethod
    def of(cls, tasks: Iterable[WaitingTask], joined: Mapping[str, Sequence[str]] | None = None) -> WaitingSet:
        """Sorted, and each kind of task once."""
        once = {(task.node, _text(task.to_json())): task for task in tasks}
        gathered = (
            {join: tuple(sorted(names)) for join, names in joined.items() if names} if joined is not None else None
        )
        return cls(tuple(once[key] for key in sorted(once)), gathered if once else None)

    @classmethod
    def parse(cls, text: str | None) -> WaitingSet:
        """The set that `format` wrote; None and `[]` are empty. Raises ValueError for any other text."""
        try:
            return cls.from_json(json.loads(text) if text else None)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a waiting set: {text!r}") from error

    @classmethod
    def from_json(cls, told: Any) -> WaitingSet:
        """What `to_json` gave: it is in order."""
        if not told:
            return cls()
        joined = told.get("joined")
        gathered = {join: tuple(names) for join, names in joined.items()} if joined is not None else None
        return cls(tuple(WaitingTask.from_json(task) for task in told["tasks"]), gathered)

    def to_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {"tasks": [task.to_json() for task in self.tasks]}
        if self.joined is not None:
            told["joined"] = {join: list(names) for join, names in self.joined.items()}
        return told

    def format(self) -> str:
        return _text(self.to_json()) if self.tasks else NOTHING

    @property
    def is_empty(self) -> bool:
        return not self.tasks

    def __iter__(self) -> Iterator[tuple[str, WaitingTask]]:
        """Every task with its path (`support/model`), an outer one before those inside of it."""
        for task in self.tasks:
            yield task.node, task
            for path, inner in task.inner or ():
                yield f"{task.node}/{path}", inner

    @property
    def nodes(self) -> frozenset[str]:
        """Paths of all nodes in which something waits or has finished."""
        return frozenset(path for path, _ in self)

    @property
    def has_send(self) -> bool:
        return any(task.send for _, task in self)

    @property
    def is_asked(self) -> bool:
        """Whether a person's answer is awaited."""
        return any(task.state == "interrupt" for _, task in self)


def waiting_set(
    snapshot: StateSnapshot,
    resumes: Mapping[str, int],
    *,
    contract: Mapping[str, Any] | None = None,
    sends: Mapping[str, Sequence[Any]] | None = None,
    calls: Mapping[str, int] | None = None,
    leads: Mapping[str, Sequence[str]] | None = None,
    joined: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
) -> WaitingSet:
    """What a head waits for. `snapshot` was read with `subgraphs=True`; `resumes` has the answers per task id.

    `contract` tells a breakpoint from a task that has not begun yet; without it, a superstep of which nothing has begun
    stands at a breakpoint. `sends` are the queued Sends and `calls` the finished calls of tasks, both per checkpoint
    namespace: a snapshot shows neither. Without `sends`, the calls of tools are those the last message asks for.
    `leads` are the nodes that finished tasks lead to, per task id; `joined` what joins have gathered, per namespace.
    """
    return _Reader(resumes, sends or {}, calls or {}, leads or {}, joined or {}).level(snapshot, contract)


def answered(pending_writes: Iterable[tuple[str, str, Any]]) -> dict[str, int]:
    """How many answers each task has had, by task id: `resumes` of `waiting_set`."""
    return {
        task: len(value) if isinstance(value, (list, tuple)) else 1
        for task, channel, value in pending_writes
        if channel == "__resume__" and task != NULL_TASK
    }


def finished_calls(pending_writes: Iterable[tuple[str, str, Any]], tasks: Collection[str]) -> int:
    """How many calls of tasks have finished at a head whose own tasks have the ids `tasks`."""
    control = ("__interrupt__", "__resume__", "__error__", "__scheduled__")
    written = {task for task, channel, _ in pending_writes if channel not in control and task != NULL_TASK}
    return len(written - set(tasks))


def leads_to(pending_writes: Iterable[tuple[str, str, Any]]) -> dict[str, tuple[str, ...]]:
    """The nodes that run because of what each task has written, by task id: `leads` of `waiting_set`."""
    found: dict[str, set[str]] = {}
    for task, channel, value in pending_writes:
        targets = found.setdefault(task, set())
        if channel.startswith(BRANCH):
            targets.add(channel.removeprefix(BRANCH))
        elif channel == "__pregel_tasks":
            sent = value if isinstance(value, (list, tuple)) else [value]
            targets.update(str(each.node) for each in sent if hasattr(each, "node"))
    return {task: tuple(sorted(targets)) for task, targets in found.items()}


def gathered(channel_values: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """What the joins of one graph hold in a checkpoint: its part of `joined` of `waiting_set`."""
    found: dict[str, tuple[str, ...]] = {}
    for channel, value in channel_values.items():
        if channel.startswith(JOIN):
            names = value[0] if isinstance(value, (tuple, list)) and value else value  # with a mark, if it is deferred
            if isinstance(names, (set, frozenset, list, tuple)):  # a key of the state may be called so too
                found[channel] = tuple(sorted(map(str, names)))
    return found


@dataclass(frozen=True)
class _Reader:
    resumes: Mapping[str, int]
    sends: Mapping[str, Sequence[Any]]
    calls: Mapping[str, int]
    leads: Mapping[str, Sequence[str]]
    joined: Mapping[str, Mapping[str, Sequence[str]]]

    def level(self, snapshot: StateSnapshot, contract: Mapping[str, Any] | None) -> WaitingSet:
        namespace = str(snapshot.config.get("configurable", {}).get("checkpoint_ns", ""))
        begun = any(task.error or task.interrupts or task.result is not None for task in snapshot.tasks)
        unstarted: TaskState = "next" if begun else "breakpoint"
        asked_for = _open_tool_calls(snapshot.values)
        tasks = []
        for task in snapshot.tasks:
            inner = self._inner(task, contract)
            state = _state_of(task, inner, unstarted if _may_stop(task.name, contract) else "next")
            is_send = task.path[0] == PUSH and task.path[-1] is not True
            if state == "finished":
                leads = tuple(sorted(self.leads[task.id])) if task.id in self.leads else None
                tasks.append(WaitingTask(task.name, state, is_send, leads=leads))
                continue
            tasks.append(
                WaitingTask(
                    node=task.name,
                    state=state,
                    send=is_send,
                    asked=self.resumes.get(task.id, 0) + _own_questions(task),
                    tools={} if inner is not None else _tools(task, self._sent(task, namespace), asked_for),
                    calls=0 if is_send else self.calls.get(namespace, 0),
                    called=task.path[-1] is True,
                    inner=inner,
                )
            )
        return WaitingSet.of(tasks, self.joined.get(namespace))

    def _inner(self, task: PregelTask, contract: Mapping[str, Any] | None) -> WaitingSet | None:
        if not isinstance(task.state, StateSnapshot):
            return None
        node = ((contract or {}).get("nodes") or {}).get(task.name) or {}
        inner = self.level(task.state, node.get("subgraph"))
        return None if inner.is_empty else inner

    def _sent(self, task: PregelTask, namespace: str) -> Any:
        queued = self.sends.get(namespace, ())
        index = task.path[1] if len(task.path) > 1 else None
        if task.path[0] != PUSH or not isinstance(index, int) or not 0 <= index < len(queued):
            return None
        return getattr(queued[index], "arg", None)


def _state_of(task: PregelTask, inner: WaitingSet | None, unstarted: TaskState) -> TaskState:
    if task.interrupts:
        return "interrupt"
    if task.error is not None:
        return "failed"
    if inner is not None:  # a node whose graph stands at a breakpoint has written nothing itself
        states = {waiting.state for waiting in inner.tasks}
        return next((state for state in ("interrupt", "failed", "breakpoint") if state in states), "next")
    return "finished" if task.result is not None else unstarted


def _may_stop(node: str, contract: Mapping[str, Any] | None) -> bool:
    if contract is None:
        return True
    before = contract.get("interrupt_before") or []
    return before == "*" or node in before or bool(contract.get("interrupt_after"))


def _own_questions(task: PregelTask) -> int:
    """The open questions of the node itself: it repeats those of the graph that runs in it."""
    return len({interrupt.id for interrupt in task.interrupts} - set(_questions_within(task)))


def _questions_within(task: PregelTask) -> Iterator[str]:
    if isinstance(task.state, StateSnapshot):
        for inner in task.state.tasks:
            yield from (interrupt.id for interrupt in inner.interrupts)
            yield from _questions_within(inner)


def _tools(task: PregelTask, sent: Any, asked_for: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """The calls of tools that go on from this task."""
    calls = [call for interrupt in task.interrupts for call in _approvals(interrupt.value)]
    sent_calls = list(_sent_calls(sent))
    if sent_calls:
        calls = sent_calls
    else:
        calls += asked_for  # after an approval those run too that needed none
    names: dict[str, set[str]] = {}
    for call in calls:
        names.setdefault(str(call["name"]), set()).update(map(str, call["args"]))
    return {name: tuple(sorted(arguments)) for name, arguments in sorted(names.items())}


def _approvals(value: Any) -> Iterator[Mapping[str, Any]]:
    """Of a request for approval: one for all calls of a turn, or one for each call."""
    if not isinstance(value, Mapping):
        return
    requests = value.get("action_requests")
    yield from filter(_is_call, requests if isinstance(requests, Sequence) else [value])


def _sent_calls(sent: Any) -> Iterator[Mapping[str, Any]]:
    """Of a Send to a tools node: calls, or one call with the state around it."""
    if isinstance(sent, Mapping):
        sent = [sent.get("tool_call", sent)]
    if isinstance(sent, (list, tuple)):
        yield from filter(_is_call, sent)


def _is_call(value: Any) -> bool:
    return isinstance(value, Mapping) and "name" in value and isinstance(value.get("args"), Mapping)


def _open_tool_calls(values: Any) -> list[Mapping[str, Any]]:
    """Calls in the last message of the model that no tool has answered yet."""
    held = values.values() if isinstance(values, Mapping) else (values,)
    return [call for value in held if isinstance(value, list) for call in _unanswered(value)]


def _unanswered(messages: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
    done: set[str] = set()
    for message in reversed(messages):
        if isinstance(message, ToolMessage):
            done.add(message.tool_call_id)
        elif isinstance(message, AIMessage):
            yield from (dict(call) for call in message.tool_calls if call["id"] not in done)
            return
        else:
            return


def _text(told: Any) -> str:
    return json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
