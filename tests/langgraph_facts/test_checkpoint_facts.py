"""What a checkpoint of LangGraph holds, and what of it decides which node runs next.

Moving a thread to another graph stands on each of these; a release that changes one is noticed here first.
"""

from __future__ import annotations

from typing import Any

import pytest
from known_graphs import HERE, Edge, State, appended, ask, built, counted, due, fail_last, head, namespaces, say
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send

LINE: list[Edge] = [(START, "one"), ("one", "two")]


def line(saver: Any, **options: Any) -> Any:
    return built({"one": say("one"), "two": say("two")}, LINE, saver, **options)


def number(version: Any) -> int:
    return int(str(version).split(".")[0])


# --- format ---------------------------------------------------------------------------------------------------------


async def test_a_checkpoint_is_of_format_four_and_has_seven_parts(stock: BaseCheckpointSaver[str]) -> None:
    """A new head is made of exactly these."""
    await built({"ask": ask("ask")}, [(START, "ask")], stock).ainvoke({"note": "x"}, HERE)
    checkpoint = (await head(stock)).checkpoint
    assert checkpoint["v"] == 4
    assert sorted(checkpoint) == [
        "channel_values", "channel_versions", "id", "ts", "updated_channels", "v", "versions_seen",
    ]  # fmt: skip
    assert checkpoint["channel_values"] == {"note": "x", "branch:to:ask": None}
    assert checkpoint["updated_channels"] == ["branch:to:ask", "note"]
    assert set(checkpoint["versions_seen"]) == {"__input__", "__start__"}


async def test_channels_are_keys_and_the_ways_between_nodes(memory: InMemorySaver) -> None:
    """Renaming a node means renaming these."""
    nodes = {"a": say("a"), "b": say("b"), "c": say("c")}
    graph = built(nodes, [(START, "a"), (START, "b"), (["a", "b"], "c")], memory)
    kinds = {name: type(channel).__name__ for name, channel in graph.channels.items()}
    assert kinds == {
        "note": "LastValue",
        "log": "BinaryOperatorAggregate",
        "__start__": "EphemeralValue",
        "__pregel_tasks": "Topic",
        "branch:to:a": "EphemeralValue",
        "branch:to:b": "EphemeralValue",
        "branch:to:c": "EphemeralValue",
        "join:a+b:c": "NamedBarrierValue",
    }
    assert sorted(graph.nodes["c"].triggers) == ["branch:to:c", "join:a+b:c"]


async def test_a_version_is_a_number_that_grows_with_a_random_tail(stock: BaseCheckpointSaver[str]) -> None:
    """A changed value takes the saver's next version above the highest one."""
    await line(stock).ainvoke({"note": "x"}, HERE)
    versions: Any = (await head(stock)).checkpoint["channel_versions"]
    assert all(isinstance(version, str) and len(version.split(".")[0]) == 32 for version in versions.values())
    following = stock.get_next_version(max(versions.values()), None)
    assert following > max(versions.values())
    assert number(following) == number(max(versions.values())) + 1


async def test_a_channel_that_was_consumed_keeps_its_version(memory: InMemorySaver) -> None:
    """Versions name channels that values do not: both are to be renamed."""
    await line(memory).ainvoke({"note": "x"}, HERE)
    checkpoint = (await head(memory)).checkpoint
    assert "branch:to:one" in checkpoint["channel_versions"]
    assert "branch:to:one" not in checkpoint["channel_values"]


async def test_pending_sends_are_a_list_in_the_head(memory: InMemorySaver) -> None:
    """A renamed target is renamed in the list; a place in it is part of a task's identity."""
    nodes = {"plan": lambda state: Command(goto=[Send("work", {"note": word}) for word in "xy"]), "work": ask("work")}
    await built(nodes, [(START, "plan")], memory).ainvoke({"note": "x"}, HERE)
    sends = (await head(memory)).checkpoint["channel_values"]["__pregel_tasks"]
    assert sends == [Send("work", {"note": "x"}), Send("work", {"note": "y"})]


# --- metadata -------------------------------------------------------------------------------------------------------


def nested(saver: Any) -> Any:
    inner = built({"ask": ask("ask")}, [(START, "ask")])
    middle = built({"deep": inner}, [(START, "deep")])
    return built({"sub": middle}, [(START, "sub")], saver)


async def test_a_tag_of_a_run_is_in_every_checkpoint_it_writes_those_of_subgraphs_too(
    stock: BaseCheckpointSaver[str],
) -> None:
    """So each checkpoint names the version that wrote it."""
    await nested(stock).ainvoke({"note": "x"}, {**HERE, "metadata": {"version": "v7"}})
    kept = [found async for found in stock.alist(HERE)]
    assert {found.config["configurable"]["checkpoint_ns"].count("|") for found in kept} == {0, 1}
    assert {found.metadata.get("version") for found in kept} == {"v7"}


async def test_the_head_of_a_subgraph_names_the_checkpoints_above_it(memory: InMemorySaver) -> None:
    """A copy in a new namespace names the new ones."""
    await nested(memory).ainvoke({"note": "x"}, HERE)
    root, sub, deep = [(space, (await head(memory, space))) for space in await namespaces(memory)]
    assert (root[1].metadata["source"], root[1].metadata["step"], root[1].metadata["parents"]) == ("loop", 0, {})
    assert sub[1].metadata["parents"] == {"": root[1].checkpoint["id"]}
    assert deep[1].metadata["parents"] == {"": root[1].checkpoint["id"], sub[0]: sub[1].checkpoint["id"]}


# --- what runs ------------------------------------------------------------------------------------------------------


async def test_a_node_runs_if_a_trigger_is_newer_than_what_it_has_seen(memory: InMemorySaver) -> None:
    """What a node has seen is renamed with the node, or it runs again."""
    graph = built({"ask": ask("ask")}, [(START, "ask")], memory)
    await graph.ainvoke({"note": "x"}, HERE)
    old = await head(memory)
    versions = old.checkpoint["channel_versions"]
    seen = {**old.checkpoint["versions_seen"], "ask": {"branch:to:ask": versions["branch:to:ask"]}}
    await appended(memory, old, versions_seen=seen)
    assert (await graph.aget_state(HERE)).next == ()
    await appended(memory, old, versions_seen={**seen, "ask": {}})
    assert (await graph.aget_state(HERE)).next == ("ask",)


async def test_stale_updated_channels_hide_a_node_from_the_run_and_not_from_the_snapshot(memory: InMemorySaver) -> None:
    """A snapshot alone does not prove that a node will run."""
    graph = built({"ask": ask("ask")}, [(START, "ask")], memory)
    await graph.ainvoke({"note": "x"}, HERE)
    old = await head(memory)
    await appended(memory, old, updated_channels=["branch:to:was"])
    assert (await graph.aget_state(HERE)).next == ("ask",)
    assert await due(graph) == []
    await appended(memory, old, updated_channels=None)
    assert [task["name"] for task in await due(graph)] == ["ask"]


async def test_naming_what_is_due_runs_nothing_and_writes_nothing(memory: InMemorySaver) -> None:
    """A drained run is a question that leaves no trace."""
    runs: list[str] = []
    graph = built({"one": counted("one", runs)}, [(START, "one")], memory, interrupt_before=["one"])
    await graph.ainvoke({"note": "x"}, HERE)
    before = [found.checkpoint["id"] async for found in memory.alist(HERE)]
    assert [task["name"] for task in await due(graph)] == ["one"]
    assert [found.checkpoint["id"] async for found in memory.alist(HERE)] == before
    assert runs == []


# --- joins and deferred nodes ---------------------------------------------------------------------------------------


def joined(saver: Any, late: str = "b", early: str = "a") -> Any:
    """`early` comes first; `late` asks one step later; `c` waits for both."""
    nodes = {early: say("early"), "x": say("x"), late: ask("late"), "c": say("joined")}
    return built(nodes, [(START, early), (START, "x"), ("x", late), ([early, late], "c")], saver)


async def test_a_half_full_join_holds_the_set_of_the_names_that_came(stock: BaseCheckpointSaver[str]) -> None:
    """A renamed source is renamed inside of the value too."""
    await joined(stock).ainvoke({"note": "x"}, HERE)
    checkpoint = (await head(stock)).checkpoint
    assert checkpoint["channel_values"]["join:a+b:c"] == {"a"}
    assert "join:a+b:c" not in (checkpoint["updated_channels"] or [])


async def test_a_join_with_a_renamed_source_never_fires(memory: InMemorySaver) -> None:
    """Nothing raises: the joined node is silently left out."""
    await joined(memory).ainvoke({"note": "x"}, HERE)
    assert (await joined(memory, early="z").ainvoke(Command(resume="!"), HERE))["log"] == ["early", "x", "late:!"]


async def test_a_join_fires_once_its_name_and_its_content_are_renamed(memory: InMemorySaver) -> None:
    """This is the cure."""
    await joined(memory).ainvoke({"note": "x"}, HERE)
    old = await head(memory)
    values, versions = {**old.checkpoint["channel_values"]}, {**old.checkpoint["channel_versions"]}
    values["join:z+b:c"] = {"z" if name == "a" else name for name in values.pop("join:a+b:c")}
    versions["join:z+b:c"] = versions.pop("join:a+b:c")
    await appended(memory, old, channel_values=values, channel_versions=versions)
    final = await joined(memory, early="z").ainvoke(Command(resume="!"), HERE)
    assert final["log"] == ["early", "x", "late:!", "joined"]


def deferring(saver: Any, defer: bool) -> Any:
    one: Any = say("one")
    two: Any = ask("two")
    graph = StateGraph(State).add_node("one", one).add_node("two", two, defer=defer)
    return graph.add_edge(START, "one").add_edge("one", "two").compile(checkpointer=saver)


async def test_a_deferred_trigger_is_a_pair_and_a_plain_one_raises_in_its_place(memory: InMemorySaver) -> None:
    """Heads from before `defer=True` cannot even be looked at until their triggers are made pairs."""
    await deferring(memory, False).ainvoke({"note": "x"}, HERE)
    old = await head(memory)
    with pytest.raises(TypeError, match="unpack"):
        await deferring(memory, True).aget_state(HERE)
    await appended(memory, old, channel_values={**old.checkpoint["channel_values"], "branch:to:two": [None, True]})
    assert (await deferring(memory, True).aget_state(HERE)).next == ("two",)


async def test_a_deferred_node_breaks_the_history_of_threads_that_have_finished(memory: InMemorySaver) -> None:
    """The head can be read, what came before it cannot: older history belongs to the graph that wrote it."""
    await deferring(memory, False).ainvoke({"note": "x"}, HERE)
    await deferring(memory, False).ainvoke(Command(resume="!"), HERE)
    later = deferring(memory, True)
    assert (await later.aget_state(HERE)).next == ()
    with pytest.raises(TypeError, match="unpack"):
        [found async for found in later.aget_state_history(HERE)]


# --- breakpoints ----------------------------------------------------------------------------------------------------


async def test_a_breakpoint_leaves_no_write_and_no_mark_until_it_is_passed(stock: BaseCheckpointSaver[str]) -> None:
    """That a thread stands at one is to be read from the contract: the head looks as after a crash."""
    graph = line(stock, interrupt_before=["two"])
    await graph.ainvoke({"note": "x"}, HERE)
    stopped = await head(stock)
    assert not stopped.pending_writes
    assert "__interrupt__" not in stopped.checkpoint["versions_seen"]
    await graph.ainvoke(None, HERE)
    seen: Any = (await head(stock)).checkpoint["versions_seen"]["__interrupt__"]
    assert seen == {name: stopped.checkpoint["channel_versions"][name] for name in seen}
    assert set(seen) == set(stopped.checkpoint["channel_versions"])


async def test_a_breakpoint_after_a_node_looks_like_one_before_the_next(memory: InMemorySaver) -> None:
    """The head does not tell them apart."""
    before, after = InMemorySaver(), memory
    await line(before, interrupt_before=["two"]).ainvoke({"note": "x"}, HERE)
    await line(after, interrupt_after=["one"]).ainvoke({"note": "x"}, HERE)
    first, second = await head(before), await head(after)
    assert first.metadata == second.metadata
    for part in ("channel_values", "updated_channels"):
        assert first.checkpoint[part] == second.checkpoint[part]
    assert set(first.checkpoint["versions_seen"]) == set(second.checkpoint["versions_seen"])
    assert not first.pending_writes
    assert not second.pending_writes


async def test_a_thread_at_a_breakpoint_is_stuck_if_a_channel_is_gone(memory: InMemorySaver) -> None:
    """The version of a channel that the graph does not know is never marked as seen; dropping it is the cure."""
    nodes, edges = {"one": say("one"), "two": say("two")}, LINE
    first = built({**nodes, "gone": say("gone")}, [*edges, (START, "gone")], memory, interrupt_before=["two"])
    await first.ainvoke({"note": "x"}, HERE)
    second = built(nodes, edges, memory, interrupt_before=["two"])
    for _ in range(2):
        await second.ainvoke(None, HERE)
        assert (await second.aget_state(HERE)).next == ("two",)
    old = await head(memory)
    known = {name: version for name, version in old.checkpoint["channel_versions"].items() if name in second.channels}
    assert set(old.checkpoint["channel_versions"]) - set(known) == {"branch:to:gone"}
    await appended(memory, old, channel_versions=known)
    assert (await second.ainvoke(None, HERE))["log"] == ["gone", "one", "two"]


async def test_a_failed_step_looks_like_this(stock: BaseCheckpointSaver[str]) -> None:
    """The failed task has an error, as text; the sibling that finished keeps what it wrote."""
    nodes = {"bad": fail_last("no", stock), "fine": say("fine")}
    graph = built(nodes, [(START, "bad"), (START, "fine")], stock)
    with pytest.raises(ValueError, match="no"):
        await graph.ainvoke({"note": "x"}, HERE)
    bad, fine = (await graph.aget_state(HERE)).tasks
    kept = (await head(stock)).pending_writes or []
    assert sorted(kept) == sorted([(bad.id, "__error__", "ValueError('no')"), (fine.id, "log", ["fine"])])
