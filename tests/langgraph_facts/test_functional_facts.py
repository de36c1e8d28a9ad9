"""How LangGraph names the calls of tasks, in the functional API and inside of nodes.

No snapshot shows them: a migration computes their names, for the old head and the new one, and moves their results.
"""

from __future__ import annotations

import asyncio
from typing import Any

from known_graphs import HERE, PULL, PUSH, State, appended, head, task_id, writes_of
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.pregel._algo import task_path_str
from langgraph.types import Command, Interrupt, Send, _interrupt_id, interrupt


@task
async def fetch(word: str) -> str:
    return f"<{word}>"


@task
async def ask(word: str) -> str:
    return f"{word}:{interrupt(word)}"


@task
async def outer(word: str) -> str:
    return await ask(await fetch(word))


def call_id(checkpoint_id: str, caller_space: str, step: int, name: str, caller_path: Any, index: int) -> str:
    """The name of the call with this index among those of its caller."""
    return task_id(
        checkpoint_id, f"{caller_space}|{name}", str(step), name, PUSH, task_path_str(caller_path), str(index)
    )


class Caller:
    """A task that calls tasks: of a snapshot, or itself a call."""

    def __init__(self, checkpoint_id: str, step: int, space: str, path: Any) -> None:
        self.checkpoint_id, self.step, self.space, self.path = checkpoint_id, step, space, path

    @classmethod
    def of(cls, snapshot: Any, place: int = 0) -> Caller:
        config, found = snapshot.config["configurable"], snapshot.tasks[place]
        above = config["checkpoint_ns"]
        space = f"{above}|{found.name}:{found.id}" if above else f"{found.name}:{found.id}"
        return cls(config["checkpoint_id"], snapshot.metadata["step"] + 1, space, found.path)

    def call(self, name: str, index: int) -> str:
        return call_id(self.checkpoint_id, self.space, self.step, name, self.path, index)

    def called(self, name: str, index: int) -> Caller:
        space = f"{self.space}|{name}:{self.call(name, index)}"
        return Caller(self.checkpoint_id, self.step, space, (PUSH, self.path, index, True))


def flow_of(saver: Any, body: Any) -> Any:
    return entrypoint(checkpointer=saver)(body)


async def results(saver: BaseCheckpointSaver[Any], namespace: str = "") -> dict[str, Any]:
    return {task: value for task, channel, value in await writes_of(saver, namespace) if channel == "__return__"}


async def questions(saver: BaseCheckpointSaver[Any], namespace: str = "") -> dict[str, str]:
    found = await writes_of(saver, namespace)
    return {task: value[0].id for task, channel, value in found if channel == "__interrupt__"}


# --- names ----------------------------------------------------------------------------------------------------------


async def test_a_call_is_named_by_its_caller_its_name_and_its_index(stock: BaseCheckpointSaver[str]) -> None:
    """Its arguments are no part of it; a question between calls is not counted."""

    async def flow(word: str) -> str:
        first = await fetch(word)
        answer = interrupt("between")
        second = await fetch(first)
        return f"{answer}{second}{interrupt('end')}"

    graph = flow_of(stock, flow)
    await graph.ainvoke("in", HERE)
    await graph.ainvoke(Command(resume="!"), HERE)
    caller = Caller.of(await graph.aget_state(HERE))
    assert caller.path == (PULL, "flow")
    assert await results(stock) == {caller.call("fetch", 0): "<in>", caller.call("fetch", 1): "<<in>>"}


async def test_a_call_in_a_call_is_named_by_the_way_to_it(stock: BaseCheckpointSaver[str]) -> None:
    """Each caller counts its own calls; the order is that of starting them, gathered ones included."""

    async def flow(word: str) -> Any:
        await fetch(word)
        return await asyncio.gather(outer("a"), ask("b"))

    graph = flow_of(stock, flow)
    await graph.ainvoke("in", HERE)
    snapshot = await graph.aget_state(HERE)
    caller = Caller.of(snapshot)
    inside = caller.called("outer", 1)
    assert await results(stock) == {caller.call("fetch", 0): "<in>", inside.call("fetch", 0): "<a>"}
    deep = _interrupt_id(f"{inside.space}|ask:{inside.call('ask', 1)}", 0)
    flat = _interrupt_id(f"{caller.space}|ask:{caller.call('ask', 2)}", 0)
    asked = await questions(stock)
    assert asked.pop(snapshot.tasks[0].id) in {deep, flat}
    assert asked == {inside.call("ask", 1): deep, caller.call("outer", 1): deep, caller.call("ask", 2): flat}


async def test_a_call_in_a_node_is_named_in_the_same_way(memory: InMemorySaver) -> None:
    """In a node that was sent to, inside of a subgraph, too."""

    async def node(state: State) -> State:
        return {"log": [await fetch(state["note"]), interrupt("?")]}

    sends: Any = lambda state: [Send("node", {"note": word}) for word in "xy"]  # noqa: E731
    inner = StateGraph(State).add_node("node", node).add_conditional_edges(START, sends, ["node"]).compile()
    graph: Any = StateGraph(State).add_node("sub", inner).add_edge(START, "sub").compile(checkpointer=memory)
    await graph.ainvoke({"note": "in"}, HERE)
    below = (await graph.aget_state(HERE, subgraphs=True)).tasks[0].state
    space = below.config["configurable"]["checkpoint_ns"]
    expected = {Caller.of(below, place).call("fetch", 0): f"<{word}>" for place, word in enumerate("xy")}
    assert await results(memory, space) == expected


async def test_the_stored_path_of_a_call_tells_its_caller(memory: InMemorySaver) -> None:
    """Savers are given it, to sort by, and do not hand it out."""

    async def flow(word: str) -> Any:
        return await outer(word)

    graph = flow_of(memory, flow)
    await graph.ainvoke("in", HERE)
    caller = Caller.of(await graph.aget_state(HERE))
    inside = caller.called("outer", 0)
    paths = {task: kept[3] for writes in memory.writes.values() for (task, _), kept in writes.items()}
    assert paths[inside.call("fetch", 0)] == task_path_str((PUSH, inside.path, 0, True))
    assert paths[caller.call("outer", 0)] == "~__pregel_push, ~__pregel_pull, flow, 0000000000, 0000000001"


# --- the head -------------------------------------------------------------------------------------------------------


async def test_a_flow_waits_on_the_checkpoint_of_its_input(stock: BaseCheckpointSaver[str]) -> None:
    """All that has happened in it is pending writes."""

    async def flow(word: str) -> str:
        return f"{await fetch(word)}{interrupt('?')}"

    graph = flow_of(stock, flow)
    await graph.ainvoke("in", HERE)
    kept = await head(stock)
    assert (kept.metadata["source"], kept.metadata["step"]) == ("input", -1)
    assert kept.checkpoint["channel_values"] == {"__start__": "in"}
    assert set(kept.checkpoint["channel_versions"]) == {"__start__"}
    assert [found.name for found in (await graph.aget_state(HERE)).tasks] == ["flow"]


async def test_what_a_flow_saves_is_in_previous(memory: InMemorySaver) -> None:
    """And its last result in `__end__`."""

    async def flow(word: str, *, previous: Any = None) -> Any:
        return entrypoint.final(value=f"{previous}{word}", save=word)

    graph = flow_of(memory, flow)
    await graph.ainvoke("a", HERE)
    assert await graph.ainvoke("b", HERE) == "ab"
    values = (await head(memory)).checkpoint["channel_values"]
    assert values == {"__end__": "ab", "__previous__": "b"}


# --- moving ---------------------------------------------------------------------------------------------------------


async def test_results_put_under_the_new_names_are_not_computed_again(stock: BaseCheckpointSaver[str]) -> None:
    """Also of a task that was renamed: the result lies under the new name of the call."""
    runs: list[str] = []

    @task
    async def load(word: str) -> str:
        runs.append(word)
        return "again"

    async def old_flow(word: str) -> str:
        return f"{await fetch(word)}{interrupt('?')}"

    async def new_flow(word: str) -> str:
        return f"{await load(word)}{interrupt('?')}"

    old_flow.__name__ = new_flow.__name__ = "flow"
    first, second = flow_of(stock, old_flow), flow_of(stock, new_flow)
    await first.ainvoke("in", HERE)
    before = Caller.of(await first.aget_state(HERE))
    old = await head(stock)
    result = (await results(stock))[before.call("fetch", 0)]
    await appended(stock, old)
    snapshot = await second.aget_state(HERE)
    after, config = Caller.of(snapshot), (await head(stock)).config
    path = task_path_str((PUSH, after.path, 0, True))
    await stock.aput_writes(config, [("__return__", result)], after.call("load", 0), path)
    question = _interrupt_id(after.space, 0)
    await stock.aput_writes(config, [("__interrupt__", [Interrupt("?", id=question)])], snapshot.tasks[0].id)
    assert await second.ainvoke(Command(resume={question: "!"}), HERE) == "<in>!"
    assert runs == []


async def test_a_question_in_a_call_in_a_call_is_moved_by_its_innermost_name(stock: BaseCheckpointSaver[str]) -> None:
    """Each caller above holds a copy of it; with these, and what had finished, nothing is done again."""
    runs: list[str] = []

    @task
    async def once(word: str) -> str:
        runs.append(word)
        return word

    @task
    async def around(word: str) -> str:
        return await ask(await once(word))

    async def flow(word: str) -> str:
        return await around(await once(word)) + await once("end")

    graph = flow_of(stock, flow)
    await graph.ainvoke("in", HERE)
    await appended(stock, await head(stock))
    snapshot = await graph.aget_state(HERE)
    config, top = (await head(stock)).config, Caller.of(snapshot)
    inside = top.called("around", 1)
    question = Interrupt("in", id=_interrupt_id(f"{inside.space}|ask:{inside.call('ask', 1)}", 0))
    for done in (top.call("once", 0), inside.call("once", 0)):
        await stock.aput_writes(config, [("__return__", "in")], done)
    for asking in (snapshot.tasks[0].id, top.call("around", 1), inside.call("ask", 1)):
        await stock.aput_writes(config, [("__interrupt__", [question])], asking)
    assert (await graph.aget_state(HERE)).interrupts == (question,)
    assert runs == ["in", "in"]
    assert await graph.ainvoke(Command(resume={question.id: "!"}), HERE) == "in:!end"
    assert runs == ["in", "in", "end"]


async def test_calls_that_changed_places_get_the_results_of_each_other(memory: InMemorySaver) -> None:
    """Two calls of one task are told apart by their order alone: nothing raises."""

    async def old_flow(word: str) -> str:
        return f"first={await fetch('first')} second={await fetch('second')} {interrupt('?')}"

    async def new_flow(word: str) -> str:
        second, first = await fetch("second"), await fetch("first")
        return f"first={first} second={second} {interrupt('?')}"

    old_flow.__name__ = new_flow.__name__ = "flow"
    await flow_of(memory, old_flow).ainvoke("in", HERE)
    final = await flow_of(memory, new_flow).ainvoke(Command(resume="!"), HERE)
    assert final == "first=<second> second=<first> !"


async def test_a_renamed_flow_is_another_graph_to_the_thread(memory: InMemorySaver) -> None:
    """The entrypoint's name is the node's: after a rename its finished calls are made again."""
    runs: list[str] = []

    @task
    async def once(word: str) -> str:
        runs.append(word)
        return word

    async def flow(word: str) -> str:
        return f"{await once(word)}{interrupt('?')}"

    async def renamed(word: str) -> str:
        return f"{await once(word)}{interrupt('?')}"

    await flow_of(memory, flow).ainvoke("in", HERE)
    assert await flow_of(memory, renamed).ainvoke(Command(resume="!"), HERE) == "in!"
    assert runs == ["in", "in"]
