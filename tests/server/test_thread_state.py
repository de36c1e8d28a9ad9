"""The state of threads as `langgraph_sdk` and `RemoteGraph` read and write it."""

from __future__ import annotations

import asyncio
import operator
import os
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypedDict

import httpx
import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.pregel.remote import RemoteGraph
from langgraph.types import StateUpdate
from langgraph_sdk.client import LangGraphClient
from server_samples import DEADLINE_S, LOCAL, Serving, WriteProject
from thread_desks import Gate, serve_desks

from changeover import GraphVersionManager, create_app

RUNTIME = Path(__file__).resolve().parents[2] / "runtime"


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def manager(tmp_path: Path, gate: Gate) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(tmp_path) as opened:
        await serve_desks(opened, gate)
        yield opened
        gate.open.set()


@pytest.fixture
async def sdk(manager: GraphVersionManager) -> AsyncIterator[LangGraphClient]:
    transport = httpx.ASGITransport(create_app(manager))
    async with httpx.AsyncClient(transport=transport, base_url=LOCAL, timeout=DEADLINE_S) as client:
        yield LangGraphClient(client)


async def asked(sdk: LangGraphClient, thread_id: str = "t1") -> dict[str, Any]:
    """A thread that waits for a person, inside its inner graph."""
    await sdk.runs.wait(thread_id, "asking", input={"log": ["in"]}, if_not_exists="create")
    return dict(await sdk.threads.get_state(thread_id))


def code_of(refused: pytest.ExceptionInfo[httpx.HTTPStatusError]) -> tuple[int, str]:
    answer = refused.value.response
    return answer.status_code, answer.json()["code"]


async def test_a_thread_without_a_run_has_an_empty_state(sdk: LangGraphClient) -> None:
    await sdk.threads.create(thread_id="t1")
    state = await sdk.threads.get_state("t1")
    assert (state["values"], state["next"], state["checkpoint"]["checkpoint_id"]) == ({}, [], None)
    assert await sdk.threads.get_history("t1") == []


async def test_state_shows_the_inner_graph_only_when_asked_for(sdk: LangGraphClient) -> None:
    state = await asked(sdk)
    assert (state["values"], state["next"]) == ({"log": ["in", "first"]}, ["inner"])
    assert state["tasks"][0]["state"] is None
    inner = state["tasks"][0]["checkpoint"]
    assert inner["checkpoint_ns"].startswith("inner:")
    whole: Any = await sdk.threads.get_state("t1", subgraphs=True)
    assert whole["tasks"][0]["state"]["next"] == ["ask"]
    of_inner = await sdk.threads.get_state("t1", checkpoint=inner)
    assert (of_inner["next"], of_inner["checkpoint"]["checkpoint_ns"]) == (["ask"], inner["checkpoint_ns"])
    at_head: Any = await sdk.threads.get_state("t1", checkpoint=state["checkpoint"], subgraphs=True)
    assert at_head["tasks"][0]["state"]["next"] == ["ask"]
    by_id: Any = await sdk.threads.get_state("t1", checkpoint_id=state["checkpoint"]["checkpoint_id"], subgraphs=True)
    assert by_id["tasks"][0]["state"]["next"] == ["ask"]
    plain = await sdk.threads.get_state("t1", checkpoint=state["checkpoint"])
    assert plain["tasks"][0]["state"] is None


async def test_every_answer_names_the_version_of_the_thread(manager: GraphVersionManager) -> None:
    await manager.invoke("asking", {"log": ["in"]}, thread_id="t1")
    transport = httpx.ASGITransport(create_app(manager))
    async with httpx.AsyncClient(transport=transport, base_url=LOCAL) as client:
        for method, path, body in (
            ("GET", "/threads/t1", None),
            ("GET", "/threads/t1/state", None),
            ("POST", "/threads/t1/history", {}),
            ("POST", "/threads/t1/state", {"values": {"log": ["x"]}}),
        ):
            answer = await client.request(method, path, json=body)
            assert answer.headers["changeover-version"] == "desks", path


async def test_an_earlier_state_is_read_by_its_checkpoint(sdk: LangGraphClient) -> None:
    await asked(sdk)
    head, first, start = await sdk.threads.get_history("t1")
    assert (head["next"], first["next"], start["next"]) == (["inner"], ["first"], ["__start__"])
    id_ = first["checkpoint"]["checkpoint_id"]
    for at in (
        await sdk.threads.get_state("t1", checkpoint_id=id_),
        await sdk.threads.get_state("t1", checkpoint=first["checkpoint"]),
        await sdk.threads.get_state("t1", checkpoint={"checkpoint_id": id_}),  # type: ignore[typeddict-item]
        await sdk.threads.get_state("t1", checkpoint={"checkpoint_map": {"": id_}}),  # type: ignore[typeddict-item]
    ):
        assert (at["values"], at["checkpoint"]["checkpoint_id"]) == ({"log": ["in"]}, id_)
        assert at["parent_checkpoint"] == start["checkpoint"]


async def test_only_the_selected_fields_are_sent(sdk: LangGraphClient) -> None:
    state = await asked(sdk)
    await sdk.threads.update_state("t1", {"about": {"a": 1}}, as_node="last")
    assert await sdk.threads.get_state("t1", select=["values.about", "next"]) == {
        "values": {"about": {"a": 1}},
        "next": [],
    }
    by_id = await sdk.threads.get_state("t1", checkpoint_id=state["checkpoint"]["checkpoint_id"], select=["next"])
    assert by_id == {"next": ["inner"]}
    assert await sdk.threads.get_state("t1", checkpoint=state["checkpoint"], select=["values.log"]) == {
        "values": {"log": ["in", "first"]}
    }
    assert await sdk.threads.get_history("t1", limit=1, select=["next"]) == [{"next": []}]
    for call in (
        sdk.threads.get_state("t1", select=["soul"]),
        sdk.threads.get_history("t1", select=["soul"]),
    ):
        with pytest.raises(httpx.HTTPStatusError) as refused:
            await call
        assert code_of(refused) == (422, "invalid-request")


async def test_unknown_checkpoints_are_not_found(sdk: LangGraphClient) -> None:
    await asked(sdk)
    await sdk.threads.create(thread_id="empty", graph_id="asking")
    for thread in ("t1", "empty"):
        for call in (
            sdk.threads.get_state(thread, checkpoint_id="nothing"),
            sdk.threads.get_state(thread, checkpoint={"checkpoint_id": "nothing"}),  # type: ignore[typeddict-item]
            sdk.threads.update_state(thread, {"log": ["x"]}, checkpoint_id="nothing"),
        ):
            with pytest.raises(httpx.HTTPStatusError) as missing:
                await call
            assert code_of(missing) == (404, "unknown-checkpoint")
    assert len(await sdk.threads.get_history("t1")) == 3


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("state/checkpoint", {"checkpoint": {"thread_id": "other"}}),
        ("state/checkpoint", {"checkpoint": {"soul": 1}}),
        ("state/checkpoint", {}),
        ("state", {"values": {}, "soul": 1}),
        ("state", {"values": {}, "checkpoint": {"checkpoint_id": "a"}, "checkpoint_id": "b"}),
        ("state", {"values": {}, "as_node": ""}),
        ("state", []),
        ("history", {"limit": 0}),
        ("history", {"limit": 1001}),
        ("history", {"limit": "many"}),
        ("history", {"before": {"checkpoint_ns": ""}}),
        ("history", {"metadata": {"bad key'": 1}}),
    ],
)
async def test_a_wrong_request_about_a_state_is_refused(sdk: LangGraphClient, path: str, body: Any) -> None:
    await asked(sdk)
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await sdk.http.post(f"/threads/t1/{path}", json=body)
    assert refused.value.response.status_code == 422


async def test_history_is_bounded_filtered_and_goes_on_before_a_checkpoint(sdk: LangGraphClient) -> None:
    await asked(sdk)
    await sdk.runs.wait("t1", "asking", command={"resume": "blue"})
    whole = await sdk.threads.get_history("t1")
    ids = [state["checkpoint"]["checkpoint_id"] for state in whole]
    assert ids == sorted(ids, reverse=True)
    assert [state["metadata"]["step"] for state in whole] == [3, 2, 1, 0, -1]  # type: ignore[index]
    assert [s["checkpoint"]["checkpoint_id"] for s in await sdk.threads.get_history("t1", limit=2)] == ids[:2]
    checkpoint: Any = whole[1]["checkpoint"]
    for before in (ids[1], checkpoint, {"configurable": checkpoint}):
        older = await sdk.threads.get_history("t1", before=before)
        assert [state["checkpoint"]["checkpoint_id"] for state in older] == ids[2:]
    by_step = await sdk.threads.get_history("t1", metadata={"step": 1, "source": "loop"})
    assert [state["checkpoint"]["checkpoint_id"] for state in by_step] == [ids[2]]
    inner: Any = whole[2]["tasks"][0]["checkpoint"]
    of_inner = await sdk.threads.get_history("t1", checkpoint=inner)
    assert {state["checkpoint"]["checkpoint_ns"] for state in of_inner} == {inner["checkpoint_ns"]}
    assert len(of_inner) == 3
    one = await sdk.threads.get_history("t1", checkpoint=whole[3]["checkpoint"])
    assert [state["checkpoint"]["checkpoint_id"] for state in one] == [ids[3]]


async def test_an_update_is_seen_at_once_in_state_and_thread(
    sdk: LangGraphClient, manager: GraphVersionManager
) -> None:
    state = await asked(sdk)
    before = await sdk.threads.get("t1")
    written = await sdk.threads.update_state("t1", {"answer": "blue"}, as_node="inner")
    after: Any = await sdk.threads.get("t1")
    assert (after["status"], after["interrupts"], after["values"]["answer"]) == ("interrupted", {}, "blue")
    assert after["waiting"] == "breakpoint"
    assert after["state_updated_at"] > before["state_updated_at"]  # type: ignore[typeddict-item]
    now = await sdk.threads.get_state("t1")
    assert (now["checkpoint"], now["next"]) == (written["checkpoint"], ["last"])
    assert now["parent_checkpoint"] == state["checkpoint"]
    assert now["metadata"]["changeover_version"] == "desks"  # type: ignore[index]
    done: Any = await sdk.runs.wait("t1", "asking", input=None)
    assert done["log"][-1] == "last"
    assert [holder for holder in await manager.holders("desks") if holder.kind == "thread"] == []


async def test_an_update_as_the_end_clears_what_waits(sdk: LangGraphClient, manager: GraphVersionManager) -> None:
    await asked(sdk)
    await sdk.threads.update_state("t1", None, as_node="__end__")
    after: Any = await sdk.threads.get("t1")
    assert (after["status"], after["interrupts"], after["waiting"]) == ("idle", {}, None)
    assert [holder for holder in await manager.holders("desks") if holder.kind == "thread"] == []


async def test_an_update_of_an_earlier_checkpoint_forks_from_it(sdk: LangGraphClient) -> None:
    await asked(sdk)
    earlier = (await sdk.threads.get_history("t1"))[1]
    for where in (
        {"checkpoint": earlier["checkpoint"]},
        {"checkpoint_id": earlier["checkpoint"]["checkpoint_id"]},
    ):
        await sdk.threads.update_state("t1", {"log": ["other"]}, as_node="first", **where)  # type: ignore[arg-type]
        state = await sdk.threads.get_state("t1")
        assert (state["values"], state["next"]) == ({"log": ["in", "other"]}, ["inner"])
        assert state["parent_checkpoint"] == earlier["checkpoint"]


async def test_an_update_inside_the_inner_graph_leaves_the_outer_one_waiting(sdk: LangGraphClient) -> None:
    state = await asked(sdk)
    inner = state["tasks"][0]["checkpoint"]
    await sdk.threads.update_state("t1", {"answer": "by hand"}, as_node="ask", checkpoint=inner)
    thread = await sdk.threads.get("t1")
    assert thread["status"] == "interrupted"
    whole: Any = await sdk.threads.get_state("t1", subgraphs=True)
    assert whole["tasks"][0]["state"]["values"]["answer"] == "by hand"


async def test_the_first_update_binds_a_thread_to_its_graph_and_version(
    sdk: LangGraphClient, manager: GraphVersionManager
) -> None:
    await sdk.threads.create(thread_id="bare")
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await sdk.threads.update_state("bare", {"log": ["a"]})
    assert code_of(refused) == (409, "no-graph")
    await sdk.threads.create(thread_id="t1", graph_id="asking")
    await sdk.threads.update_state("t1", {"log": ["a"]})
    thread: Any = await sdk.threads.get("t1")
    assert (thread["graph"], thread["version"], thread["reason"]) == ("asking", "desks", "current for new threads")
    assert [holder.id for holder in await manager.holders("desks") if holder.kind == "thread"] == ["t1"]


async def test_a_thread_is_bound_by_the_id_of_an_assistant(sdk: LangGraphClient) -> None:
    assistant = await sdk.assistants.get("asking")
    await sdk.threads.create(thread_id="t1", graph_id=assistant["assistant_id"])
    await sdk.threads.update_state("t1", {"log": ["a"]})
    assert (await sdk.threads.get("t1"))["metadata"]["graph_id"] == "asking"  # type: ignore[index]


async def test_a_thread_that_stays_behind_is_updated_by_its_own_version(
    sdk: LangGraphClient, manager: GraphVersionManager
) -> None:
    await asked(sdk)
    await sdk.threads.update_state("t1", None, as_node="__end__")
    await serve_desks(manager, Gate(), "newer")
    assert (await manager.version("desks")).status.value == "drained"
    await sdk.threads.update_state("t1", {"log": ["again"]}, as_node="first")
    assert (await sdk.threads.get("t1"))["version"] == "desks"  # type: ignore[typeddict-item]
    assert (await manager.version("desks")).status.value == "draining"  # it waits on it again
    await sdk.threads.update_state("t1", None, as_node="__end__")
    assert (await manager.version("desks")).status.value == "drained"


@pytest.mark.parametrize("as_node", ["nobody", None])
async def test_an_update_that_the_graph_refuses_changes_nothing(sdk: LangGraphClient, as_node: str | None) -> None:
    state = await asked(sdk)
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await sdk.threads.update_state("t1", {"log": 5}, as_node=as_node)
    assert code_of(refused) == (422, "update-refused")
    assert await sdk.threads.get_state("t1") == state


async def test_updates_at_once_are_made_one_after_the_other(sdk: LangGraphClient) -> None:
    await sdk.threads.create(thread_id="t1", graph_id="asking")
    words = [f"w{n}" for n in range(20)]
    await asyncio.gather(*(sdk.threads.update_state("t1", {"log": [word]}, as_node="last") for word in words))
    state: Any = await sdk.threads.get_state("t1")
    assert sorted(state["values"]["log"]) == sorted(words)
    history = await sdk.threads.get_history("t1", limit=100)
    for newer, older in pairwise(history):
        assert newer["parent_checkpoint"] == older["checkpoint"]


async def test_updates_and_runs_at_once_lose_nothing(sdk: LangGraphClient, gate: Gate) -> None:
    gate.open.set()
    await sdk.threads.create(thread_id="t1", graph_id="slow")

    async def update(word: str) -> str | None:
        try:
            await sdk.threads.update_state("t1", {"log": [word]}, as_node="work")
        except httpx.HTTPStatusError as error:
            return None if error.response.json()["code"] == "thread-busy" else "another error"
        return word

    async def run(word: str) -> str:
        await sdk.runs.wait("t1", "slow", input={"log": [word]})
        return word

    calls = [run(f"r{n}") if n % 2 else update(f"u{n}") for n in range(30)]
    said = await asyncio.gather(*calls)
    state: Any = await sdk.threads.get_state("t1")
    assert sorted(word for word in state["values"]["log"] if word != "worked") == sorted(filter(None, said))
    assert (await sdk.threads.get("t1"))["status"] == "idle"


async def test_a_run_that_comes_while_an_update_is_made_goes_first(manager: GraphVersionManager) -> None:
    """The update is made again on what the run left, so that neither is lost."""
    started, go_on = asyncio.Event(), asyncio.Event()
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(_Log)

    async def route(state: _Log) -> str:
        if "held" in state["log"] and not started.is_set():
            started.set()
            await go_on.wait()
        return END

    graph.add_node("say", lambda state: {"log": ["said"]}).add_edge(START, "say").add_conditional_edges("say", route)
    await manager.switch(await manager.register("routed", {"routed": graph}))
    transport = httpx.ASGITransport(create_app(manager))
    async with httpx.AsyncClient(transport=transport, base_url=LOCAL, timeout=DEADLINE_S) as client:
        sdk = LangGraphClient(client)
        await sdk.threads.create(thread_id="t1", graph_id="routed")
        updating = asyncio.create_task(sdk.threads.update_state("t1", {"log": ["held"]}, as_node="say"))
        await started.wait()
        await sdk.runs.wait("t1", "routed", input={"log": ["in"]})
        go_on.set()
        await updating
        state: Any = await sdk.threads.get_state("t1")
        assert state["values"]["log"] == ["in", "said", "held"]


class _Log(TypedDict):
    log: Annotated[list[str], operator.add]


async def test_a_process_that_dies_while_it_updates_leaves_the_thread_as_it_was(tmp_path: Path) -> None:
    """Nothing is written before all of it is, so a new process finds the thread whole and free."""
    folder = tmp_path / "other"
    folder.mkdir()
    gate = Gate()
    started = asyncio.Event()

    async def never(state: _Log) -> str:
        if "held" not in state["log"]:
            return END
        started.set()
        await asyncio.Event().wait()
        return END

    def graphs() -> dict[str, Any]:
        graph: StateGraph[Any, Any, Any, Any] = StateGraph(_Log)
        graph.add_node("say", lambda state: {"log": ["said"]}).add_edge(START, "say")
        return {"routed": graph.add_conditional_edges("say", never)}

    async with GraphVersionManager.open(folder) as first:
        await first.switch(await first.register("routed", graphs()))
        await first.invoke("routed", {"log": ["in"]}, thread_id="t1")
        app = create_app(first)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=LOCAL) as client:
            update = {"values": {"log": ["held"]}, "as_node": "say"}
            updating = asyncio.create_task(client.post("/threads/t1/state", json=update))
            await started.wait()
            updating.cancel()
            await asyncio.gather(updating, return_exceptions=True)
    async with GraphVersionManager.open(folder) as second:
        await serve_desks(second, gate)
        await second.switch(await second.register("routed", graphs()))
        thread = (await second.store.threads.get("t1")).thread
        assert (thread.status, thread.waiting) == ("idle", None)
        snapshot = await second.threads.state(thread)
        assert snapshot is not None
        assert snapshot.values == {"log": ["in", "said"]}
        assert (await second.invoke("routed", {"log": ["on"]}, thread_id="t1"))["log"][-1] == "said"


class SlowSaver(InMemorySaver):
    """Keeps state elsewhere than we do, and takes its time over it once it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.is_slow = False
        self.entered = asyncio.Event()
        self.open = asyncio.Event()

    async def aput(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_slow:
            self.entered.set()
            await self.open.wait()
        return await super().aput(*args, **kwargs)


async def test_runs_wait_while_a_saver_of_ones_own_is_written(
    tmp_path: Path, gate: Gate, eventually: Callable[..., Any]
) -> None:
    saver = SlowSaver()
    gate.open.set()
    async with GraphVersionManager.open(tmp_path, checkpointer=saver) as manager:
        await serve_desks(manager, gate)
        transport = httpx.ASGITransport(create_app(manager))
        async with httpx.AsyncClient(transport=transport, base_url=LOCAL, timeout=DEADLINE_S) as client:
            sdk = LangGraphClient(client)
            await sdk.threads.create(thread_id="t1", graph_id="slow")
            saver.is_slow = True
            updating = asyncio.create_task(sdk.threads.update_state("t1", {"log": ["by hand"]}, as_node="work"))
            await saver.entered.wait()
            assert (await sdk.threads.get("t1"))["status"] == "busy"
            running = asyncio.create_task(sdk.runs.wait("t1", "slow", input={"log": ["in"]}))

            async def waits() -> bool:
                return [run["status"] for run in await sdk.runs.list("t1", status="pending")] == ["pending"]

            await eventually(waits)
            with pytest.raises(httpx.HTTPStatusError) as refused:
                await sdk.threads.delete("t1")
            assert code_of(refused) == (409, "thread-busy")
            saver.open.set()
            await updating
            done: Any = await running
            assert done["log"] == ["by hand", "in", "worked"]
            assert len(await sdk.runs.list("t1")) == 1


async def test_updates_of_a_saver_of_ones_own_are_made_one_after_the_other(tmp_path: Path, gate: Gate) -> None:
    async with GraphVersionManager.open(tmp_path, checkpointer=InMemorySaver()) as manager:
        await serve_desks(manager, gate)
        transport = httpx.ASGITransport(create_app(manager))
        async with httpx.AsyncClient(transport=transport, base_url=LOCAL, timeout=DEADLINE_S) as client:
            sdk = LangGraphClient(client)
            await sdk.threads.create(thread_id="t1", graph_id="asking")
            words = [f"w{n}" for n in range(5)]
            await asyncio.gather(*(sdk.threads.update_state("t1", {"log": [w]}, as_node="last") for w in words))
            state: Any = await sdk.threads.get_state("t1")
            assert sorted(state["values"]["log"]) == words
            assert len(await sdk.threads.get_history("t1")) == 5
            assert await sdk.runs.list("t1") == []


DYING = """
import asyncio, os, sys
from changeover import GraphVersionManager
from langgraph.types import StateUpdate

async def main():
    async with GraphVersionManager.open(sys.argv[1]) as manager:
        await manager.serve_folder()
        await manager.invoke("asking", {"log": ["in"]}, thread_id="t1")
        words = ("ok", "die")
        await manager.threads.update("t1", [[StateUpdate({"log": [word]}, "ask")] for word in words])

asyncio.run(main())
"""


async def test_a_process_that_is_killed_midway_leaves_none_of_an_update(project: WriteProject) -> None:
    dies = "def add(old, new):\n    return os._exit(9) if new == ['die'] else (old or []) + new\n"
    source = textwrap.dedent(PROJECT["graphs/asking.py"]).replace("operator.add", "add")
    folder = project({"graphs/asking.py": "import os\n" + dies + source})
    environment = {**os.environ, "PYTHONPATH": str(RUNTIME)}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", DYING, str(folder), env=environment)
    assert await process.wait() == 9
    async with GraphVersionManager.open(folder) as manager:
        thread = (await manager.store.threads.get("t1")).thread
        assert (thread.status, thread.waiting) == ("interrupted", "interrupt")
        snapshot = await manager.threads.state(thread)
        assert snapshot is not None
        assert (snapshot.values, snapshot.next) == ({"log": ["in"]}, ("ask",))
        await manager.threads.update("t1", [[StateUpdate({"log": ["now"]}, "ask")]])
        assert (await manager.store.threads.get("t1")).thread.status == "idle"


PROJECT = {
    "graphs/asking.py": """
        import operator
        from typing import Annotated, TypedDict

        from langgraph.graph import END, START, StateGraph
        from langgraph.types import interrupt

        class Desk(TypedDict, total=False):
            log: Annotated[list, operator.add]
            answer: str

        def ask(state):
            return {"answer": interrupt("which?"), "log": ["asked"]}

        graph = StateGraph(Desk).add_node("ask", ask).add_edge(START, "ask").add_edge("ask", END)
        """
}


async def test_a_remote_graph_reads_and_writes_state_over_a_socket(project: WriteProject, serving: Serving) -> None:
    async with serving(project(PROJECT)) as url:
        remote = RemoteGraph("asking", url=url)
        config: Any = {"configurable": {"thread_id": "t1"}}
        await remote.ainvoke({"log": ["in"]}, config)
        snapshot = await remote.aget_state(config)
        assert (snapshot.values, snapshot.next) == ({"log": ["in"]}, ("ask",))
        assert [found.value for found in snapshot.interrupts] == ["which?"]
        history = [state async for state in remote.aget_state_history(config)]
        assert [state.next for state in history] == [("ask",), ("__start__",)]
        older = [state async for state in remote.aget_state_history(config, before=history[0].config, limit=5)]
        assert [state.config for state in older] == [history[1].config]
        filtered = [state async for state in remote.aget_state_history(config, filter={"step": 0})]
        assert [state.config for state in filtered] == [history[0].config]
        at = await remote.aget_state(history[1].config)
        assert at.next == ("__start__",)
        written = await remote.aupdate_state(config, {"log": ["by hand"]}, as_node="ask")
        now = await asyncio.to_thread(remote.get_state, config)
        assert (now.values, now.next) == ({"log": ["in", "by hand"]}, ())
        assert now.config["configurable"]["checkpoint_id"] == written["configurable"]["checkpoint_id"]
        assert now.parent_config == snapshot.config
        forked = await asyncio.to_thread(remote.update_state, snapshot.config, {"log": ["again"]}, "ask")
        assert (await remote.aget_state(forked)).values == {"log": ["in", "again"]}
