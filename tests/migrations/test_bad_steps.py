"""Bad steps, versions that are gone, and state that nobody can read: a clear report, and the thread is as it was."""

from __future__ import annotations

import shutil
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.types import Command
from moving_desks import RENAMES, as_stored, asking, python_step

from changeover import GraphVersionManager
from changeover.errors import ChangeoverError, Conflict, ProjectError
from changeover.store.records.event import Event

Eventually = Callable[..., Any]
GIVEN = {"log": [], "note": "n"}


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(tmp_path, limit_step_s=0.2) as opened:
        await opened.register("one", {"desk": asking("note")})
        await opened.switch("one")
        await opened.invoke("desk", GIVEN, thread_id="t")
        yield opened


async def refused(manager: GraphVersionManager, to: str, *words: str) -> ChangeoverError:
    """A move by hand is refused with these words, and the next run stays where the thread is, with the same reason."""
    before = as_stored(manager, "t")
    with pytest.raises(ChangeoverError) as caught:
        await manager.migrate_thread("t", to)
    told = caught.value
    for word in words:
        assert word in told.message, told.message
    assert as_stored(manager, "t") == before
    assert (await manager.state("t")).next == ("ask",)
    return told


async def answered(manager: GraphVersionManager) -> Any:
    return (await manager.invoke("desk", Command(resume="x"), thread_id="t"))["log"]


async def told_of_refusals(manager: GraphVersionManager) -> list[Event]:
    return [event for event in await manager.store.journal.events(limit=1000) if event.type == "migration_refused"]


def raising(state: dict[str, Any]) -> dict[str, Any]:
    raise ValueError("no such ticket")


def ending(state: dict[str, Any]) -> dict[str, Any]:
    raise SystemExit(3)


def nothing(state: dict[str, Any]) -> Any:
    return None


def numbers(state: dict[str, Any]) -> Any:
    return {1: "n"}


def wrong_value(state: dict[str, Any]) -> dict[str, Any]:
    return {"log": state["log"], "notes": 7}


def unsaveable(state: dict[str, Any]) -> dict[str, Any]:
    return {"log": state["log"], "notes": threading.Lock()}


def intern(state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "branch:to:end": None}


@pytest.mark.parametrize(
    ("up", "words"),
    [
        (raising, ("0001", "ValueError", "no such ticket", "up")),
        (ending, ("0001", "SystemExit")),
        (nothing, ("0001", "NoneType", "dict")),
        (numbers, ("0001", "keys")),
        (wrong_value, ("'notes'", "type")),
        (unsaveable, ("'notes'", "saved")),
        (intern, ("0001", "branch:to:end")),
    ],
)
async def test_a_step_that_fails_is_told_and_changes_nothing(
    manager: GraphVersionManager, up: Any, words: tuple[str, ...]
) -> None:
    await manager.register("two", {"desk": asking("notes")}, migrations=[python_step(up, one_way=True)])
    told = await refused(manager, "two", *words)
    assert told.hint
    await manager.switch("two")
    await manager.set_thread_policy("t", "eager")
    before = as_stored(manager, "t")
    with pytest.raises(Conflict) as caught:  # nothing but the newer version would do: the answer is not taken
        await answered(manager)
    [event] = await told_of_refusals(manager)
    for word in words:
        assert word in caught.value.message
        assert word in event.data["reason"]
    await manager.set_thread_policy("t", None)
    after = as_stored(manager, "t")
    assert (after["checkpoints"], after["writes"]) == (before["checkpoints"], before["writes"])
    await goes_on(manager)


async def goes_on(manager: GraphVersionManager) -> None:
    """The thread hears its answer where it is, and that version goes on to be its own."""
    assert await answered(manager) == ["begin", "told x", "end"]
    assert (await manager.store.runs.thread("t")).version == "one"


async def test_a_step_without_an_end_is_given_up(manager: GraphVersionManager) -> None:
    before = set(threading.enumerate())

    def up(state: dict[str, Any]) -> dict[str, Any]:
        while True:
            pass

    await manager.register("two", {"desk": asking("notes")}, migrations=[python_step(up, one_way=True)])
    await refused(manager, "two", "0001", "did not end within 0.2 s")
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "changeover-build"]
    await manager.switch("two")
    await goes_on(manager)


async def test_a_conversion_that_fails_names_its_step(manager: GraphVersionManager) -> None:
    step = {"graph": "desk", "state": {"convert": {"note": "int"}}}
    await manager.register("two", {"desk": asking("note", types={"note": int})}, migrations=[step])
    await refused(manager, "two", "0001", "ValueError", "'n'")


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"graph": "desk", "state": {"rename": {"nobody": "notes"}}}, ("note",)),
        ({"graph": "desk", "nodes": {"rename": {"nobody": "asks"}}}, ("ask",)),
        ({"graph": "desk", "nodes": {"remove": {"ask": {"goto": "nobody"}}}}, ("nobody",)),
        ({"graph": "desk", "nodes": {"rename": {"ask": "nobody"}}}, ("nobody",)),
    ],
)
async def test_a_step_that_names_what_is_not_there(
    manager: GraphVersionManager, step: dict[str, Any], words: tuple[str, ...]
) -> None:
    """Nobody loses a question over it: where it does not lead to a node that waits, the thread stays."""
    desk = asking("note", node="asks") if "nodes" in step else asking("notes")
    await manager.register("two", {"desk": desk}, migrations=[step])
    await refused(manager, "two", *words)
    with pytest.raises(Conflict) as caught:
        await manager.switch("two", threads="eager")
    assert words[0] in caught.value.message
    await manager.switch("two")
    await goes_on(manager)


async def test_a_chain_that_was_rewritten_is_told(manager: GraphVersionManager) -> None:
    await manager.register("two", {"desk": asking("notes")}, migrations=[RENAMES])
    await manager.migrate_thread("t", "two")
    other = {"graph": "desk", "state": {"rename": {"note": "remarks"}}}
    await manager.register("three", {"desk": asking("remarks")}, migrations=[other])
    told = await refused(manager, "three", "0001", "was changed after a version was built with it")
    assert "new step" in str(told.hint)
    assert (await manager.store.runs.thread("t")).version == "two"
    assert (await manager.state("t")).values["notes"] == "n"


async def test_a_lost_file_is_told(manager: GraphVersionManager) -> None:
    second = {"graph": "desk", "state": {"set": {"lang": "en"}}}
    await manager.register("two", {"desk": asking("notes", "lang")}, migrations=[RENAMES, second])
    await manager.migrate_thread("t", "two")
    gone = manager.project / "steps"
    gone.mkdir()
    (gone / "0002_lang.yaml").write_text("graph: desk\nstate: {set: {lang: en}}\n")
    await manager.register("three", {"desk": asking("notes", "lang")}, migrations=str(gone))
    moved = await manager.migrate_thread("t", "three")  # what lies before its first file is taken as done
    assert moved.fate == "moved"
    (gone / "0003_a.yaml").write_text("graph: desk\nstate: {set: {a: en}}\n")
    (gone / "0002_lang.yaml").unlink()
    await manager.register("four", {"desk": asking("notes", "lang", "a")}, migrations=str(gone))
    await manager.switch("one")
    await manager.invoke("desk", GIVEN, thread_id="u")
    await manager.register("first", {"desk": asking("notes")}, migrations=[RENAMES])
    await manager.migrate_thread("u", "first")
    with pytest.raises(ChangeoverError) as caught:
        await manager.migrate_thread("u", "four")
    for word in ("0001", "0003", "no longer there"):
        assert word in caught.value.message


async def test_a_one_way_step_is_not_undone(manager: GraphVersionManager) -> None:
    await manager.register("two", {"desk": asking("notes")}, migrations=[{**RENAMES, "one_way": True}])
    await manager.migrate_thread("t", "two")
    told = await refused(manager, "one", "0001", "one-way")
    assert "one_way" in str(told.hint)


async def test_a_checkpoint_of_a_newer_langgraph_is_left_alone(manager: GraphVersionManager) -> None:
    await _write_head(manager, {"v": 5})
    await manager.register("two", {"desk": asking("notes")}, migrations=[RENAMES])
    before = as_stored(manager, "t")
    with pytest.raises(ChangeoverError) as caught:
        await manager.migrate_thread("t", "two")
    for word in ("newer LangGraph", "5"):
        assert word in caught.value.message, caught.value.message
    assert as_stored(manager, "t") == before


async def _write_head(manager: GraphVersionManager, change: dict[str, Any]) -> None:
    """The newest checkpoint again, with something else in it."""
    where: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    head = await manager.saver.aget_tuple(where)
    assert head is not None
    written: Any = {**head.checkpoint, **change}
    place: Any = head.parent_config
    await manager.saver.aput(place, written, head.metadata, {})


# --- projects in a folder ------------------------------------------------------------------------------------------

FLOW = """
    import operator
    from typing import Annotated

    from langgraph.graph import END, START, StateGraph
    from langgraph.types import interrupt
    from typing_extensions import TypedDict
    IMPORT

    class State(TypedDict, total=False):
        log: Annotated[list, operator.add]
        KEY: TYPE

    def begin(state):
        return {"log": ["begin"], "KEY": VALUE}

    def ask(state):
        return {"log": [interrupt("well?")]}

    def graph():
        made = StateGraph(State)
        made.add_node("begin", begin)
        made.add_node("ask", ask)
        made.add_edge(START, "begin")
        made.add_edge("begin", "ask")
        made.add_edge("ask", END)
        return made
"""
TYPES = """
    from pydantic import BaseModel

    class Ticket(BaseModel):
        number: int
"""


def flow(key: str = "note", type_: str = "str", value: str = "'n'", imports: str = "") -> str:
    text = FLOW.replace("IMPORT", imports).replace("TYPE", type_).replace("VALUE", value)
    return text.replace("KEY", key)


async def _paused(manager: GraphVersionManager, graph: str = "flow") -> None:
    await manager.serve_folder()
    await manager.invoke(graph, {"log": []}, thread_id="t")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {
                "migrations/0001_a.yaml": "graph: flow\nstate: {rename: {note: notes}}\n",
                "migrations/0001_b.yaml": "graph: flow\nstate: {set: {x: 1}}\n",
            },
            ("0001_b.yaml", "0001_a.yaml"),
        ),
        ({"migrations/0001_a.yaml": "graph: flow\nstate: {rename: [note]}\n"}, ("0001_a.yaml", "rename")),
        ({"migrations/0001_a.yaml": "graph: flow\nstate: {convert: {note: 'graphs.flow:none'}}\n"}, ("none",)),
        ({"migrations/0001_a.py": "from changeover import migration\ndef up(state): return state\n"}, ("0001_a.py",)),
        ({"migrations/0001_a.py": "import nowhere\n"}, ("0001_a.py",)),
    ],
)
async def test_a_bad_file_makes_no_version(project: Any, files: dict[str, str], words: tuple[str, ...]) -> None:
    async with GraphVersionManager.open(project({"graphs/flow.py": flow()})) as manager:
        await _paused(manager)
        before = as_stored(manager, "t")
        project({"graphs/flow.py": flow("notes"), **files})
        with pytest.raises(ProjectError) as caught:
            await manager.build()
        report = "\n".join(problem.render() for problem in caught.value.problems)
        for word in words:
            assert word in report, report
        assert as_stored(manager, "t") == before
        assert (await manager.state("t")).next == ("ask",)


async def test_a_step_for_a_graph_that_is_gone_harms_nobody(project: Any) -> None:
    """Threads of other versions may still need it."""
    folder = project({"graphs/flow.py": flow(), "graphs/other.py": flow()})
    async with GraphVersionManager.open(folder) as manager:
        await _paused(manager, "other")
        (folder / "graphs/other.py").unlink()
        project({"migrations/0001_a.yaml": "graph: other\nstate: {rename: {note: notes}}\n"})
        [warning] = await manager.check()
        assert (warning.severity, warning.path, "other" in warning.message) == (
            "warning",
            "migrations/0001_a.yaml",
            True,
        )
        version = await manager.build()
        before = as_stored(manager, "t")
        with pytest.raises(ChangeoverError) as caught:
            await manager.migrate_thread("t", version)
        assert f"{version.id} has no graph 'other'" in caught.value.message
        assert as_stored(manager, "t") == before
        await manager.switch(version)
        assert (await manager.invoke("other", Command(resume="x"), thread_id="t"))["log"] == ["begin", "x"]


async def test_a_gap_is_told_of(project: Any) -> None:
    folder = project({"graphs/flow.py": flow()})
    for number in (1, 3):
        project({f"migrations/000{number}_a.yaml": f"graph: flow\nstate: {{set: {{k{number}: 1}}}}\n"})
    async with GraphVersionManager.open(folder) as manager:
        problems = await manager.check()
        [gap] = [problem for problem in problems if problem.code == "migration-gap"]
        assert (gap.path, "0002" in gap.message) == ("migrations/0003_a.yaml", True)


async def test_a_class_that_is_gone_is_named(project: Any) -> None:
    with_ticket = flow("ticket", "Ticket", "Ticket(number=1)", "from graphs.lib.types import Ticket")
    folder = project({"graphs/flow.py": with_ticket, "graphs/lib/types.py": TYPES, "graphs/lib/__init__.py": ""})
    async with GraphVersionManager.open(folder) as manager:
        await _paused(manager)
        (folder / "graphs/lib/types.py").unlink()
        project(
            {
                "graphs/lib/models.py": TYPES,
                "graphs/flow.py": with_ticket.replace("lib.types", "lib.models"),
                "migrations/0001_a.yaml": "graph: flow\nstate: {set: {lang: en}}\n",
            }
        )
        version = await manager.build()
        before = as_stored(manager, "t")
        with pytest.raises(ChangeoverError) as caught:
            await manager.migrate_thread("t", version)
        for word in ("ticket", "graphs.lib.types:Ticket", "graphs.lib.models:Ticket"):
            assert word in f"{caught.value.message} {caught.value.hint}"
        assert as_stored(manager, "t") == before
        project({"migrations/0001_a.yaml": TYPES_RENAMED})
        version = await manager.build()
        assert (await manager.migrate_thread("t", version)).fate == "moved"
        assert type((await manager.state("t")).values["ticket"]).__module__.endswith("lib.models")


TYPES_RENAMED = 'graph: flow\ntypes: {rename: {"graphs.lib.types:Ticket": "graphs.lib.models:Ticket"}}\n'


async def test_a_version_that_cannot_be_rebuilt_keeps_its_threads(project: Any, tmp_path: Path) -> None:
    folder = project(
        {"graphs/flow.py": flow("note", "str", "str(len(MARK))", "MARK = open('%s').read()" % (tmp_path / "mark"))}
    )
    (tmp_path / "mark").write_text("xyz")
    async with GraphVersionManager.open(folder) as manager:
        await _paused(manager)
        project(
            {"graphs/flow.py": flow("notes"), "migrations/0001_a.yaml": "graph: flow\nstate: {rename: {note: notes}}\n"}
        )
        version = await manager.build()
    (tmp_path / "mark").unlink()
    async with GraphVersionManager.open(folder) as manager:
        before = as_stored(manager, "t")
        with pytest.raises(ChangeoverError) as caught:
            await manager.migrate_thread("t", version)
        assert "v1 cannot be loaded" in caught.value.message, caught.value.message
        assert as_stored(manager, "t") == before
        (tmp_path / "mark").write_text("xyz")
        assert (await manager.migrate_thread("t", version)).fate == "moved"
        assert (await manager.state("t")).values["notes"] == "3"


async def test_a_version_that_is_registered_no_more_keeps_its_threads(tmp_path: Path) -> None:
    async with GraphVersionManager.open(tmp_path) as manager:
        await manager.register("one", {"desk": asking("note")})
        await manager.switch("one")
        await manager.invoke("desk", GIVEN, thread_id="t")
    async with GraphVersionManager.open(tmp_path) as manager:
        await manager.register("two", {"desk": asking("notes")}, migrations=[RENAMES])
        before = as_stored(manager, "t")
        with pytest.raises(ChangeoverError) as caught:
            await manager.migrate_thread("t", "two")
        assert "one cannot be loaded" in caught.value.message
        assert as_stored(manager, "t") == before
        await manager.register("one", {"desk": asking("note")})
        assert (await manager.migrate_thread("t", "two")).fate == "moved"


async def test_the_snapshot_of_a_version_is_gone(project: Any) -> None:
    """Somebody has emptied the folder of snapshots; a version's threads are not lost over it."""
    folder = project({"graphs/flow.py": flow()})
    async with GraphVersionManager.open(folder) as manager:
        await _paused(manager)
    shutil.rmtree(folder / ".changeover" / "versions", ignore_errors=True)
    project(
        {"graphs/flow.py": flow("notes"), "migrations/0001_a.yaml": "graph: flow\nstate: {rename: {note: notes}}\n"}
    )
    async with GraphVersionManager.open(folder) as manager:
        version = await manager.build()
        assert (await manager.migrate_thread("t", version)).fate == "moved"
        assert (await manager.state("t")).values["notes"] == "n"
