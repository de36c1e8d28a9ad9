"""Finding threads as `langgraph_sdk` does: filters, order, pages, selected and extracted fields."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from server_samples import DEADLINE_S, LOCAL
from thread_desks import Gate, serve_desks

from changeover import GraphVersionManager, create_app


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(tmp_path) as opened:
        await serve_desks(opened, Gate())
        yield opened


@pytest.fixture
async def client(manager: GraphVersionManager) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(manager))
    async with httpx.AsyncClient(transport=transport, base_url=LOCAL, timeout=DEADLINE_S) as opened:
        yield opened


@pytest.fixture
async def sdk(client: httpx.AsyncClient) -> LangGraphClient:
    made = LangGraphClient(client)
    await made.threads.create(thread_id="a", metadata={"user": "ada", "n": 1, "deep": {"x": [1, {"y": 2}], "z": None}})
    await made.threads.create(thread_id="b", metadata={"user": "bob", "n": 2, "on": True})
    await made.runs.wait("c", "asking", input={"log": ["in"]}, if_not_exists="create", metadata={"user": "cy"})
    await made.runs.wait("d", "failing", input={"log": ["in"]}, if_not_exists="create", raise_error=False)
    return made


async def ids(sdk: LangGraphClient, **wanted: Any) -> list[str]:
    found = sorted(thread["thread_id"] for thread in await sdk.threads.search(**wanted))
    if wanted.keys() <= {"metadata", "values", "status"}:
        assert await sdk.threads.count(**wanted) == len(found)
    return found


HELD: list[tuple[dict[str, Any], list[str]]] = [
    ({"user": "ada"}, ["a"]),
    ({"user": "ada", "n": 2}, []),
    ({"n": 1}, ["a"]),
    ({"n": True}, []),
    ({"n": "1"}, []),
    ({"on": True}, ["b"]),
    ({"on": 1}, []),
    ({"deep": {}}, ["a"]),
    ({"deep": {"z": None}}, ["a"]),
    ({"deep": {"x": [1]}}, ["a"]),
    ({"deep": {"x": [{"y": 2}]}}, ["a"]),
    ({"deep": {"x": [3]}}, []),
    ({'"': 1}, []),
    ({"graph_id": "asking"}, ["c"]),
    ({"user": "nobody"}, []),
    ({}, ["a", "b", "c", "d"]),
]


async def test_metadata_is_found_by_what_it_holds(sdk: LangGraphClient) -> None:
    for metadata, found in HELD:
        assert await ids(sdk, metadata=metadata) == found, metadata


async def test_threads_are_found_by_their_assistant(sdk: LangGraphClient) -> None:
    assistant = (await sdk.assistants.get("asking"))["assistant_id"]
    assert await ids(sdk, metadata={"assistant_id": assistant}) == ["c"]


async def test_threads_run_from_python_are_found_by_their_graph(
    sdk: LangGraphClient, manager: GraphVersionManager
) -> None:
    await manager.invoke("asking", {"log": ["in"]}, thread_id="e")
    assert await ids(sdk, metadata={"graph_id": "asking"}) == ["c", "e"]


async def test_status_and_ids_narrow_the_search(sdk: LangGraphClient) -> None:
    assert await ids(sdk, status="interrupted") == ["c"]
    assert await ids(sdk, status="error") == ["d"]
    assert await ids(sdk, status="idle") == ["a", "b"]
    assert await ids(sdk, status="busy") == []
    assert await ids(sdk, ids=["a", "c", "none"]) == ["a", "c"]
    assert (await sdk.http.post("/threads/count", json={"ids": ["a", "none"]})) == 1


async def test_threads_that_go_with_their_run_are_not_found(sdk: LangGraphClient, manager: GraphVersionManager) -> None:
    def mark(connection: Any) -> None:
        connection.execute("UPDATE threads SET temporary = 1 WHERE id = 'a'")

    await manager.store.database.write(mark)
    assert await ids(sdk) == ["b", "c", "d"]
    assert await ids(sdk, metadata={"user": "ada"}) == []


async def test_values_are_found_by_what_they_hold(sdk: LangGraphClient) -> None:
    await sdk.threads.update_state("c", {"about": {"city": "Ulm", "n": 1}}, as_node="last")
    assert await ids(sdk, values={"about": {"city": "Ulm"}}) == ["c"]
    assert await ids(sdk, values={"about": {"city": "Bonn"}}) == []
    assert await ids(sdk, values={"log": ["in"]}) == ["c", "d"]
    assert await ids(sdk, values={"log": ["in"]}, status="error") == ["d"]


async def test_pages_follow_each_other_without_overlap(sdk: LangGraphClient, client: httpx.AsyncClient) -> None:
    for values in (None, {"log": []}):
        whole = [t["thread_id"] for t in await sdk.threads.search(values=values, sort_by="thread_id", sort_order="asc")]
        assert whole == (["a", "b", "c", "d"] if values is None else ["c", "d"])
        seen: list[str] = []
        offset: str | None = "0"
        while offset is not None:
            body = {"limit": 1, "offset": int(offset), "sort_by": "thread_id", "sort_order": "asc", "values": values}
            answer = await client.post("/threads/search", json=body)
            seen += [thread["thread_id"] for thread in answer.json()]
            offset = answer.headers.get("x-pagination-next")
        assert seen == whole


@pytest.mark.parametrize("sort_by", ["thread_id", "status", "created_at", "updated_at", "state_updated_at"])
async def test_threads_come_in_the_order_asked_for(sdk: LangGraphClient, sort_by: Any) -> None:
    await sdk.threads.update("a", metadata={})
    up: Any = await sdk.threads.search(sort_by=sort_by, sort_order="asc")
    down: Any = await sdk.threads.search(sort_by=sort_by, sort_order="desc")
    assert [t["thread_id"] for t in down] == [t["thread_id"] for t in up][::-1]
    keys = [thread[sort_by] or "" for thread in up]
    assert keys == sorted(keys)


async def test_what_was_used_last_comes_first(sdk: LangGraphClient) -> None:
    await sdk.threads.update("a", metadata={"touched": 1})
    assert (await sdk.threads.search(limit=1))[0]["thread_id"] == "a"


async def test_only_selected_fields_are_sent_and_no_state_is_read_for_the_rest(
    sdk: LangGraphClient, manager: GraphVersionManager
) -> None:
    assert await sdk.threads.search(ids=["c"], select=["thread_id", "status"]) == [
        {"thread_id": "c", "status": "interrupted"}
    ]
    whole: Any = await sdk.threads.search(ids=["c"], select=["values", "interrupts", "metadata", "created_at"])
    assert whole[0].keys() == {"values", "interrupts", "metadata", "created_at"}
    assert whole[0]["values"]["log"] == ["in", "first"]
    assert [found["value"] for group in whole[0]["interrupts"].values() for found in group] == ["which?"]

    def spoil(connection: Any) -> None:
        connection.execute("UPDATE checkpoints SET checkpoint = x'c1', type = 'msgpack'")

    await manager.store.database.write(spoil)  # a state that is read now would fail
    assert len(await sdk.threads.search(select=["thread_id", "metadata", "status", "updated_at"])) == 4


async def test_what_is_extracted_is_found_by_its_path(sdk: LangGraphClient) -> None:
    paths = {
        "last": "values.log[-1]",
        "first": "values.log[0]",
        "beyond": "values.log[9]",
        "who": "metadata.user",
        "deep": "metadata.deep.x[1].y",
        "state": "status",
        "odd": "values.log.x",
    }
    found: Any = {t["thread_id"]: t["extracted"] for t in await sdk.threads.search(extract=paths)}  # type: ignore[typeddict-item]
    nothing = dict.fromkeys(paths)
    assert found["a"] == {**nothing, "who": "ada", "deep": 2, "state": "idle"}
    assert found["c"] == {**nothing, "last": "first", "first": "in", "state": "interrupted"}
    slim: Any = await sdk.threads.search(ids=["c"], select=["thread_id"], extract={"l": "values.log[1]"})
    assert slim == [{"thread_id": "c", "extracted": {"l": "first"}}]


WRONG: list[dict[str, Any]] = [
    {"limit": 0},
    {"limit": 1001},
    {"offset": -1},
    {"sort_by": "colour"},
    {"sort_order": "up"},
    {"status": "gone"},
    {"select": ["soul"]},
    {"ids": "a"},
    {"metadata": []},
    {"values": 5},
    {"extract": {"a": "values[x]"}},
    {"extract": {"a": "$.values"}},
    {"extract": {f"p{n}": "status" for n in range(11)}},
    {"colour": "red"},
]


async def test_a_wrong_search_is_refused(sdk: LangGraphClient, client: httpx.AsyncClient) -> None:
    for body in WRONG:
        answer = await client.post("/threads/search", json=body)
        assert answer.status_code == 422, body
        assert answer.json()["code"] == "invalid-request", body


async def test_a_search_that_would_read_too_many_states_is_refused(
    sdk: LangGraphClient, manager: GraphVersionManager
) -> None:
    def fill(connection: Any) -> None:
        connection.executemany(
            "INSERT INTO threads (id, created_at, updated_at) VALUES (?, 1, 1)", [(f"x{n}",) for n in range(2100)]
        )

    await manager.store.database.write(fill)
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await sdk.threads.count(values={"log": ["nobody says this"]})
    assert refused.value.response.json()["code"] == "too-many-states"
    assert await sdk.threads.count(values={"log": ["in"]}, status="error") == 1
    assert await sdk.threads.count() == 2104
