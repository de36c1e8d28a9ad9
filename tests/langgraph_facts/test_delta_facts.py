"""Values that LangGraph keeps as changes only, and blobs that Postgres keeps by version."""

from __future__ import annotations

from collections.abc import Callable
from operator import add
from typing import Annotated, Any, TypedDict

import pytest
from known_graphs import HERE, appended, head
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt


def extend(state: list[str] | None, writes: list[list[str]]) -> list[str]:
    return [*(state or []), *(word for write in writes for word in write)]


class Changes(TypedDict, total=False):
    log: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=50)]


class Whole(TypedDict, total=False):
    log: Annotated[list[str], add]


def asking(saver: Any, state: Any = Changes) -> Any:
    """`one` and `two` write; beside a sibling that finishes, a question waits."""
    graph = StateGraph(state).add_node("one", lambda state: {"log": ["one"]})
    graph.add_node("ask", lambda state: {"log": [interrupt("?")]}).add_node("beside", lambda state: {"log": ["beside"]})
    graph.add_edge(START, "one").add_edge("one", "ask").add_edge("one", "beside")
    return graph.compile(checkpointer=saver)


async def values_of(graph: Any) -> list[str]:
    found: list[str] = (await graph.aget_state((await graph.aget_state(HERE)).config)).values.get("log", [])
    return found


async def test_a_value_kept_as_changes_is_absent_between_snapshots(stock: BaseCheckpointSaver[str]) -> None:
    """It is read through the graph, never out of the head."""
    graph = asking(stock)
    await graph.ainvoke({"log": ["in"]}, HERE)
    old = await head(stock)
    assert "log" not in old.checkpoint["channel_values"]
    assert "log" in old.checkpoint["channel_versions"]
    assert old.metadata["counters_since_delta_snapshot"]["log"][0] > 0
    assert await values_of(graph) == ["in", "one"]


async def test_a_head_staged_alone_reads_such_a_value_as_empty_in_silence(memory: InMemorySaver) -> None:
    """A staged head must carry the whole value."""
    graph = asking(memory)
    await graph.ainvoke({"log": ["in"]}, HERE)
    alone = InMemorySaver()
    await appended(alone, await head(memory), namespace="")
    staged = graph.copy(update={"checkpointer": alone})
    assert await values_of(staged) == []


async def test_a_new_head_without_the_value_takes_the_pending_results_of_the_old_one_for_its_own(
    stock: BaseCheckpointSaver[str],
) -> None:
    """They are read as what led to it; put again under the new names, they are applied twice."""
    graph = asking(stock)
    await graph.ainvoke({"log": ["in"]}, HERE)
    await appended(stock, await head(stock))
    assert await values_of(graph) == ["in", "one", "beside"]
    beside = next(task for task in (await graph.aget_state(HERE)).tasks if task.name == "beside")
    await stock.aput_writes((await head(stock)).config, [("log", ["beside"])], beside.id)
    await graph.ainvoke(Command(resume="!"), HERE)
    assert sorted(await values_of(graph)) == ["!", "beside", "beside", "in", "one"]


@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_new_head_with_the_whole_value_is_where_reading_starts(
    stock: BaseCheckpointSaver[str], wrapped: bool
) -> None:
    """As it is, or as a snapshot: nothing of the older checkpoints is applied on top, and what comes later is."""
    graph = asking(stock)
    await graph.ainvoke({"log": ["in"]}, HERE)
    old = await head(stock)
    versions: Any = {**old.checkpoint["channel_versions"]}
    versions["log"] = stock.get_next_version(max(versions.values()), None)
    full: Any = _DeltaSnapshot(["moved"]) if wrapped else ["moved"]
    values = {**old.checkpoint["channel_values"], "log": full}
    await appended(stock, old, channel_values=values, channel_versions=versions, updated_channels=None)
    assert await values_of(graph) == ["moved"]
    beside = next(task for task in (await graph.aget_state(HERE)).tasks if task.name == "beside")
    await stock.aput_writes((await head(stock)).config, [("log", ["beside"])], beside.id)
    await graph.ainvoke(Command(resume="!"), HERE)
    assert sorted(await values_of(graph)) == ["!", "beside", "moved"]


async def test_a_reduced_value_that_is_absent_comes_back_from_older_checkpoints(memory: InMemorySaver) -> None:
    """A version without a value means `read the older ones`: to drop a value, drop its version with it."""
    graph = asking(memory, Whole)
    await graph.ainvoke({"log": ["in"]}, HERE)
    old = await head(memory)
    values = {name: value for name, value in old.checkpoint["channel_values"].items() if name != "log"}
    versions: Any = {**old.checkpoint["channel_versions"]}
    versions["log"] = memory.get_next_version(max(versions.values()), None)
    await appended(memory, old, channel_values=values, channel_versions=versions)
    assert await values_of(graph) == ["in", "one", "beside"]
    del versions["log"]
    await appended(memory, old, channel_values=values, channel_versions=versions)
    assert await values_of(graph) == []


async def test_postgres_keeps_the_first_value_of_a_version(new_postgres_url: Callable[[], str]) -> None:
    """A changed value needs a higher version, named among the new ones; under the old one it is lost in silence."""
    async with AsyncPostgresSaver.from_conn_string(new_postgres_url()) as saver:
        await saver.setup()
        graph = asking(saver, Whole)
        await graph.ainvoke({"log": ["in"]}, HERE)
        old = await head(saver)
        values = {**old.checkpoint["channel_values"], "log": ["moved"]}
        await appended(saver, old, channel_values=values)
        assert await values_of(graph) == ["in", "one"]
        versions: Any = {**old.checkpoint["channel_versions"]}
        versions["log"] = saver.get_next_version(max(versions.values()), None)
        await appended(saver, old, channel_values=values, channel_versions=versions)
        assert await values_of(graph) == ["moved"]
