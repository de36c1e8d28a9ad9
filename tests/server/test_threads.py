"""Threads as `langgraph_sdk` makes, changes, copies, deletes and prunes them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import StateUpdate
from langgraph_sdk.client import LangGraphClient
from server_samples import DEADLINE_S, LOCAL
from thread_desks import Gate, serve_desks

from changeover import GraphVersionManager, create_app
from changeover.errors import InvalidRequest
from changeover.store.records.ids import ThreadId
from changeover.store.thread_search import ThreadFilter
from changeover.store.threads import TimeToLive


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def manager(tmp_path: Path, gate: Gate) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(tmp_path, keep_sweep_s=0.01) as opened:
        await serve_desks(opened, gate)
        yield opened
        gate.open.set()


@pytest.fixture
async def sdk(manager: GraphVersionManager) -> AsyncIterator[LangGraphClient]:
    transport = httpx.ASGITransport(create_app(manager))
    async with httpx.AsyncClient(transport=transport, base_url=LOCAL, timeout=DEADLINE_S) as client:
        yield LangGraphClient(client)


def status_of(refused: pytest.ExceptionInfo[httpx.HTTPStatusError]) -> int:
    return refused.value.response.status_code


async def rows_of(manager: GraphVersionManager, table: str, thread_id: str) -> int:
    def job(connection: Any) -> int:
        (count,) = connection.execute(f"SELECT count(*) FROM {table} WHERE thread_id = ?", (thread_id,)).fetchone()
        return int(count)

    return await manager.store.database.read(job)


async def busy(sdk: LangGraphClient, gate: Gate, thread_id: str = "busy") -> asyncio.Task[Any]:
    """A thread whose run is at work until the gate opens."""
    running = asyncio.create_task(sdk.runs.wait(thread_id, "slow", input={"log": ["in"]}, if_not_exists="create"))
    await gate.entered.wait()
    return running


async def test_a_new_thread_has_its_id_metadata_and_graph(sdk: LangGraphClient) -> None:
    made = await sdk.threads.create(thread_id="mine", metadata={"user": "ada"}, graph_id="asking")
    assert (made["thread_id"], made["status"], made["values"], made["interrupts"]) == ("mine", "idle", None, {})
    assert made["metadata"] == {"user": "ada", "graph_id": "asking"}
    nameless = await sdk.threads.create()
    assert str(uuid.UUID(nameless["thread_id"])) == nameless["thread_id"]


async def test_the_graph_of_a_thread_may_stand_beside_its_metadata(sdk: LangGraphClient) -> None:
    made = await sdk.http.post("/threads", json={"graph_id": "asking", "metadata": {"user": "ada"}})
    assert made["metadata"] == {"user": "ada", "graph_id": "asking"}


async def test_a_thread_that_exists_is_given_only_to_who_says_so(sdk: LangGraphClient) -> None:
    await sdk.threads.create(thread_id="mine", metadata={"user": "ada"})
    for if_exists in (None, "raise"):
        with pytest.raises(httpx.HTTPStatusError) as refused:
            await sdk.threads.create(thread_id="mine", if_exists=if_exists)  # type: ignore[arg-type]
        assert status_of(refused) == 409
    again = await sdk.threads.create(thread_id="mine", metadata={"user": "bob"}, if_exists="do_nothing")
    assert again["metadata"] == {"user": "ada"}


async def test_supersteps_make_the_state_of_a_new_thread(sdk: LangGraphClient, manager: GraphVersionManager) -> None:
    steps: list[Any] = [
        {"updates": [{"values": {"log": ["in"]}, "as_node": "__start__"}]},
        {"updates": [{"values": None, "command": {"update": {"log": ["by command"]}}, "as_node": "first"}]},
    ]
    made = await sdk.threads.create(thread_id="made", graph_id="asking", supersteps=steps)
    assert (made["values"], made["status"]) == ({"log": ["in", "by command"]}, "interrupted")
    assert (await sdk.threads.get_state("made"))["next"] == ["inner"]
    assert made["version"] == "desks"
    assert [holder.id for holder in await manager.holders("desks") if holder.kind == "thread"] == ["made"]
    same = await sdk.threads.create(thread_id="made", graph_id="asking", supersteps=steps, if_exists="do_nothing")
    assert same["values"] == made["values"]


async def test_supersteps_that_fail_midway_leave_no_thread(sdk: LangGraphClient, manager: GraphVersionManager) -> None:
    steps: list[Any] = [
        {"updates": [{"values": {"log": ["in"]}, "as_node": "__start__"}]},
        {"updates": [{"values": {"log": ["x"]}, "as_node": "nobody"}]},
    ]
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await sdk.threads.create(thread_id="half", graph_id="asking", supersteps=steps)
    assert status_of(refused) == 422
    assert "nobody" in refused.value.response.json()["detail"]
    with pytest.raises(httpx.HTTPStatusError) as missing:
        await sdk.threads.get("half")
    assert status_of(missing) == 404
    assert await rows_of(manager, "checkpoints", "half") == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"thread_id": "no spaces"}, 422),
        ({"thread_id": ""}, 422),
        ({"thread_id": "x" * 256}, 422),
        ({"if_exists": "perhaps"}, 422),
        ({"metadata": ["a"]}, 422),
        ({"colour": "red"}, 422),
        ({"ttl": 0}, 422),
        ({"ttl": {"ttl": 5, "strategy": "burn"}}, 422),
        ({"ttl": {"strategy": "delete"}}, 422),
        ({"supersteps": [{"updates": [{"values": {}, "as_node": "first"}]}]}, 422),
        ({"graph_id": "asking", "supersteps": [{"updates": []}]}, 422),
        ({"graph_id": "nobody", "supersteps": [{"updates": [{"values": {"log": []}}]}]}, 404),
    ],
)
async def test_a_wrong_request_for_a_thread_is_refused(sdk: LangGraphClient, body: dict[str, Any], status: int) -> None:
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await sdk.http.post("/threads", json=body)
    assert status_of(refused) == status
    assert refused.value.response.headers["content-type"] == "application/problem+json"
    assert await sdk.threads.count() == 0


async def test_metadata_that_could_not_be_read_again_is_refused(manager: GraphVersionManager) -> None:
    transport = httpx.ASGITransport(create_app(manager))
    async with httpx.AsyncClient(transport=transport, base_url=LOCAL) as client:
        for bad in ('{"a": NaN}', '{"a": "\\ud800"}', '{"a": ' + "[" * 200 + "]" * 200 + "}"):
            for method, path in (("POST", "/threads"), ("POST", "/threads/search"), ("POST", "/threads/count")):
                answer = await client.request(method, path, content='{"metadata": ' + bad + "}")
                assert answer.status_code == 422, (method, path, bad)
        assert (await client.post("/threads/search", json={})).status_code == 200


async def test_an_update_merges_metadata_by_key(sdk: LangGraphClient) -> None:
    await sdk.threads.create(thread_id="mine", metadata={"user": "ada", "tags": {"a": 1}})
    changed = await sdk.threads.update("mine", metadata={"tags": {"b": 2}, "plan": None})
    assert changed["metadata"] == {"user": "ada", "tags": {"b": 2}, "plan": None}
    assert (await sdk.threads.get("mine"))["metadata"] == changed["metadata"]
    assert changed["updated_at"] > changed["created_at"]


async def test_an_update_answers_with_nothing_where_that_is_preferred(sdk: LangGraphClient) -> None:
    await sdk.threads.create(thread_id="mine")
    assert await sdk.threads.update("mine", metadata={"a": 1}, return_minimal=True) is None
    assert (await sdk.threads.get("mine"))["metadata"] == {"a": 1}


async def test_metadata_may_be_changed_by_way_of_the_state(sdk: LangGraphClient) -> None:
    """As the JavaScript client's `patchState` does."""
    await sdk.threads.create(thread_id="mine", metadata={"user": "ada"})
    await sdk.http.patch("/threads/mine/state", json={"metadata": {"plan": 1}})
    assert (await sdk.threads.get("mine"))["metadata"] == {"user": "ada", "plan": 1}


async def test_a_change_of_state_renews_the_time_to_live(sdk: LangGraphClient, manager: GraphVersionManager) -> None:
    await sdk.threads.create(thread_id="mine", graph_id="asking", ttl=30)
    before = (await manager.store.threads.get("mine")).expires_at
    await sdk.threads.update_state("mine", {"log": ["a"]})
    after = (await manager.store.threads.get("mine")).expires_at
    assert before is not None
    assert after is not None
    assert after > before


async def test_a_time_to_live_is_told_when_asked_for_and_set_anew(sdk: LangGraphClient) -> None:
    made = await sdk.threads.create(thread_id="mine", ttl=30)
    assert "ttl" not in made
    told = (await sdk.http.get("/threads/mine", params={"include": "ttl"}))["ttl"]
    assert (told["strategy"], told["ttl_minutes"]) == ("delete", 30)
    await sdk.threads.update("mine", metadata={}, ttl={"ttl": 60, "strategy": "keep_latest"})
    again: Any = await sdk.threads.get("mine", include=["ttl"])
    assert (again["ttl"]["strategy"], again["ttl"]["ttl_minutes"]) == ("keep_latest", 60)
    assert again["ttl"]["expires_at"] > told["expires_at"]
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await sdk.threads.get("mine", include=["soul"])
    assert status_of(refused) == 422


async def test_a_thread_whose_time_is_over_is_deleted(
    sdk: LangGraphClient, manager: GraphVersionManager, eventually: Callable[..., Any]
) -> None:
    await sdk.threads.create(thread_id="brief", graph_id="asking")
    await sdk.threads.update_state("brief", {"log": ["a"]})
    await sdk.threads.update("brief", metadata={}, ttl=0.0001)
    await eventually(lambda: _is_gone(sdk, "brief"))
    assert await rows_of(manager, "checkpoints", "brief") == 0


async def _is_gone(sdk: LangGraphClient, thread_id: str) -> bool:
    return await sdk.threads.search(ids=[thread_id]) == []


async def test_a_thread_whose_time_is_over_may_keep_its_newest_state(
    sdk: LangGraphClient, eventually: Callable[..., Any]
) -> None:
    await sdk.threads.create(thread_id="brief", graph_id="asking")
    for word in "abc":
        await sdk.threads.update_state("brief", {"log": [word]}, as_node="last")
    await sdk.threads.update("brief", metadata={}, ttl={"ttl": 0.0001, "strategy": "keep_latest"})

    async def is_pruned() -> bool:
        return len(await sdk.threads.get_history("brief")) == 1

    await eventually(is_pruned)
    assert (await sdk.threads.get("brief"))["values"] == {"log": ["a", "b", "c"]}


async def test_a_busy_thread_outlives_its_time_and_a_run_renews_it(
    sdk: LangGraphClient, gate: Gate, manager: GraphVersionManager, eventually: Callable[..., Any]
) -> None:
    running = await busy(sdk, gate)
    await sdk.threads.update("busy", metadata={}, ttl=0.0001)

    async def is_over() -> bool:
        return (await manager.store.threads.get("busy")).expires_at <= time.time()  # type: ignore[operator]

    await eventually(is_over)
    assert await manager.threads.expire() == 0
    assert await manager.store.threads.delete({"busy": lambda connection: None}, expired=True) == []
    await sdk.threads.update("busy", metadata={}, ttl=100)
    before = (await manager.store.threads.get("busy")).expires_at
    gate.open.set()
    await running
    after = (await manager.store.threads.get("busy")).expires_at
    assert before is not None
    assert after is not None
    assert after > before


async def test_expiry_survives_a_restart(tmp_path: Path, eventually: Callable[..., Any]) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    async with GraphVersionManager.open(folder, keep_sweep_s=3600) as first:
        await first.threads.create(ThreadId("old"), {}, ttl=TimeToLive("delete", 0.0001))
    async with GraphVersionManager.open(folder, keep_sweep_s=0.01) as second:

        async def is_gone() -> bool:
            return await second.store.threads.count(ThreadFilter()) == 0

        await eventually(is_gone)


async def test_a_deleted_thread_leaves_nothing(sdk: LangGraphClient, manager: GraphVersionManager) -> None:
    await sdk.runs.wait("gone", "asking", input={"log": ["in"]}, if_not_exists="create")
    assert [holder.id for holder in await manager.holders("desks") if holder.kind == "thread"] == ["gone"]
    await sdk.threads.delete("gone")
    for table in ("runs", "checkpoints", "writes"):
        assert await rows_of(manager, table, "gone") == 0
    assert [holder for holder in await manager.holders("desks") if holder.kind == "thread"] == []
    for call in (sdk.threads.get("gone"), sdk.threads.delete("gone"), sdk.threads.get_state("gone")):
        with pytest.raises(httpx.HTTPStatusError) as missing:
            await call
        assert status_of(missing) == 404


async def test_deleting_the_last_holder_drains_its_version(sdk: LangGraphClient, manager: GraphVersionManager) -> None:
    await sdk.runs.wait("held", "asking", input={"log": ["in"]}, if_not_exists="create")
    await serve_desks(manager, Gate(), "newer")
    assert (await manager.version("desks")).status.value == "draining"
    await sdk.threads.delete("held")
    assert (await manager.version("desks")).status.value == "drained"


@pytest.mark.parametrize("what", ["delete", "copy", "prune", "keep_latest", "update_state"])
async def test_a_busy_thread_is_left_alone(sdk: LangGraphClient, gate: Gate, what: str) -> None:
    running = await busy(sdk, gate)
    calls: dict[str, Callable[[], Any]] = {
        "delete": lambda: sdk.threads.delete("busy"),
        "copy": lambda: sdk.threads.copy("busy"),
        "prune": lambda: sdk.threads.prune(["busy"]),
        "keep_latest": lambda: sdk.threads.prune(["busy"], strategy="keep_latest"),
        "update_state": lambda: sdk.threads.update_state("busy", {"log": ["x"]}),
    }
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await calls[what]()
    assert (status_of(refused), refused.value.response.json()["code"]) == (409, "thread-busy")
    assert (await sdk.threads.get("busy"))["status"] == "busy"
    gate.open.set()
    assert (await running)["log"] == ["in", "worked"]
    await calls[what]()


async def test_a_copy_has_the_state_and_goes_its_own_way(sdk: LangGraphClient, manager: GraphVersionManager) -> None:
    await sdk.threads.create(thread_id="one", metadata={"user": "ada"}, ttl=60)
    await sdk.runs.wait("one", "asking", input={"log": ["in"]})
    copy: Any = await sdk.threads.copy("one")
    other = copy["thread_id"]
    assert other != "one"
    assert (copy["status"], copy["values"]) == ("interrupted", {"log": ["in", "first"]})
    assert copy["metadata"]["user"] == "ada"
    mine = await sdk.threads.get_state("one", subgraphs=True)
    theirs = await sdk.threads.get_state(other, subgraphs=True)
    assert theirs["interrupts"] == mine["interrupts"]
    assert theirs["tasks"][0]["state"]["next"] == ["ask"]  # type: ignore[index]
    assert len(await sdk.threads.get_history(other)) == len(await sdk.threads.get_history("one"))
    assert {holder.id for holder in await manager.holders("desks") if holder.kind == "thread"} == {"one", other}
    done: Any = await sdk.runs.wait(other, "asking", command={"resume": "blue"})
    assert (done["answer"], done["log"][-1]) == ("blue", "last")
    assert (await sdk.threads.get("one"))["status"] == "interrupted"
    assert (await sdk.threads.get(other, include=["ttl"]))["ttl"]["ttl_minutes"] == 60  # type: ignore[typeddict-item]


async def test_unknown_threads_are_not_found(sdk: LangGraphClient) -> None:
    calls = [
        sdk.threads.get("none"),
        sdk.threads.update("none", metadata={}),
        sdk.threads.delete("none"),
        sdk.threads.copy("none"),
        sdk.threads.get_state("none"),
        sdk.threads.get_history("none"),
        sdk.threads.update_state("none", {"log": []}),
        sdk.threads.get_state("none", checkpoint_id="x"),
    ]
    for call in calls:
        with pytest.raises(httpx.HTTPStatusError) as missing:
            await call
        assert (status_of(missing), missing.value.response.json()["code"]) == (404, "unknown-thread")


async def test_pruning_keeps_the_newest_state_and_what_waits(sdk: LangGraphClient) -> None:
    for thread in ("one", "two"):
        await sdk.runs.wait(thread, "asking", input={"log": ["in"]}, if_not_exists="create")
    before = await sdk.threads.get_state("one", subgraphs=True)
    assert await sdk.threads.prune(["one", "two", "none"], strategy="keep_latest") == {"pruned_count": 2}
    assert [state["checkpoint"] for state in await sdk.threads.get_history("one")] == [before["checkpoint"]]
    assert await sdk.threads.get_state("one", subgraphs=True) == before
    done: Any = await sdk.runs.wait("one", "asking", command={"resume": "blue"})
    assert (done["answer"], done["log"][-1]) == ("blue", "last")


async def test_pruning_deletes_all_or_none(sdk: LangGraphClient, gate: Gate) -> None:
    await sdk.threads.create(thread_id="idle")
    running = await busy(sdk, gate)
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await sdk.threads.prune(["idle", "busy"])
    assert status_of(refused) == 409
    assert (await sdk.threads.get("idle"))["status"] == "idle"
    gate.open.set()
    await running
    assert await sdk.threads.prune(["idle", "busy"]) == {"pruned_count": 2}
    assert await sdk.threads.count() == 0


async def test_status_and_interrupts_are_right_at_each_moment(sdk: LangGraphClient, gate: Gate) -> None:
    running = await busy(sdk, gate, "slow")
    assert (await sdk.threads.get("slow"))["status"] == "busy"
    gate.open.set()
    await running
    assert (await sdk.threads.get("slow"))["status"] == "idle"
    await sdk.runs.wait("asks", "asking", input={"log": ["in"]}, if_not_exists="create")
    asked = await sdk.threads.get("asks")
    assert asked["status"] == "interrupted"
    assert [found["value"] for group in asked["interrupts"].values() for found in group] == ["which?"]
    await sdk.runs.wait("asks", "asking", command={"resume": "blue"})
    answered = await sdk.threads.get("asks")
    assert (answered["status"], answered["interrupts"]) == ("idle", {})
    await sdk.runs.wait("fails", "failing", input={"log": []}, if_not_exists="create", raise_error=False)
    assert (await sdk.threads.get("fails"))["status"] == "error"


async def test_a_thread_whose_state_cannot_be_read_here_is_shown_and_says_why(tmp_path: Path, gate: Gate) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    async with GraphVersionManager.open(folder) as first:
        await serve_desks(first, gate)
        await first.threads.create(ThreadId("made"), {"graph_id": "asking"})
        await first.threads.update("made", [[StateUpdate({"log": ["a"]})]])
    async with GraphVersionManager.open(folder) as second:  # where the version was not registered again
        transport = httpx.ASGITransport(create_app(second))
        async with httpx.AsyncClient(transport=transport, base_url=LOCAL) as client:
            shown = (await client.get("/threads/made")).json()
            assert (shown["values"], shown["problem"]["code"]) == (None, "not-registered")
            assert len((await client.post("/threads/search", json={})).json()) == 1
            assert (await client.get("/threads/made/state")).status_code == 409
            assert (await client.delete("/threads/made")).status_code == 204


async def test_a_saver_of_ones_own_copies_and_deletes_and_says_if_it_cannot_prune(tmp_path: Path, gate: Gate) -> None:
    async with GraphVersionManager.open(tmp_path, checkpointer=InMemorySaver()) as manager:
        await serve_desks(manager, gate)
        await manager.invoke("asking", {"log": ["in"]}, thread_id="one")
        copy = await manager.threads.copy("one")
        snapshot = await manager.threads.state(copy.thread)
        assert snapshot is not None
        assert snapshot.values == {"log": ["in", "first"]}
        assert [found.value for found in snapshot.interrupts] == ["which?"]
        with pytest.raises(InvalidRequest, match="cannot prune"):
            await manager.threads.prune(["one"], "keep_latest")
        await manager.threads.delete("one")
        assert await manager.saver.aget_tuple({"configurable": {"thread_id": "one"}}) is None
