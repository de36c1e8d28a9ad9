"""The long-term store over HTTP, and that graphs see the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph.store.base import TTLConfig
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from server_samples import LOCAL, Serving, WriteProject

from changeover import GraphVersionManager, create_app
from changeover.checkpoints.memory import Memory
from changeover.checkpoints.opening import long_term_store

NOTES = {
    "graphs/notes.py": """
        from typing import TypedDict
        from langgraph.graph import START, StateGraph
        from langgraph.runtime import Runtime

        class State(TypedDict):
            note: str
            found: list[str]

        async def keep(state: State, runtime: Runtime):
            found = await runtime.store.asearch(("notes",))
            await runtime.store.aput(("notes", "graph"), "last", {"text": state["note"]})
            return {"found": sorted(item.value["text"] for item in found)}

        graph = StateGraph(State)
        graph.add_node("keep", keep)
        graph.add_edge(START, "keep")
        """,
}


@pytest.fixture
async def manager(project: WriteProject) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(project(NOTES)) as opened:
        await opened.serve_folder()
        yield opened


@pytest.fixture
async def http(manager: GraphVersionManager) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(manager)), base_url=LOCAL) as opened:
        yield opened


@pytest.fixture
def sdk(http: httpx.AsyncClient) -> LangGraphClient:
    return LangGraphClient(http)


async def test_an_item_comes_back_as_it_was_put_and_goes_when_deleted(sdk: LangGraphClient) -> None:
    value = {"text": "Grüße", "numbers": [1, 2.5, None, True], "deep": {"a": {"b": []}}}
    await sdk.store.put_item(["users", "ada"], key="k 1/ä", value=value)
    item = await sdk.store.get_item(["users", "ada"], key="k 1/ä")
    assert (item["namespace"], item["key"], item["value"]) == (["users", "ada"], "k 1/ä", value)
    assert str(item["created_at"]).endswith("+00:00")
    assert await sdk.store.get_item(["users"], key="k 1/ä") is None
    assert await sdk.store.get_item(["users", "ada"], key="other") is None
    await sdk.store.delete_item(["users", "ada"], key="k 1/ä")
    assert await sdk.store.get_item(["users", "ada"], key="k 1/ä") is None
    await sdk.store.delete_item(["users", "ada"], key="k 1/ä")


async def test_an_item_that_is_put_again_is_replaced_and_keeps_its_beginning(
    sdk: LangGraphClient, manager: GraphVersionManager
) -> None:
    await sdk.store.put_item(["n"], key="k", value={"a": 1})
    await manager.memory.conn.execute("UPDATE store SET created_at = '2020-01-01 00:00:00'")
    await sdk.store.put_item(["n"], key="k", value={"b": 2})
    item = await sdk.store.get_item(["n"], key="k")
    assert item["value"] == {"b": 2}
    assert str(item["created_at"]).startswith("2020")
    assert str(item["updated_at"]) > "2025"


async def test_a_graph_and_its_clients_see_the_same_items(sdk: LangGraphClient) -> None:
    await sdk.store.put_item(["notes", "person"], key="first", value={"text": "from outside"})
    values: Any = await sdk.runs.wait(None, "notes", input={"note": "from inside"})
    assert values["found"] == ["from outside"]
    item = await sdk.store.get_item(["notes", "graph"], key="last")
    assert item["value"] == {"text": "from inside"}


# --- finding ---------------------------------------------------------------------------------------


@pytest.fixture
async def filled(sdk: LangGraphClient) -> LangGraphClient:
    for number, (namespace, key) in enumerate(
        ((["docs", "a"], "one"), (["docs", "a"], "two"), (["docs", "b"], "three"), (["docsother"], "four"))
    ):
        value = {"n": number, "even": number % 2 == 0, "tag": key[0], "deep": {"x": number}, "list": [number]}
        await sdk.store.put_item(namespace, key=key, value=value)
    return sdk


async def keys(sdk: LangGraphClient, *prefix: str, **wanted: Any) -> set[str]:
    return {item["key"] for item in (await sdk.store.search_items(prefix, **wanted))["items"]}


async def test_search_finds_below_a_prefix_by_filter_and_page(filled: LangGraphClient) -> None:
    assert await keys(filled) == {"one", "two", "three", "four"}
    assert await keys(filled, "docs") == {"one", "two", "three"}, "docsother is not below docs"
    assert await keys(filled, "docs", "a") == {"one", "two"}
    assert await keys(filled, "DOCS") == set()
    assert await keys(filled, filter={"tag": "t"}) == {"two", "three"}
    assert await keys(filled, filter={"tag": "t", "even": True}) == {"three"}
    assert await keys(filled, filter={"n": {"$gt": 1, "$lte": 3}}) == {"three", "four"}
    assert await keys(filled, filter={"n": {"$ne": 0}, "deep.x": {"$lt": 3}}) == {"two", "three"}
    assert await keys(filled, filter={"deep.x": {"$eq": 2}}) == {"three"}
    assert await keys(filled, filter={"list": [1]}) == {"two"}
    assert await keys(filled, filter={"absent": None}) == {"one", "two", "three", "four"}
    pages = [(await filled.store.search_items([], limit=3, offset=offset))["items"] for offset in (0, 3)]
    assert [len(page) for page in pages] == [3, 1]
    assert {item["key"] for page in pages for item in page} == {"one", "two", "three", "four"}
    [item] = (await filled.store.search_items(["docsother"]))["items"]
    assert (item["namespace"], item["value"]["n"]) == (["docsother"], 3)


async def test_namespaces_are_listed_by_prefix_suffix_and_depth(sdk: LangGraphClient) -> None:
    for namespace in (["a", "x", "end"], ["a", "y", "end"], ["b", "x"], ["ab"]):
        await sdk.store.put_item(namespace, key="k", value={})

    async def listed(**wanted: Any) -> list[list[str]]:
        return (await sdk.store.list_namespaces(**wanted))["namespaces"]

    assert await listed() == [["a", "x", "end"], ["a", "y", "end"], ["ab"], ["b", "x"]]
    assert await listed(prefix=["a"]) == [["a", "x", "end"], ["a", "y", "end"]]
    assert await listed(prefix=["*", "x"]) == [["a", "x", "end"], ["b", "x"]]
    assert await listed(suffix=["end"]) == [["a", "x", "end"], ["a", "y", "end"]]
    assert await listed(suffix=["x"]) == [["b", "x"]]
    assert await listed(max_depth=1) == [["a"], ["ab"], ["b"]]
    assert await listed(limit=1, offset=1) == [["a", "y", "end"]]


# --- time to live ----------------------------------------------------------------------------------

TICK = 1 / 60  # a second, in minutes


async def test_an_item_is_gone_after_its_time(sdk: LangGraphClient, eventually: Callable[..., Any]) -> None:
    await sdk.store.put_item(["n"], key="short", value={}, ttl=TICK)  # type: ignore[arg-type]
    await sdk.store.put_item(["n"], key="long", value={}, ttl=5)
    await sdk.store.put_item(["n"], key="ever", value={})
    assert await keys(sdk, "n", refresh_ttl=False) == {"short", "long", "ever"}

    async def is_gone() -> bool:
        return await sdk.store.get_item(["n"], key="short", refresh_ttl=False) is None

    await eventually(is_gone)
    assert await keys(sdk, "n") == {"long", "ever"}
    assert await sdk.store.get_item(["n"], key="long") is not None


async def test_reading_renews_the_time_unless_it_is_told_not_to(
    sdk: LangGraphClient, manager: GraphVersionManager
) -> None:
    async def ends() -> str:
        async with manager.memory.conn.execute("SELECT expires_at FROM store") as found:
            return str((await found.fetchone())[0])  # type: ignore[index]

    async def end_soon() -> str:
        await manager.memory.conn.execute("UPDATE store SET expires_at = datetime('now', '+30 seconds')")
        return await ends()

    await sdk.store.put_item(["n"], key="k", value={}, ttl=5)
    soon = await end_soon()
    await sdk.store.get_item(["n"], key="k", refresh_ttl=False)
    await sdk.store.search_items(["n"], refresh_ttl=False)
    assert await ends() == soon
    await sdk.store.get_item(["n"], key="k", refresh_ttl=True)
    assert await ends() > soon
    soon = await end_soon()
    await sdk.store.get_item(["n"], key="k")
    assert await ends() > soon, "by default it is renewed"
    soon = await end_soon()
    await sdk.store.search_items(["n"], refresh_ttl=True)
    assert await ends() > soon


@asynccontextmanager
async def memory(folder: Path, ttl: TTLConfig) -> AsyncIterator[Memory]:
    async with long_term_store(folder / "memory.db", ttl=ttl) as opened:
        yield opened


async def test_the_store_is_set_up_to_renew_or_not_and_each_read_may_differ(tmp_path: Path) -> None:
    async with memory(tmp_path, {"refresh_on_read": False, "default_ttl": 5}) as store:
        await store.aput(("n",), "k", {})

        async def renewed(**wanted: Any) -> bool:
            await store.conn.execute("UPDATE store SET expires_at = datetime('now', '+30 seconds')")
            await store.aget(("n",), "k", **wanted)
            async with store.conn.execute("SELECT expires_at > datetime('now', '+60 seconds') FROM store") as found:
                return bool((await found.fetchone())[0])  # type: ignore[index]

        assert not await renewed()
        assert await renewed(refresh_ttl=True)


async def test_a_null_time_to_live_is_none_whatever_the_default(tmp_path: Path) -> None:
    async with memory(tmp_path, {"default_ttl": 5}) as store:
        await store.aput(("n",), "default", {})
        await store.aput(("n",), "ever", {}, ttl=None)
        async with store.conn.execute("SELECT key FROM store WHERE expires_at IS NOT NULL") as found:
            assert [row[0] for row in await found.fetchall()] == ["default"]


# --- meaning ---------------------------------------------------------------------------------------


async def letters(texts: Any) -> list[list[float]]:
    """Embeddings that know how often 'a' and 'b' occur."""
    return [[text.count("a") + 0.01, text.count("b") + 0.01] for text in texts]


async def test_a_query_ranks_by_meaning_where_an_index_is_configured(
    manager: GraphVersionManager, sdk: LangGraphClient, tmp_path: Path
) -> None:
    async with long_term_store(
        tmp_path / "indexed.db", index={"dims": 2, "embed": letters, "fields": ["text"]}
    ) as indexed:
        manager.memory = indexed
        await sdk.store.put_item(["n"], key="a", value={"text": "aaa", "other": "b"})
        await sdk.store.put_item(["n"], key="b", value={"text": "bbb"})
        await sdk.store.put_item(["n"], key="out", value={"text": "bb"}, index=False)
        await sdk.store.put_item(["n"], key="other", value={"text": "aaaa", "other": "bb"}, index=["other"])
        found = (await sdk.store.search_items(["n"], query="b"))["items"]
        assert [item["key"] for item in found][-1] == "a"
        assert {item["key"] for item in found} == {"a", "b", "other"}, "what is not indexed has no rank"
        assert found[0]["score"] > found[-1]["score"]  # type: ignore[operator]
        await sdk.store.put_item(["n"], key="b", value={"text": "ccc"}, index=False)
        await sdk.store.delete_item(["n"], key="other")
        await sdk.store.put_item(["n"], key="other", value={"text": "x"}, index=False)
        found = (await sdk.store.search_items(["n"], query="b"))["items"]
        assert [item["key"] for item in found] == ["a"], "nothing is found by what it no longer says"


async def test_without_an_index_a_query_does_not_narrow_as_in_langgraph(filled: LangGraphClient) -> None:
    assert await keys(filled, "docs", query="anything") == {"one", "two", "three"}


# --- what is refused -------------------------------------------------------------------------------

ITEM: dict[str, Any] = {"namespace": ["n"], "key": "k", "value": {}}


MALFORMED: list[dict[str, Any]] = [
    {"namespace": []},
    {"namespace": ["a.b"]},
    {"namespace": [""]},
    {"namespace": ["a\x00"]},
    {"namespace": [1]},
    {"namespace": "n"},
    {"namespace": ["langgraph", "x"]},
    {"namespace": ["n"] * 101},
    {"key": ""},
    {"key": 1},
    {"key": "k" * 1001},
    {"value": []},
    {"value": None},
    {"value": "x"},
    {"value": {"n": 2**70}},
    {"index": True},
    {"index": "text"},
    {"index": [""]},
    {"ttl": 0},
    {"ttl": -1},
    {"ttl": 10**9},
    {"ttl": "soon"},
    {"unknown": 1},
]


async def test_a_malformed_item_is_refused(http: httpx.AsyncClient) -> None:
    for change in MALFORMED:
        answer = await http.put("/store/items", json={**ITEM, **change})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request"), (change, answer.text)
        assert (await http.post("/store/items/search", json={"namespace_prefix": []})).json() == {"items": []}


QUESTIONS: list[tuple[str, str, Any]] = [
    ("POST", "/store/items/search", {}),
    ("POST", "/store/items/search", {"namespace_prefix": ["a.b"]}),
    ("POST", "/store/items/search", {"namespace_prefix": [], "limit": 0}),
    ("POST", "/store/items/search", {"namespace_prefix": [], "limit": 1001}),
    ("POST", "/store/items/search", {"namespace_prefix": [], "offset": -1}),
    ("POST", "/store/items/search", {"namespace_prefix": [], "query": 1}),
    ("POST", "/store/items/search", {"namespace_prefix": [], "refresh_ttl": "yes"}),
    ("POST", "/store/items/search", {"namespace_prefix": [], "filter": {"a'); DROP TABLE store; --": 1}}),
    ("POST", "/store/items/search", {"namespace_prefix": [], "filter": {"a..b": 1}}),
    ("POST", "/store/items/search", {"namespace_prefix": [], "filter": {"a\n": 1}}),
    ("POST", "/store/items/search", {"namespace_prefix": [], "filter": {"a": {"$regex": "x"}}}),
    ("POST", "/store/items/search", {"namespace_prefix": [], "filter": {"a": {"b": 1}}}),
    ("POST", "/store/items/search", {"namespace_prefix": [], "filter": {"a": {}}}),
    ("POST", "/store/items/search", {"namespace_prefix": [], "filter": {"a": 10**400}}),
    ("POST", "/store/namespaces", {"max_depth": 0}),
    ("POST", "/store/namespaces", {"limit": 0}),
    ("POST", "/store/namespaces", {"prefix": ["a.b"]}),
    ("POST", "/store/namespaces", {"suffix": "end"}),
    ("POST", "/store/namespaces", {"unknown": 1}),
    ("DELETE", "/store/items", {"namespace": ["n"]}),
    ("DELETE", "/store/items", {"namespace": [], "key": "k"}),
    ("GET", "/store/items", None),
    ("GET", "/store/items?namespace=n", None),
    ("GET", "/store/items?namespace=&key=k", None),
    ("GET", "/store/items?namespace=a..b&key=k", None),
    ("GET", "/store/items?namespace=n&key=k&refresh_ttl=maybe", None),
]


async def test_a_malformed_question_is_refused_and_the_store_goes_on(http: httpx.AsyncClient) -> None:
    for method, path, body in QUESTIONS:
        answer, good = await asyncio.gather(
            http.request(method, path, json=body), http.put("/store/items", json=ITEM), return_exceptions=True
        )
        assert not isinstance(answer, BaseException)
        assert not isinstance(good, BaseException)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request"), (path, body, answer.text)
        assert good.status_code == 204


# --- a real socket ---------------------------------------------------------------------------------


async def test_items_survive_a_restart(project: WriteProject, serving: Serving) -> None:
    folder = project(NOTES)
    async with serving(folder) as url:
        await get_client(url=url).store.put_item(["n"], key="k", value={"a": 1})
    async with serving(folder) as url:
        assert (await get_client(url=url).store.get_item(["n"], key="k"))["value"] == {"a": 1}
