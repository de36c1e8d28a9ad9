"""A run that is under way moves to a version whose contract differs, where steps of migration say how."""

from __future__ import annotations

import operator
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pytest
from handover_desks import Stage
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt

from changeover import GraphVersionManager, migration
from changeover.runs.background import BackgroundRun
from changeover.runs.kwargs import request_of

Eventually = Callable[..., Any]
NODES = ("plan", "w0", "w1", "w2", "first", "second", "talk", "last")
MODES = ["values", "updates", "custom", "tasks", "checkpoints"]


@dataclass(frozen=True)
class Names:
    parts: str = "parts"
    work: str = "work"
    deep: str = "deep"
    second: str = "second"
    inside: str = "inside"
    talk: str = "talk"
    name: str = "name"


OTHERS = Names("pieces", "labour", "cellar", "third", "within", "speak", "called")
STEPS = [
    {
        "graph": "desk",
        "state": {"rename": {"parts": "pieces", "deep/parts": "pieces", "deep/inside": "within"}},
        "sends": {"convert": {"deep": {"rename": {"parts": "pieces"}}}},
    },
    {
        "graph": "desk",
        "nodes": {"rename": {"work": "labour", "deep/second": "third", "deep": "cellar", "talk": "speak"}},
    },
    {"graph": "desk", "sends": {"convert": {"labour": {"rename": {"name": "called"}}}}},
]


def desk(version: str, stage: Stage, names: Names, *, asks: bool = False) -> StateGraph[Any]:
    """plan -> three Sends beside a graph of two nodes, and a question where `asks` -> talk -> last."""
    lists = Annotated[list[str], operator.add]
    state = TypedDict("State", {names.parts: lists})  # type: ignore[misc]
    inner_state = TypedDict("Inner", {names.parts: lists, names.inside: str}, total=False)  # type: ignore[misc]

    def node(name: str) -> Any:
        async def run(state: dict[str, Any]) -> dict[str, Any]:
            await stage.enter(version, name)
            return {names.parts: [name]}

        return run

    async def work(part: dict[str, Any]) -> dict[str, Any]:
        await stage.enter(version, part[names.name])
        return {names.parts: [part[names.name]]}

    async def first(state: dict[str, Any]) -> dict[str, Any]:
        await stage.enter(version, "first")
        return {names.parts: ["first"], names.inside: "kept"}

    async def second(state: dict[str, Any]) -> dict[str, Any]:
        await stage.enter(version, "second")
        return {names.parts: [f"second {state[names.inside]}"]}

    async def ask(state: dict[str, Any]) -> dict[str, Any]:
        answer = interrupt("well?")
        await stage.enter(version, "ask")
        return {names.parts: [f"told {answer}"]}

    def fan(state: dict[str, Any]) -> list[Any]:
        sends = [Send(names.work, {names.name: f"w{n}"}) for n in range(3)]
        return [*sends, Send(names.deep, {names.parts: []}), *(["ask"] if asks else [])]

    inner = StateGraph(inner_state).add_node("first", first).add_node(names.second, second)
    inner.add_edge(START, "first").add_edge("first", names.second)
    made = StateGraph(state)
    made.add_node("plan", node("plan"))
    made.add_node(names.work, work)
    made.add_node(names.deep, inner.compile())
    made.add_node("ask", ask)
    made.add_node(names.talk, node("talk"))
    made.add_node("last", node("last"))
    made.add_edge(START, "plan")
    made.add_conditional_edges("plan", fan, [names.work, names.deep, "ask"])
    for source in (names.work, names.deep, "ask"):
        made.add_edge(source, names.talk)
    made.add_edge(names.talk, "last")
    made.add_edge("last", END)
    return made


@pytest.fixture
def stage() -> Stage:
    return Stage()


on_both_databases = pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def database(request: Any) -> str | None:
    """The address of an empty Postgres where a test asks for one; else None, for the SQLite file of the project."""
    return request.getfixturevalue("postgres_url") if getattr(request, "param", "") == "postgres" else None


@pytest.fixture
async def manager(project: Any, stage: Stage, database: str | None) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(project({"agents.yaml": "agents: {}\n"}), database) as manager:
        await manager.register("one", {"desk": desk("one", stage, Names())})
        await manager.register("two", {"desk": desk("two", stage, OTHERS)}, migrations=STEPS)
        await manager.switch("one")
        yield manager


def started(manager: GraphVersionManager, given: Any = None, **kwargs: Any) -> BackgroundRun:
    asked = {"stream_mode": MODES, "stream_subgraphs": True, "stream_resumable": True, **kwargs}
    asked |= {"command": given} if given is not None else {"input": {"parts": []}}
    return manager.submit(request_of(asked, "desk", thread_id="t"), keep_stream=True)


async def event_rows(manager: GraphVersionManager, type_: str) -> list[dict[str, Any]]:
    found = await manager.store.journal.events(limit=10_000)
    return [dict(event.data) for event in found if event.type == type_]


@pytest.mark.parametrize(
    ("held", "database"),
    [("plan", "sqlite"), ("first", "sqlite"), ("first", "postgres"), ("second", "sqlite"), ("talk", "postgres")],
    indirect=["database"],
)
async def test_it_goes_on_with_its_state_migrated_and_each_node_ran_once(
    manager: GraphVersionManager, stage: Stage, eventually: Eventually, held: str
) -> None:
    """Held in `first`, all its siblings have finished, and it goes on within the inner graph."""
    stage.hold(held)
    run = started(manager)
    await eventually(lambda: stage.total(held))
    if held == "first":
        await eventually(lambda: all(stage.total(f"w{n}") for n in range(3)))
    receipt = await manager.switch("two", in_flight="handover")
    assert ["handed over" in fate["fate"] for fate in receipt.runs] == [True], receipt.runs
    stage.let_go(held)
    await run.ended.wait()
    assert run.error is None
    assert {node: stage.total(node) for node in NODES} == dict.fromkeys(NODES, 1)
    assert stage.ran["two:last"] == 1
    assert stage.ran["two:second"] == (held in ("plan", "first"))
    state = await manager.state("t")
    assert sorted(state.values["pieces"]) == ["first", "last", "plan", "second kept", "talk", "w0", "w1", "w2"]
    assert set(state.values) == {"pieces"}
    row = await manager.store.runs.get(run.request.id)
    assert (row.status, row.version) == ("success", "two")
    thread = await manager.store.runs.thread("t")
    assert (thread.version, thread.saved_by) == ("two", None)
    [event] = await event_rows(manager, "run_handed_over")
    assert (event["run_id"], event["from"], event["to"]) == (run.request.id, "one", "two")
    [event] = await event_rows(manager, "thread_migrated")
    assert len(event["steps"]) == 3


@on_both_databases
async def test_its_stream_has_no_seam(manager: GraphVersionManager, stage: Stage, eventually: Eventually) -> None:
    stage.hold("first")
    run = started(manager)
    await eventually(lambda: stage.total("first") and all(stage.total(f"w{n}") for n in range(3)))
    await manager.switch("two", in_flight="handover")
    stage.let_go("first")
    await run.ended.wait()
    row = await run.accepted
    got: Any = [tuple(entry) async for page in manager.background.events(row, 0) for entry in page]
    assert [seq for seq, _, _ in got] == list(range(1, len(got) + 1))
    told = [data for _, name, data in got if name == "metadata"]
    assert all(run.request.id.encode() in data for data in told)
    assert [version for data in told for version in ("one", "two") if f'"{version}"'.encode() in data] == ["one", "two"]
    updates = [data for _, name, data in got if name.partition("|")[0] == "updates"]
    for node in ("w0", "w1", "w2", "second kept", "talk", "last"):
        assert sum(f'"{node}"'.encode() in data for data in updates) >= 1, node
    assert sum(b'"labour"' in data or b'"work"' in data for data in updates) == 3
    assert stage.total("talk") == 1


async def test_there_and_back_within_one_run(
    manager: GraphVersionManager, stage: Stage, eventually: Eventually
) -> None:
    stage.hold("first", "talk")
    run = started(manager)
    await eventually(lambda: stage.total("first") and all(stage.total(f"w{n}") for n in range(3)))
    await manager.switch("two", in_flight="handover")
    stage.let_go("first")
    await eventually(lambda: stage.ran["two:talk"])
    await manager.rollback(in_flight="handover")
    stage.let_go("talk")
    await run.ended.wait()
    assert {node: stage.total(node) for node in NODES} == dict.fromkeys(NODES, 1)
    assert (stage.ran["two:second"], stage.ran["one:last"]) == (1, 1)
    state = await manager.state("t")
    assert sorted(state.values["parts"]) == ["first", "last", "plan", "second kept", "talk", "w0", "w1", "w2"]
    assert [(event["from"], event["to"]) for event in await event_rows(manager, "thread_migrated")] == [
        ("one", "two"),
        ("two", "one"),
    ]


@on_both_databases
async def test_an_answer_that_was_given_before_is_kept(
    project: Any, stage: Stage, eventually: Eventually, database: str | None
) -> None:
    """The answered node has finished beside an inner graph, in the middle of which the run is handed over."""
    async with GraphVersionManager.open(project({"agents.yaml": "agents: {}\n"}), database) as manager:
        await manager.register("one", {"desk": desk("one", stage, Names(), asks=True)})
        await manager.register("two", {"desk": desk("two", stage, OTHERS, asks=True)}, migrations=STEPS)
        await manager.switch("one")
        stage.hold("first")
        run = started(manager)
        await eventually(lambda: stage.total("first"))
        [question] = await eventually(lambda: _asked(manager))
        await manager.cancel(run.request.id, "somebody answers")
        await run.ended.wait()
        stage.let_go("first")
        stage.hold("first")
        begun = stage.total("first")
        run = started(manager, {"resume": {question.id: "yes"}})
        await eventually(lambda: stage.total("first") > begun and stage.total("ask"))
        await manager.switch("two", in_flight="handover")
        stage.let_go("first")
        await run.ended.wait()
        assert run.error is None
        state = await manager.state("t")
        assert "told yes" in state.values["pieces"]
        assert (stage.total("ask"), stage.ran["two:last"], stage.ran["two:second"]) == (1, 1, 1)
        assert sorted(state.values["pieces"])[-3:] == ["w0", "w1", "w2"]


async def _asked(manager: GraphVersionManager) -> Any:
    return (await manager.state("t")).interrupts


async def test_a_run_that_no_step_brings_over_ends_where_it_began(
    manager: GraphVersionManager, stage: Stage, eventually: Eventually
) -> None:
    half = [STEPS[1], STEPS[2]]
    await manager.register("half", {"desk": desk("half", stage, OTHERS)}, migrations=half)
    stage.hold("first")
    run = started(manager)
    await eventually(lambda: stage.total("first"))
    receipt = await manager.switch("half", in_flight="handover")
    assert ["ends on its version" in fate["fate"] for fate in receipt.runs] == [True], receipt.runs
    stage.let_go("first")
    await run.ended.wait()
    assert run.error is None
    assert (await manager.store.runs.get(run.request.id)).version == "one"
    assert {name.partition(":")[0] for name in stage.ran} == {"one"}


async def test_a_step_that_fails_is_told_of_and_the_run_goes_on_where_it_is(
    manager: GraphVersionManager, stage: Stage, eventually: Eventually
) -> None:
    def up(state: dict[str, Any]) -> dict[str, Any]:
        raise ValueError("no such piece")

    failing = [*STEPS, migration(graph="desk")(up)]
    await manager.register("bad", {"desk": desk("bad", stage, OTHERS)}, migrations=failing)
    stage.hold("first")
    run = started(manager)
    await eventually(lambda: stage.total("first"))
    await manager.switch("bad", in_flight="handover")
    stage.let_go("first")
    await run.ended.wait()
    assert run.error is None
    assert {node: stage.total(node) for node in NODES} == dict.fromkeys(NODES, 1)
    assert {name.partition(":")[0] for name in stage.ran} == {"one"}
    assert (await manager.store.runs.get(run.request.id)).version == "one"
    [event] = await event_rows(manager, "handover_refused")
    assert event["run_id"] == run.request.id
    for word in ("cannot be migrated to bad", "0004", "ValueError: no such piece"):
        assert word in event["reason"]
