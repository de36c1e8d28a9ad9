"""Conversations that plain LangGraph wrote go on under a version, in the database where they are."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from adopt_desks import DESK, FILES, NESTED, TYPES, on, plain, served, stock_saver, talk
from langgraph.types import Command

from changeover import GraphVersionManager
from changeover.errors import InvalidRequest, NotFound
from changeover.migrations.adopting import Adoption

MANY = 230


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state.db'}"
    create: Callable[[], str] = request.getfixturevalue("new_postgres_url")
    return create()


@pytest.fixture
def here(tmp_path: Path) -> str:
    """Where both databases do the same: a SQLite file."""
    return f"sqlite:///{tmp_path / 'state.db'}"


@pytest.fixture
def desk(project: Any) -> Path:
    folder: Path = project({**FILES, "langgraph.json": served(desk="./desk.py:graph")})
    return folder


@asynccontextmanager
async def serving(folder: Path, where: str) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(folder, where) as manager:
        await manager.serve_folder()
        yield manager


async def adopted(folder: Path, where: str, as_: str = "v1", graph: str | None = None, **options: Any) -> Adoption:
    async with GraphVersionManager.open(folder, where) as manager:
        return await manager.adopt(as_, graph, **options)


async def refusal(folder: Path, where: str, graph: str | None = None) -> tuple[str, str]:
    """The code and the reason with which the only thread is refused."""
    found = await adopted(folder, where, graph=graph)
    assert (found.count, found.refused_count) == (0, 1)
    async with GraphVersionManager.open(folder, where) as manager:
        with pytest.raises(NotFound):
            await manager.thread(found.refused[0].thread_id)
    return found.refused[0].code, found.refused[0].reason


async def test_conversations_and_open_questions_go_on_where_they_lie(desk: Path, where: str) -> None:
    async with plain(where, desk) as graph:
        await talk(graph, {"do": "hi"}, "idle")
        await talk(graph, {"do": "ask"}, "asked")
        await talk(graph, {"do": "fail"}, "failed")
    found = await adopted(desk, where)
    assert (found.count, found.refused, found.built) == (3, [], True)
    assert found.waiting == {"interrupt": 1, "failure": 1}
    async with serving(desk, where) as manager:
        rows = {id_: (await manager.store.threads.get(id_)).thread for id_ in ("idle", "asked", "failed")}
        assert [(row.status, row.waiting, row.version, row.graph) for row in rows.values()] == [
            ("idle", None, "v1", "desk"),
            ("interrupted", "interrupt", "v1", "desk"),
            ("error", "failure", "v1", "desk"),
        ]
        assert json.loads(rows["asked"].waits or "")["tasks"]
        assert all(row.reason == "adopted from LangGraph" for row in rows.values())
        assert [holder.id for holder in await manager.holders("v1") if holder.kind == "thread"] == ["asked"]
        assert (await manager.invoke("desk", {"do": "more"}, thread_id="idle"))["log"].count("worked") == 2
        answered = await manager.invoke("desk", Command(resume="yes"), thread_id="asked")
        assert sorted(answered["log"]) == ["beside", "heard yes"]
        state = await manager.state("failed")
        assert state.values["log"] == ["beside"]


async def test_a_question_inside_a_subgraph_is_answered_by_its_id(project: Any, where: str) -> None:
    folder = project({"nested.py": NESTED, "langgraph.json": served(nested="./nested.py:graph")})
    async with plain(where, folder, "nested") as graph:
        await talk(graph, {}, "t")
        (question,) = (await graph.aget_state(on("t"))).interrupts
    assert (await adopted(folder, where)).waiting == {"interrupt": 1}
    async with serving(folder, where) as manager:
        answered = await manager.invoke("nested", Command(resume={question.id: "yes"}), thread_id="t")
        assert answered["answer"] == "yes"


async def test_an_adopted_thread_is_migrated_like_any_other(desk: Path, where: str, project: Any) -> None:
    async with plain(where, desk) as graph:
        await talk(graph, {"do": "ask"}, "asked")
    async with serving(desk, where) as manager:
        await manager.adopt("v1")
        step = "graph: desk\nstate: {rename: {log: lines}}\n"
        project({"desk.py": DESK.replace("log", "lines"), "migrations/0001_lines.yaml": step})
        newer = await manager.build()
        await manager.migrate_thread("asked", newer)
        await manager.switch(newer)
        answered = await manager.invoke("desk", Command(resume="yes"), thread_id="asked")
        assert sorted(answered["lines"]) == ["beside", "heard yes"]


async def test_nothing_of_langgraphs_is_written(desk: Path, here: str) -> None:
    def told() -> list[Any]:
        with sqlite3.connect(here.removeprefix("sqlite:///")) as connection:
            tables = ("checkpoints", "writes")
            return [connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4, 5").fetchall() for table in tables]

    async with plain(here, desk) as graph:
        await talk(graph, {"do": "ask"}, "asked")
    before = told()
    await adopted(desk, here)
    assert told() == before
    async with plain(here, desk) as graph:  # and LangGraph goes on reading it
        assert (await graph.aget_state(on("asked"))).interrupts


async def test_a_dry_run_takes_over_nothing(desk: Path, here: str) -> None:
    async with plain(here, desk) as graph:
        await talk(graph, {"do": "hi"}, "t")
    found = await adopted(desk, here, dry_run=True)
    assert (found.count, found.to_json()["dry_run"]) == (1, True)
    async with GraphVersionManager.open(desk, here) as manager:
        with pytest.raises(NotFound):
            await manager.thread("t")


async def test_adopting_again_takes_what_is_new(desk: Path, where: str) -> None:
    async with plain(where, desk) as graph:
        await talk(graph, {"do": "hi"}, "one")
    assert (await adopted(desk, where)).count == 1
    assert (await adopted(desk, where)).count == 0
    async with plain(where, desk) as graph:
        await talk(graph, {"do": "hi"}, "two")
    again = await adopted(desk, where)
    assert (again.count, again.built) == (1, False)


async def test_it_goes_on_after_it_was_cut_off_between_pages(desk: Path, where: str) -> None:
    async with plain(where, desk) as graph:
        await talk(graph, {"do": "hi"}, "t")
        saver = graph.checkpointer
        source = await saver.aget_tuple(on("t"))
        for number in range(MANY):
            config = {"configurable": {"thread_id": f"t{number:03}", "checkpoint_ns": ""}}
            await saver.aput(config, source.checkpoint, source.metadata, source.checkpoint["channel_versions"])

    class CutOff(Exception):
        pass

    def cut_off(found: Adoption) -> None:
        raise CutOff

    with pytest.raises(CutOff):
        await adopted(desk, where, progress=cut_off)
    seen: list[int] = []
    rest = await adopted(desk, where, progress=lambda found: seen.append(found.count))
    assert 0 < rest.count < MANY + 1
    assert rest.refused == []
    assert len(seen) > 1
    assert (await adopted(desk, where)).count == 0


async def test_times_are_those_of_the_conversation(desk: Path, where: str) -> None:
    async with plain(where, desk) as graph:
        await talk(graph, {"do": "hi"}, "t")
        past = [one async for one in graph.aget_state_history(on("t"))]
    async with GraphVersionManager.open(desk, where) as manager:
        await manager.adopt("v1")
        thread = (await manager.store.threads.get("t")).thread
    first, last = (_seconds(past[place].created_at) for place in (-1, 0))
    assert thread.updated_at == pytest.approx(last, abs=0.001)
    assert thread.created_at == pytest.approx(first, abs=0.05)


async def test_keys_that_the_graph_does_not_have_are_named(desk: Path, here: str, project: Any) -> None:
    async with plain(here, desk) as graph:
        await talk(graph, {"do": "hi"}, "t")
    project({"desk.py": DESK.replace("log", "lines")})
    code, reason = await refusal(desk, here)
    assert code == "unknown-keys"
    assert "'log'" in reason


async def test_a_node_that_is_gone_is_named(desk: Path, here: str, project: Any) -> None:
    async with plain(here, desk, graph="review") as graph:
        await talk(graph, {"do": "hi"}, "t")
    project({"desk.py": DESK.replace("add_node(work)", "add_node('labour', work)").replace('"work"', '"labour"')})
    code, reason = await refusal(desk, here)
    assert code == "unknown-nodes"
    assert "'work'" in reason


async def test_a_static_breakpoint_holds_the_version(project: Any, here: str) -> None:
    folder = project({**FILES, "langgraph.json": served(desk="./desk.py:review")})
    async with plain(here, folder, graph="review") as graph:
        await talk(graph, {"do": "hi"}, "t")
    assert (await adopted(folder, here)).waiting == {"breakpoint": 1}
    async with serving(folder, here) as manager:
        assert [holder.id for holder in await manager.holders("v1") if holder.kind == "thread"] == ["t"]
        assert sorted((await manager.invoke("desk", None, thread_id="t"))["log"]) == ["beside", "worked"]


async def test_a_class_that_the_project_does_not_have_is_named(desk: Path, here: str, project: Any) -> None:
    async with plain(here, desk) as graph:
        await talk(graph, {"do": "hi"}, "t")
    project({"desk.py": DESK.replace("my_types", "our_types"), "our_types.py": TYPES})
    (desk / "my_types.py").unlink()
    code, reason = await refusal(desk, here)
    assert code == "unknown-type"
    assert "my_types.Ticket" in reason


async def test_a_module_of_the_old_name_brings_the_class_back(desk: Path, here: str, project: Any) -> None:
    async with plain(here, desk) as graph:
        await talk(graph, {"do": "hi"}, "t")
    project(
        {
            "desk.py": DESK.replace("my_types", "our_types"),
            "our_types.py": TYPES,
            "my_types.py": "from our_types import Ticket\n",
        }
    )
    async with serving(desk, here) as manager:
        assert (await manager.adopt("v1")).count == 1
        more = await manager.invoke("desk", {"do": "ask"}, thread_id="t")
        assert type(more["ticket"]).__module__.endswith("our_types")


async def test_a_value_of_another_type_is_refused(desk: Path, here: str, project: Any) -> None:
    async with plain(here, desk) as graph:
        await talk(graph, {"do": "hi"}, "t")
    project({"desk.py": DESK.replace("do: str", "do: int")})
    code, reason = await refusal(desk, here)
    assert code == "value-invalid"
    assert "'do'" in reason
    assert "v1" in reason


async def test_a_checkpoint_of_a_newer_langgraph_is_refused(desk: Path, where: str) -> None:
    async with stock_saver(where) as saver:
        async with plain(where, desk) as graph:
            await talk(graph, {"do": "hi"}, "old")
        source = await saver.aget_tuple(on("old"))
        assert source is not None
        await saver.adelete_thread("old")
        config: Any = {"configurable": {"thread_id": "new", "checkpoint_ns": ""}}
        newer: Any = {**source.checkpoint, "v": 99}
        await saver.aput(config, newer, source.metadata, newer["channel_versions"])
    code, reason = await refusal(desk, where)
    assert code == "newer-langgraph"
    assert "99" in reason


@pytest.mark.parametrize(("written", "said"), [(4, "error handler"), (2, "older LangGraph")])
async def test_results_that_would_be_lost_keep_a_thread_where_it_is(
    desk: Path, here: str, written: int, said: str
) -> None:
    """LangGraph 0.2 (format 2) has other ids for the tasks of a step: the installed one would run them again."""
    async with stock_saver(here) as saver:
        async with plain(here, desk) as graph:
            await talk(graph, {"do": "ask"}, "t")
        head = await saver.aget_tuple(on("t"))
        assert head is not None
        old: Any = {**head.checkpoint, "v": written}
        await saver.adelete_thread("t")
        place = await saver.aput({"configurable": {"thread_id": "t", "checkpoint_ns": ""}}, old, head.metadata, {})
        await saver.aput_writes(place, [("log", ["beside"])], "22b596f1-a4d3-ef05-d854-fd2ff9c4afb9")
    code, reason = await refusal(desk, here)
    assert code == "unknown-writes"
    assert said in reason


async def test_a_finished_conversation_of_langgraph_0_2_goes_on(desk: Path, where: str) -> None:
    async with stock_saver(where) as saver:
        async with plain(where, desk) as graph:
            await talk(graph, {"do": "hi"}, "t")
        head = await saver.aget_tuple(on("t"))
        assert head is not None
        version = head.checkpoint["channel_versions"]["log"]
        names = (
            "start:work",
            "branch:__start__:route:beside",
            "work",
            "beside",
        )  # as that release names what is no state
        versions = {"__start__": version, "do": version, "log": version} | dict.fromkeys(names, version)
        values = {name: head.checkpoint["channel_values"][name] for name in ("do", "log")}
        seen = {"__input__": {}, "work": {"start:work": version}, "beside": {"branch:__start__:route:beside": version}}
        old: Any = {**head.checkpoint, "v": 2, "channel_values": values, "versions_seen": seen}
        old |= {"channel_versions": versions, "pending_sends": [], "updated_channels": None}
        await saver.adelete_thread("t")
        await saver.aput({"configurable": {"thread_id": "t", "checkpoint_ns": ""}}, old, head.metadata, versions)
    async with serving(desk, where) as manager:
        assert (await manager.adopt("v1")).to_json()["codes"] == {}
        assert (await manager.invoke("desk", {"do": "hi"}, thread_id="t"))["log"].count("worked") == 2


async def test_the_graph_is_told_by_its_metadata_its_keys_or_its_nodes(project: Any, here: str) -> None:
    twin = DESK.replace("work", "labour")
    graphs = served(desk="./desk.py:graph", twin="./twin.py:graph", nested="./nested.py:graph")
    folder = project({**FILES, "twin.py": twin, "nested.py": NESTED, "langgraph.json": graphs})
    async with plain(here, folder) as graph:
        await talk(graph, {"do": "hi"}, "of desk, by nodes")
        await talk(graph, {"do": "hi"}, "said", metadata={"graph_id": "desk"})
    async with plain(here, folder, "nested") as graph:
        await talk(graph, {}, "of nested, by keys")
    found = await adopted(folder, here)
    assert (found.graphs, found.refused) == ({"desk": 2, "nested": 1}, [])


async def test_a_graph_that_cannot_be_told_is_asked_for(project: Any, here: str) -> None:
    folder = project({**FILES, "langgraph.json": served(one="./desk.py:graph", two="./desk.py:graph")})
    async with plain(here, folder) as graph:
        await talk(graph, {"do": "hi"}, "t")
    code, reason = await refusal(folder, here)
    assert code == "ambiguous-graph"
    assert "'one', 'two'" in reason
    assert (await adopted(folder, here, graph="two")).graphs == {"two": 1}


async def test_what_cannot_be_asked_for_is_refused_at_once(desk: Path, here: str) -> None:
    with pytest.raises(NotFound, match="v1"):
        await adopted(desk, here, "v7")
    with pytest.raises(NotFound, match="nobody"):
        await adopted(desk, here, graph="nobody")
    async with stock_saver(here) as saver, GraphVersionManager.open(desk, here, checkpointer=saver) as manager:
        with pytest.raises(InvalidRequest):
            await manager.adopt("v1")


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
