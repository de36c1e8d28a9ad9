"""What must never be written is refused by the database itself; a full disk leaves what serves untouched."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from changeover import GraphVersionManager
from changeover.errors import Conflict, NotFound, OperatorError
from changeover.store.connection import ConstraintViolated
from changeover.store.opening import Store
from changeover.store.records.ids import RunId, ThreadId, VersionId
from changeover.store.records.outcome import Outcome
from changeover.store.records.routing import RoutingChange
from changeover.store.records.run import NewRun
from changeover.store.records.version import GraphEntry, NewVersion
from changeover.versions.lifecycle import MOVES, Status

RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
Write = Callable[[Mapping[str, str]], Path]


async def put(store: Store, digest: str, *, rejected: bool = False) -> VersionId:
    graphs = {} if rejected else {"desk": GraphEntry("g", "c")}
    contracts = {} if rejected else {"g": {}}
    return (
        await store.versions.put(NewVersion(digest, {}, rejected=rejected, graphs=graphs, contracts=contracts), {})
    ).id


async def sql(store: Store, statement: str, *values: Any) -> Any:
    return await store.database.write(lambda c: [tuple(row) for row in c.execute(statement, values)])


def change(current: str, revision: int, **graphs: str) -> RoutingChange:
    apart = {graph: VersionId(id_) for graph, id_ in graphs.items()}
    return RoutingChange(revision, VersionId(current), apart, "switch", "op", "test")


async def test_illegal_moves_are_refused(store: Store) -> None:
    legal = await sql(store, "SELECT source, target FROM moves ORDER BY source, target")
    assert legal == sorted((str(source), str(target)) for source, target in MOVES)
    for source, target in sorted(set(product(Status, Status)) - MOVES):
        id_ = await put(store, f"{source} to {target}")
        if source == target:
            continue
        await sql(store, "INSERT INTO moves VALUES (?, ?) ON CONFLICT (source, target) DO NOTHING", "ready", source)
        await sql(store, "UPDATE versions SET status = ? WHERE id = ?", source, id_)
        if ("ready", source) not in legal:
            await sql(store, "DELETE FROM moves WHERE source = 'ready' AND target = ?", source)
        with pytest.raises(ConstraintViolated, match="illegal move of a version"):
            await sql(store, "UPDATE versions SET status = ? WHERE id = ?", target, id_)
        await sql(store, "DELETE FROM versions WHERE status IN ('retired', 'rejected')")
        await sql(store, "UPDATE versions SET status = 'draining' WHERE status IN ('current', 'ramping')")


async def test_there_is_one_current_version_at_most(store: Store) -> None:
    first, second = await put(store, "a"), await put(store, "b")
    await store.routing.apply(change(first, 0))
    with pytest.raises(ConstraintViolated, match=r"(?i)unique"):
        await sql(store, "UPDATE versions SET status = 'current' WHERE id = ?", second)


async def test_the_routing_names_the_current_version_and_its_history_is_written_once(store: Store) -> None:
    first, second = await put(store, "a"), await put(store, "b")
    await store.routing.apply(change(first, 0))
    with pytest.raises(ConstraintViolated, match="must name the current version"):
        await sql(
            store,
            "INSERT INTO routing (revision, current, action, operation, actor, at) VALUES (2, ?, 'switch', '', '', 0)",
            second,
        )
    with pytest.raises(ConstraintViolated, match="written once"):
        await sql(store, "UPDATE routing SET reason = 'better'")


async def test_of_two_changes_on_one_revision_one_is_made(store: Store) -> None:
    versions = [await put(store, str(n)) for n in range(8)]
    await store.routing.apply(change(versions[0], 0))
    results = await asyncio.gather(
        *(store.routing.apply(change(id_, 1)) for id_ in versions[1:]), return_exceptions=True
    )
    lost = [result for result in results if isinstance(result, Conflict)]
    assert len(lost) == 6
    assert {error.code for error in lost} == {"routing-changed"}
    assert len(await store.routing.history()) == 2
    assert await sql(store, "SELECT count(*) FROM versions WHERE status = 'current'") == [(1,)]


async def test_nothing_holds_a_rejected_version(store: Store) -> None:
    rejected, good = await put(store, "r", rejected=True), await put(store, "g")
    with pytest.raises(Conflict) as caught:
        await store.routing.apply(change(rejected, 0))
    assert caught.value.code == "version-rejected"
    await store.routing.apply(change(good, 0))
    with pytest.raises(Conflict):
        await store.routing.apply(change(good, 1, desk=rejected))
    with pytest.raises(Conflict) as caught:
        await store.versions.hold(rejected, "h", "mine", None)
    assert caught.value.code == "version-rejected"
    with pytest.raises(NotFound):
        await store.versions.hold("v99", "h", "mine", None)
    assert await store.versions.holders(rejected) == []
    assert len(await store.routing.history()) == 1


async def test_a_version_that_is_held_is_neither_drained_nor_retired_nor_purged(store: Store) -> None:
    first, second = await put(store, "a"), await put(store, "b")
    await store.routing.apply(change(first, 0))
    await store.versions.hold(first, "h", "mine", None)
    await store.routing.apply(change(second, 1))
    assert (await store.versions.get(first)).status == "draining"
    for status in ("drained", "retired"):
        with pytest.raises(ConstraintViolated, match=r"illegal move|still has holders"):
            await sql(store, "UPDATE versions SET status = ? WHERE id = ?", status, first)
    with pytest.raises(Conflict):
        await store.versions.retire(first)
    with pytest.raises(ConstraintViolated, match="can be purged"):
        await sql(store, "DELETE FROM versions WHERE id = ?", first)
    assert await store.versions.release(first) == 1
    assert (await store.versions.get(first)).status == "drained"
    await store.versions.retire(first)
    await store.versions.hold(first, "h", "again", None)
    assert (await store.versions.get(first)).status == "draining"


async def test_one_run_at_a_time_on_a_thread_by_a_constraint(store: Store) -> None:
    def decide(facts: Any) -> Any:
        from changeover.runs.routing import decide

        return decide(facts)

    await store.routing.apply(change(await put(store, "a"), 0))
    runs = [(await store.runs.accept(NewRun(RunId(str(n)), "desk", ThreadId("t")), decide)).run for n in range(3)]
    assert [run.status for run in runs] == ["running", "pending", "pending"]
    with pytest.raises(ConstraintViolated, match=r"(?i)unique"):
        await sql(store, "UPDATE runs SET status = 'running' WHERE id = '1'")
    assert await store.runs.finish(runs[0], Outcome("success")) == "1"
    with pytest.raises(Conflict) as caught:
        await store.runs.finish(runs[0], Outcome("success"))
    assert caught.value.code == "run-lost"
    await store.runs.start(RunId("1"), decide)
    assert await store.runs.finish(runs[1], Outcome("interrupted", began=False)) == "2"  # by its row of before
    assert await store.runs.finish(runs[2], Outcome("interrupted", began=False)) is None
    assert (await store.runs.thread("t")).status == "idle"


# --- a full disk ------------------------------------------------------------------------------

PROJECT = {
    "agents.yaml": """
        models: {demo: {model: "demo:rules", params: {rules: []}}}
        agents: {support: {model: demo, prompt: support}}
        """,
    "prompts/support.md": "You are the first.\n",
}


async def test_a_disk_that_is_full_while_a_version_is_saved(project: Write) -> None:
    folder = project(PROJECT)
    async with GraphVersionManager.open(folder) as manager:
        await manager.switch(await manager.build())
        writer = manager.store.database

        async def limit(pages: int) -> None:
            await writer.write(lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone() and None)

        (pages,) = await writer.read(lambda c: c.execute("PRAGMA page_count").fetchone())
        project({"prompts/support.md": "You are the second.\n", "graphs/data.txt": os.urandom(500_000).hex()})
        await limit(pages + 60)
        with pytest.raises(OperatorError) as caught:
            await manager.build()
        assert caught.value.code == "disk-full"
        assert [version.id for version in await manager.versions()] == ["v1"]
        assert "the first" in await says(manager)
        assert manager.routing is not None
        assert (manager.routing.current, manager.routing.revision) == ("v1", 1)
        await limit(1_000_000)
        version = await manager.build()
        assert version.id == "v2"
        await manager.switch(version)
        assert "the second" in await says(manager)


async def says(manager: GraphVersionManager) -> str:
    answer = await manager.invoke("support", {"messages": [("user", "hello")]}, thread_id="t")
    return str(answer["messages"][-1].text)


async def test_the_end_of_a_run_that_found_no_room_is_written_once_there_is_some(
    project: Write, eventually: Callable[..., Any]
) -> None:
    """Else its thread would be busy until the next start."""
    async with GraphVersionManager.open(project(PROJECT)) as manager:
        await manager.switch(await manager.build())
        database = manager.store.database
        stream = manager.stream("support", {"messages": [("user", "hello")]}, thread_id="t")
        await anext(stream)
        await database.write(
            lambda c: (
                c.execute(
                    "CREATE TRIGGER no_room BEFORE UPDATE OF status ON runs"
                    " BEGIN SELECT RAISE(ROLLBACK, 'database or disk is full'); END"
                )
                and None
            )
        )
        with pytest.raises(OperatorError) as caught:
            await stream.aclose()  # type: ignore[attr-defined]
        assert caught.value.code == "disk-full"
        assert manager.in_flight.on() == []
        waiting = asyncio.create_task(says(manager))
        await database.write(lambda c: c.execute("DROP TRIGGER no_room") and None)
        assert "the first" in await waiting
        runs = await manager.store.runs.list(active=True)
        assert runs == []


def test_a_file_system_without_room_is_told_as_a_full_disk(tmp_path: Path) -> None:
    """The same with a limit of the system, which SQLite meets as an error of writing, not as its own."""
    script = textwrap.dedent(
        """
        import asyncio, os, resource, signal, sys
        from pathlib import Path
        from changeover import GraphVersionManager
        from changeover.errors import OperatorError

        async def main():
            folder = Path(sys.argv[1])
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            async with GraphVersionManager.open(folder) as manager:
                await manager.switch(await manager.build())
                (folder / "prompts" / "big.md").write_text(os.urandom(1_500_000).hex())
                resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
                try:
                    await manager.build()
                except OperatorError as error:
                    print("code", error.code)
                answer = await manager.invoke("support", {"messages": [("user", "hello")]})
                print(manager.routing.current, answer["messages"][-1].text)
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                print((await manager.build()).id)

        asyncio.run(main())
        """
    )
    folder = tmp_path / "project"
    for path, text in PROJECT.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(RUNTIME)},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] in ("code disk-full", "code database")
    assert lines[1].startswith("v1 ")
    assert "the first" in lines[1]
    assert lines[-1] == "v2"
