"""How LangGraph names tasks and the namespaces of subgraphs, and how a head may be moved with its pending writes.

Staging a new head in memory and asking the graph for its tasks is how a migration learns their names.
"""

from __future__ import annotations

from typing import Any

import pytest
from known_graphs import (
    HERE,
    PULL,
    PUSH,
    Edge,
    appended,
    ask,
    built,
    counted,
    fail_last,
    head,
    namespaces,
    say,
    task_id,
    writes_of,
)
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START
from langgraph.types import Command, Interrupt, Send, _interrupt_id, interrupt

FAN: list[Edge] = [(START, "done"), (START, "ask")]


def step_of(snapshot: Any) -> str:
    return str(snapshot.metadata["step"] + 1)


def id_of(snapshot: Any) -> str:
    return str(snapshot.config["configurable"]["checkpoint_id"])


async def staged(graph: Any, root: Any) -> Any:
    """A copy of the graph over an empty saver that holds nothing but one new head."""
    fresh = InMemorySaver()
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    await fresh.aput(config, root.checkpoint, root.metadata, root.checkpoint["channel_versions"])
    return graph.copy(update={"checkpointer": fresh})


# --- names of tasks -------------------------------------------------------------------------------------------------


async def test_a_task_is_named_by_checkpoint_namespace_step_node_and_triggers(memory: InMemorySaver) -> None:
    """All triggers that the node has, sorted; so a new edge into a node renames its task."""
    nodes = {"a": say("a"), "b": say("b"), "c": ask("c")}
    graph = built(nodes, [(START, "a"), (START, "b"), (["a", "b"], "c")], memory)
    await graph.ainvoke({"note": "x"}, HERE)
    snapshot = await graph.aget_state(HERE)
    expected = task_id(id_of(snapshot), "c", step_of(snapshot), "c", PULL, "branch:to:c", "join:a+b:c")
    assert [task.id for task in snapshot.tasks] == [expected]


async def test_a_sent_task_is_named_by_its_place_in_the_list(memory: InMemorySaver) -> None:
    """Its argument is no part of the name, so it may be converted; its place must not change."""
    nodes = {"plan": lambda state: Command(goto=[Send("work", {"note": word}) for word in "xy"]), "work": ask("work")}
    graph = built(nodes, [(START, "plan")], memory)
    await graph.ainvoke({"note": "x"}, HERE)
    snapshot = await graph.aget_state(HERE)
    for place, task in enumerate(snapshot.tasks):
        assert task.id == task_id(id_of(snapshot), "work", step_of(snapshot), "work", PUSH, str(place))
        assert task.path == (PUSH, place, False)


async def test_a_copied_checkpoint_has_other_tasks_and_the_old_results_count_no_more(memory: InMemorySaver) -> None:
    """Pending writes are to be put again, under the new names."""
    graph = built({"done": say("done"), "ask": ask("ask")}, FAN, memory)
    await graph.ainvoke({"note": "x"}, HERE)
    before = {task.name: task.id for task in (await graph.aget_state(HERE)).tasks}
    assert (await graph.aget_state(HERE)).next == ("ask",)
    await appended(memory, await head(memory))
    after = await graph.aget_state(HERE)
    assert set(before.values()).isdisjoint(task.id for task in after.tasks)
    assert sorted(after.next) == ["ask", "done"]


async def test_tasks_of_a_subgraph_are_named_under_their_namespace(memory: InMemorySaver) -> None:
    """Namespaces are `node:task`, joined by `|`; each level is named after the one above."""
    inner = built({"ask": ask("ask")}, [(START, "ask")])
    graph = built({"sub": built({"deep": inner}, [(START, "deep")])}, [(START, "sub")], memory)
    await graph.ainvoke({"note": "x"}, HERE)
    root = await graph.aget_state(HERE, subgraphs=True)
    sub, deep = root.tasks[0].state, root.tasks[0].state.tasks[0].state
    first, second, third = root.tasks[0].id, sub.tasks[0].id, deep.tasks[0].id
    spaces = ["", f"sub:{first}", f"sub:{first}|deep:{second}"]
    assert await namespaces(memory) == spaces
    assert second == task_id(id_of(sub), f"{spaces[1]}|deep", step_of(sub), "deep", PULL, "branch:to:deep")
    assert third == task_id(id_of(deep), f"{spaces[2]}|ask", step_of(deep), "ask", PULL, "branch:to:ask")
    assert deep.config["configurable"]["checkpoint_map"] == {
        spaces[0]: id_of(root), spaces[1]: id_of(sub), spaces[2]: id_of(deep),
    }  # fmt: skip


async def test_a_subgraph_with_a_memory_of_its_own_lives_under_the_names_of_nodes_alone(memory: InMemorySaver) -> None:
    """Its namespace survives a new checkpoint above and is lost by a renamed node; its tasks are named under it."""
    own = built({"ask": ask("ask")}, [(START, "ask")], True)
    graph = built({"sub": built({"own": own}, [(START, "own")])}, [(START, "sub")], memory)
    await graph.ainvoke({"note": "x"}, HERE)
    assert "sub|own" in await namespaces(memory)
    state = (await graph.aget_state(HERE, subgraphs=True)).tasks[0].state.tasks[0].state
    (task,) = state.tasks
    assert task.id == task_id(id_of(state), "sub|own|ask", step_of(state), "ask", PULL, "branch:to:ask")
    assert task.interrupts[0].id == _interrupt_id(f"sub|own|ask:{task.id}", 0)


async def test_a_graph_that_a_node_calls_again_has_a_number_behind_its_namespace(memory: InMemorySaver) -> None:
    """A graph called inside of a node lives under the node's task; which call it was is a number, not a name."""
    inner = built({"ask": ask("ask")}, [(START, "ask")])

    async def calls(state: Any) -> Any:
        first = await inner.ainvoke({"note": "1"})
        second = await inner.ainvoke({"note": "2"})
        return {"log": [*first["log"], *second["log"]]}

    graph = built({"calls": calls}, [(START, "calls")], memory)
    await graph.ainvoke({"note": "x"}, HERE)
    (task,) = (await graph.aget_state(HERE)).tasks
    assert await namespaces(memory) == ["", f"calls:{task.id}"]
    await graph.ainvoke(Command(resume="!"), HERE)
    assert await namespaces(memory) == ["", f"calls:{task.id}", f"calls:{task.id}|1"]


async def test_a_graph_called_in_a_node_goes_on_in_its_moved_namespace(memory: InMemorySaver) -> None:
    """All calls that the node had made are moved, finished ones too: the node runs from its start and finds them."""
    runs: list[str] = []
    inner = built({"first": counted("first", runs), "ask": ask("ask")}, [(START, "first"), ("first", "ask")])

    async def calls(state: Any) -> Any:
        return {"log": [word for note in "12" for word in (await inner.ainvoke({"note": note}))["log"]]}

    graph = built({"calls": calls}, [(START, "calls")], memory)
    await graph.ainvoke({"note": "x"}, HERE)
    await graph.ainvoke(Command(resume="one"), HERE)
    _, *below = await namespaces(memory)
    assert [space.split("|")[1:] for space in below] == [[], ["1"]]
    old = [await head(memory, space) for space in below]
    root_id = await appended(memory, await head(memory))
    (task,) = (await graph.aget_state(HERE)).tasks
    question = Interrupt("ask")
    for space, kept in zip((f"calls:{task.id}", f"calls:{task.id}|1"), old, strict=True):
        config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": space}}
        metadata: Any = {**kept.metadata, "parents": {"": root_id}}
        config = await memory.aput(config, kept.checkpoint, metadata, kept.checkpoint["channel_versions"])
        if kept.pending_writes:
            step = str(kept.metadata["step"] + 1)
            asking = task_id(kept.checkpoint["id"], f"{space}|ask", step, "ask", PULL, "branch:to:ask")
            question = Interrupt("ask", id=_interrupt_id(f"{space}|ask:{asking}", 0))
            await memory.aput_writes(config, [("__interrupt__", [question])], asking)
    await memory.aput_writes((await head(memory)).config, [("__interrupt__", [question])], task.id)
    final = await graph.ainvoke(Command(resume={question.id: "two"}), HERE)
    assert final["log"] == ["first", "ask:one", "first", "ask:two"]
    assert runs == ["first", "first"]


# --- staging --------------------------------------------------------------------------------------------------------


async def test_a_staged_head_names_the_tasks_that_the_run_will_have(stock: BaseCheckpointSaver[str]) -> None:
    """So the graph itself says under which names results belong; they count, and are applied once."""
    runs: list[str] = []
    graph = built({"done": counted("done", runs), "ask": ask("ask")}, FAN, stock)
    await graph.ainvoke({"note": "x"}, HERE)
    old = await head(stock)
    names = {task.id: task.name for task in (await graph.aget_state(HERE)).tasks}
    moved = await appended(stock, old)
    asked = await staged(graph, await head(stock))
    now = {task.name: task for task in (await asked.aget_state(HERE, subgraphs=True)).tasks}
    assert id_of(await asked.aget_state(HERE)) == moved
    for known, name in names.items():
        kept = [(channel, value) for task, channel, value in old.pending_writes or [] if task == known]
        if name == "ask":
            kept = [("__interrupt__", [Interrupt("ask", id=_interrupt_id(f"ask:{now[name].id}", 0))])]
        await stock.aput_writes((await head(stock)).config, kept, now[name].id)
    snapshot = await graph.aget_state(HERE)
    assert snapshot.next == ("ask",)
    assert snapshot.values["log"] == ["done"]
    final = await graph.ainvoke(Command(resume={snapshot.interrupts[0].id: "!"}), HERE)
    assert sorted(final["log"]) == ["ask:!", "done"]
    assert runs == ["done"]


async def moved_subgraph(saver: BaseCheckpointSaver[str], runs: list[str]) -> tuple[Any, Any, str, str]:
    """A thread whose subgraph asks, with both heads appended anew; where the inner head is, its task, the question."""
    inner = built({"first": counted("first", runs), "ask": ask("ask")}, [(START, "first"), ("first", "ask")])
    graph = built({"sub": inner}, [(START, "sub")], saver)
    await graph.ainvoke({"note": "x"}, HERE)
    below = await head(saver, (await namespaces(saver))[1])
    root_id = await appended(saver, await head(saver))
    (task,) = (await graph.aget_state(HERE)).tasks
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": f"sub:{task.id}"}}
    metadata: Any = {**below.metadata, "parents": {"": root_id}}
    config = await saver.aput(config, below.checkpoint, metadata, below.checkpoint["channel_versions"])
    (inner_task,) = (await graph.aget_state(HERE, subgraphs=True)).tasks[0].state.tasks
    assert inner_task.name == "ask"
    return graph, config, inner_task.id, _interrupt_id(f"sub:{task.id}|ask:{inner_task.id}", 0)


async def test_the_head_of_a_thread_is_the_one_with_the_greatest_id(stock: BaseCheckpointSaver[str]) -> None:
    """Not the one that was put last: ids carry the time, so a clock that is behind would hide a new head."""
    graph = built({"ask": ask("ask")}, [(START, "ask")], stock)
    await graph.ainvoke({"note": "x"}, HERE)
    old = await head(stock)
    await appended(stock, old, id="00000000-0000-6000-8000-000000000000")
    assert (await head(stock)).checkpoint["id"] == old.checkpoint["id"]
    later = await appended(stock, old)
    assert later > old.checkpoint["id"]
    assert (await head(stock)).checkpoint["id"] == later


async def test_a_subgraph_goes_on_from_a_head_put_into_its_new_namespace(stock: BaseCheckpointSaver[str]) -> None:
    """Its parents in the metadata name the checkpoint above; what it had done is not done again."""
    runs: list[str] = []
    graph, config, task, question = await moved_subgraph(stock, runs)
    await stock.aput_writes(config, [("__interrupt__", [Interrupt("ask", id=question)])], task)
    assert (await graph.ainvoke(Command(resume={question: "!"}), HERE))["log"] == ["first", "ask:!"]
    assert runs == ["first"]


async def test_an_answer_by_id_is_unheard_where_the_head_has_no_pending_write(stock: BaseCheckpointSaver[str]) -> None:
    """So a question's own row must be carried over; here it is asked a second time, and heard then."""
    graph, _, _, question = await moved_subgraph(stock, [])
    assert (await graph.ainvoke(Command(resume={question: "!"}), HERE))["__interrupt__"][0].id == question
    assert (await graph.ainvoke(Command(resume={question: "!"}), HERE))["log"] == ["first", "ask:!"]


async def test_a_plain_answer_is_heard_without_any_pending_write(memory: InMemorySaver) -> None:
    """It is looked for above."""
    graph, _, _, _ = await moved_subgraph(memory, [])
    assert (await graph.ainvoke(Command(resume="!"), HERE))["log"] == ["first", "ask:!"]


async def test_resuming_at_the_old_checkpoint_runs_finished_siblings_again(stock: BaseCheckpointSaver[str]) -> None:
    """So it is no way back."""
    runs: list[str] = []
    graph = built({"done": counted("done", runs), "ask": ask("ask")}, FAN, stock)
    await graph.ainvoke({"note": "x"}, HERE)
    old = await head(stock)
    await graph.ainvoke(Command(resume="!"), HERE)
    assert runs == ["done"]
    await graph.ainvoke(Command(resume="again"), old.config)
    assert runs == ["done", "done"]


async def test_an_update_of_a_waiting_thread_runs_finished_siblings_again(memory: InMemorySaver) -> None:
    """`aupdate_state` writes a new head and drops the pending writes."""
    runs: list[str] = []
    graph = built({"done": counted("done", runs), "ask": ask("ask")}, FAN, memory)
    await graph.ainvoke({"note": "x"}, HERE)
    await graph.aupdate_state(HERE, {"note": "y"}, as_node=START)
    assert not await writes_of(memory)
    await graph.ainvoke(None, HERE)
    assert runs == ["done", "done"]


async def test_a_fork_is_a_head_of_its_own_with_nothing_said_about_updated_channels(memory: InMemorySaver) -> None:
    """LangGraph leaves them out itself when it appends a copy; then every node is looked at."""
    graph = built({"ask": ask("ask")}, [(START, "ask")], memory)
    await graph.ainvoke({"note": "x"}, HERE)
    old = await head(memory)
    await graph.ainvoke(Command(resume="!"), HERE)
    await graph.ainvoke(None, old.config)
    fork = await head(memory)
    assert fork.metadata["source"] == "fork"
    assert fork.checkpoint["updated_channels"] is None
    assert fork.parent_config == old.config
    assert fork.checkpoint["versions_seen"]["__interrupt__"] == old.checkpoint["channel_versions"]


async def test_a_renamed_sibling_that_had_failed_is_skipped_in_silence(memory: InMemorySaver) -> None:
    """Nothing raises where a waiting task has no counterpart: this has to be refused by whoever moves it."""
    nodes = {"bad": fail_last("no", memory), "ask": ask("ask")}
    with pytest.raises(ValueError, match="no"):
        await built(nodes, [(START, "bad"), (START, "ask")], memory).ainvoke({"note": "x"}, HERE)
    renamed = built({"better": say("better"), "ask": ask("ask")}, [(START, "better"), (START, "ask")], memory)
    assert (await renamed.ainvoke(Command(resume="!"), HERE))["log"] == ["ask:!"]


async def test_sends_to_an_unknown_node_are_dropped_in_silence(memory: InMemorySaver) -> None:
    """With the results of those that had finished."""
    plan: dict[str, Any] = {"plan": lambda state: Command(goto=[Send("work", {"note": word}) for word in "xy"])}

    def work(state: Any) -> Any:
        return {"log": [interrupt("y") if state["note"] == "y" else state["note"]]}

    await built({**plan, "work": work}, [(START, "plan")], memory).ainvoke({"note": "x"}, HERE)
    renamed = built({**plan, "labour": work}, [(START, "plan")], memory)
    assert (await renamed.ainvoke(Command(resume="!"), HERE)).get("log", []) == []
    assert (await renamed.aget_state(HERE)).next == ()
