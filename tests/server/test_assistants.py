"""Assistants as LangGraph's own client makes, changes, finds and uses them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langgraph.pregel.remote import RemoteGraph
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from server_samples import LOCAL, Serving, WriteProject

from changeover import GraphVersionManager, create_app
from changeover.runs.assistants import applied, default_id

DESK = {
    "graphs/desk.py": '''
        """Tells what it was given to run with."""
        from dataclasses import dataclass
        from typing import Annotated, Any, TypedDict
        import operator

        from langchain_core.runnables import RunnableConfig
        from langgraph.graph import END, START, StateGraph
        from langgraph.runtime import Runtime


        @dataclass
        class Context:
            tenant: str = "nobody"
            tone: str = "plain"


        class Ask(TypedDict):
            text: str


        class State(Ask):
            told: Annotated[list[Any], operator.add]
            odd: object


        async def tell(state: State, config: RunnableConfig, runtime: Runtime[Context]):
            settings = {k: v for k, v in config["configurable"].items() if k in ("colour", "size")}
            metadata = {k: v for k, v in config["metadata"].items() if k in ("owner", "assistant_id", "tier")}
            context = {"tenant": runtime.context.tenant, "tone": runtime.context.tone} if runtime.context else None
            told = {"configurable": settings, "context": context, "tags": config.get("tags"), "metadata": metadata}
            return {"told": [told]}


        inner = StateGraph(State)
        inner.add_node("deep", tell)
        inner.add_edge(START, "deep")
        middle = StateGraph(State)
        middle.add_node("inside", inner.compile())
        middle.add_edge(START, "inside")

        graph = StateGraph(State, input_schema=Ask, context_schema=Context)
        graph.add_node("tell", tell)
        graph.add_node("below", middle.compile())
        graph.add_edge(START, "tell")
        graph.add_conditional_edges("tell", lambda state: END if state["text"] else "below", ["below", END])
        ''',
    "graphs/other.py": """
        from typing import TypedDict
        from langgraph.graph import START, StateGraph

        class State(TypedDict):
            text: str

        graph = StateGraph(State)
        graph.add_node("only", lambda state: {"text": "other"})
        graph.add_edge(START, "only")
        """,
}
UNKNOWN = str(uuid4())


@pytest.fixture
async def manager(project: WriteProject) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(project(DESK)) as opened:
        await opened.serve_folder()
        yield opened


@pytest.fixture
async def http(manager: GraphVersionManager) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(manager)), base_url=LOCAL) as opened:
        yield opened


@pytest.fixture
def sdk(http: httpx.AsyncClient) -> LangGraphClient:
    return LangGraphClient(http)


async def refused(status: int, code: str, asked: Any) -> dict[str, Any]:
    with pytest.raises(httpx.HTTPStatusError) as raised:
        await asked
    answer = raised.value.response
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return dict(answer.json())


# --- making and changing ---------------------------------------------------------------------------


async def test_an_assistant_comes_back_as_it_was_given(sdk: LangGraphClient) -> None:
    id_ = str(uuid4())
    config: Any = {"tags": ["a"], "recursion_limit": 7, "configurable": {"colour": "red"}}
    made = await sdk.assistants.create(
        "desk",
        config,
        context={"tenant": "acme"},
        metadata={"owner": "ada"},
        assistant_id=id_.upper(),
        name="Ada's",
        description="For Ada",
    )
    assert made == await sdk.assistants.get(id_) == await sdk.assistants.get(id_.upper())
    assert made["assistant_id"] == id_
    assert (made["graph_id"], made["name"], made["description"], made["version"]) == ("desk", "Ada's", "For Ada", 1)
    assert (made["config"], made["context"], made["metadata"]) == (config, {"tenant": "acme"}, {"owner": "ada"})
    assert made["created_at"] == made["updated_at"]


async def test_an_assistant_without_an_id_and_a_name_gets_both(sdk: LangGraphClient) -> None:
    first, second = [await sdk.assistants.create("desk") for _ in range(2)]
    assert first["assistant_id"] != second["assistant_id"]
    assert (first["name"], first["description"]) == ("Untitled", None)


async def test_an_id_is_taken_once(sdk: LangGraphClient) -> None:
    made = await sdk.assistants.create("desk", assistant_id=UNKNOWN, name="first")
    await refused(409, "assistant-exists", sdk.assistants.create("desk", assistant_id=UNKNOWN))
    await refused(409, "assistant-exists", sdk.assistants.create("desk", assistant_id=UNKNOWN, if_exists="raise"))
    kept = await sdk.assistants.create("other", assistant_id=UNKNOWN, name="second", if_exists="do_nothing")
    assert kept == made
    await refused(409, "assistant-exists", sdk.assistants.create("desk", assistant_id=default_id("other")))


async def test_a_graph_that_is_not_served_makes_no_assistant(sdk: LangGraphClient) -> None:
    problem = await refused(404, "unknown-graph", sdk.assistants.create("nobody"))
    assert "desk" in problem["hint"]
    made = await sdk.assistants.create("desk")
    await refused(404, "unknown-graph", sdk.assistants.update(made["assistant_id"], graph_id="nobody"))
    assert (await sdk.assistants.get(made["assistant_id"]))["version"] == 1


async def test_each_change_is_a_version_and_any_of_them_can_apply(sdk: LangGraphClient) -> None:
    made = await sdk.assistants.create(
        "desk", {"configurable": {"colour": "red"}}, context={"tenant": "acme"}, metadata={"owner": "ada", "tier": 1}
    )
    id_ = made["assistant_id"]
    changed = await sdk.assistants.update(id_, metadata={"tier": 2}, description="Second")
    assert (changed["version"], changed["metadata"]) == (2, {"owner": "ada", "tier": 2})
    assert (changed["config"], changed["context"]) == (made["config"], made["context"])
    changed = await sdk.assistants.update(id_, graph_id="other", config={"tags": ["x"]}, context={}, name="Third")
    assert (changed["version"], changed["graph_id"], changed["name"]) == (3, "other", "Third")
    assert (changed["config"], changed["context"], changed["description"]) == ({"tags": ["x"]}, {}, "Second")
    assert changed["created_at"] == made["created_at"] < changed["updated_at"]

    back = await sdk.assistants.set_latest(id_, 1)
    assert (back["version"], back["graph_id"], back["metadata"]) == (1, "desk", made["metadata"])
    assert (await sdk.assistants.get(id_))["version"] == 1
    assert (await sdk.assistants.update(id_, name="Fourth"))["version"] == 4
    await refused(404, "unknown-assistant-version", sdk.assistants.set_latest(id_, 5))


async def test_versions_are_listed_newest_first(sdk: LangGraphClient) -> None:
    id_ = (await sdk.assistants.create("desk", metadata={"tier": 1}))["assistant_id"]
    for tier in (2, 3, 3):
        await sdk.assistants.update(id_, metadata={"tier": tier})
    listed = await sdk.assistants.get_versions(id_)
    assert [version["version"] for version in listed] == [4, 3, 2, 1]
    assert "updated_at" not in listed[0]
    assert listed[0]["created_at"] > listed[3]["created_at"]
    assert [v["version"] for v in await sdk.assistants.get_versions(id_, metadata={"tier": 3})] == [4, 3]
    assert [v["version"] for v in await sdk.assistants.get_versions(id_, limit=2, offset=1)] == [3, 2]
    await refused(404, "unknown-assistant", sdk.assistants.get_versions(UNKNOWN))


async def test_a_deleted_assistant_is_gone(sdk: LangGraphClient) -> None:
    id_ = (await sdk.assistants.create("desk"))["assistant_id"]
    await sdk.assistants.delete(id_)
    await refused(404, "unknown-assistant", sdk.assistants.get(id_))
    await refused(404, "unknown-assistant", sdk.assistants.delete(id_))
    await refused(404, "unknown-assistant", sdk.assistants.update(id_, name="x"))
    await refused(404, "unknown-assistant", sdk.assistants.set_latest(id_, 1))
    assert (await sdk.assistants.create("desk", assistant_id=id_))["version"] == 1


# --- default assistants ----------------------------------------------------------------------------


async def test_a_graph_is_its_own_assistant_by_name_and_by_id(sdk: LangGraphClient) -> None:
    by_name = await sdk.assistants.get("desk")
    assert by_name == await sdk.assistants.get(default_id("desk"))
    assert (by_name["graph_id"], by_name["name"], by_name["version"]) == ("desk", "desk", 1)
    assert by_name["metadata"] == {"created_by": "system"}
    assert [v["version"] for v in await sdk.assistants.get_versions("desk")] == [1]
    assert (await sdk.assistants.set_latest("desk", 1)) == by_name
    await refused(404, "unknown-assistant-version", sdk.assistants.set_latest("desk", 2))
    await refused(404, "unknown-assistant", sdk.assistants.get("nobody"))
    await refused(404, "unknown-assistant", sdk.assistants.get(UNKNOWN))


async def test_a_default_assistant_can_be_changed_and_reset(sdk: LangGraphClient) -> None:
    before = await sdk.assistants.get("desk")
    changed = await sdk.assistants.update("desk", context={"tenant": "acme"})
    assert (changed["assistant_id"], changed["version"]) == (before["assistant_id"], 2)
    assert changed == await sdk.assistants.get("desk") == await sdk.assistants.get(default_id("desk"))
    assert [v["version"] for v in await sdk.assistants.get_versions("desk")] == [2, 1]
    assert len(await sdk.assistants.search(graph_id="desk")) == 1, "it is not listed twice"
    assert (await sdk.assistants.set_latest("desk", 1))["context"] == {}
    await sdk.assistants.delete("desk")
    assert await sdk.assistants.get("desk") == before
    await refused(409, "default-assistant", sdk.assistants.delete("desk"))


async def test_an_assistant_outlives_the_graph_it_names(
    manager: GraphVersionManager, sdk: LangGraphClient, project: WriteProject
) -> None:
    id_ = (await sdk.assistants.create("other"))["assistant_id"]
    (manager.project / "graphs/other.py").unlink()
    await manager.switch(await manager.build())
    assert (await sdk.assistants.get(id_))["graph_id"] == "other"
    assert [a["assistant_id"] for a in await sdk.assistants.search(graph_id="other")] == [id_]
    problem = await refused(404, "unknown-graph", sdk.runs.wait(None, id_, input={"text": "hi"}))
    assert "other" in problem["detail"]
    await refused(404, "unknown-graph", sdk.assistants.get_schemas(id_))
    await refused(404, "unknown-graph", sdk.assistants.create("other"))


# --- finding ---------------------------------------------------------------------------------------


@pytest.fixture
async def many(sdk: LangGraphClient) -> LangGraphClient:
    for number, name in enumerate(("Ärger", "beta", "Alpha", "gamma")):
        graph = "desk" if number % 2 else "other"
        await sdk.assistants.create(
            graph, name=name, metadata={"number": number, "even": number % 2 == 0, "team": {"lead": "ada", "size": 3}}
        )
    return sdk


async def found(sdk: LangGraphClient, **wanted: Any) -> list[str]:
    count = await sdk.assistants.count(**{k: v for k, v in wanted.items() if k in ("metadata", "graph_id", "name")})
    listed = [assistant["name"] for assistant in await sdk.assistants.search(**wanted)]
    if not {"limit", "offset"} & wanted.keys():
        assert count == len(listed)
    return listed


async def test_search_finds_by_metadata_graph_and_name(many: LangGraphClient) -> None:
    assert await found(many) == ["gamma", "Alpha", "beta", "Ärger", "desk", "other"]
    assert await found(many, graph_id="other") == ["Alpha", "Ärger", "other"]
    assert await found(many, name="ALPH") == ["Alpha"]
    assert await found(many, name="ärg") == ["Ärger"]
    assert await found(many, name="%") == []
    assert await found(many, metadata={"number": 2}) == ["Alpha"]
    assert await found(many, metadata={"even": True, "number": 0}) == ["Ärger"]
    assert await found(many, metadata={"number": True}) == [], "true is not one"
    assert await found(many, metadata={"number": "2"}) == []
    assert await found(many, metadata={"team": {"lead": "ada"}}) == ["gamma", "Alpha", "beta", "Ärger"]
    assert await found(many, metadata={"team": {"lead": "bob"}}) == []
    assert await found(many, metadata={"absent": None}) == []
    assert await found(many, metadata={"created_by": "system"}) == ["desk", "other"]


async def test_search_sorts_and_pages(many: LangGraphClient) -> None:
    by_name = await found(many, sort_by="name", sort_order="asc")
    assert by_name == ["Alpha", "beta", "desk", "gamma", "other", "Ärger"]
    assert await found(many, sort_by="name", sort_order="desc") == by_name[::-1]
    assert await found(many, sort_by="created_at", sort_order="asc", limit=3, offset=2) == ["Ärger", "beta", "Alpha"]
    assert [await found(many, sort_by=key) for key in ("assistant_id", "graph_id", "updated_at")]
    page = await many.assistants.search(limit=4, response_format="object")
    assert (len(page["assistants"]), page["next"]) == (4, "4")
    rest = await many.assistants.search(limit=4, offset=4, response_format="object")
    assert (len(rest["assistants"]), rest["next"]) == (2, None)


async def test_a_search_without_a_limit_is_bounded(sdk: LangGraphClient, http: httpx.AsyncClient) -> None:
    for _ in range(12):
        await sdk.assistants.create("desk")
    answer = await http.post("/assistants/search")
    assert (len(answer.json()), answer.headers["x-pagination-next"]) == (10, "10")


async def test_select_gives_the_named_fields_alone(many: LangGraphClient) -> None:
    [only] = await many.assistants.search(name="Alpha", select=["name", "metadata"])
    assert only.keys() == {"name", "metadata"}


# --- running ---------------------------------------------------------------------------------------


async def test_settings_of_an_assistant_are_merged_under_those_of_the_run() -> None:
    assistant = _assistant(
        config={"tags": ["a"], "recursion_limit": 7, "configurable": {"colour": "red", "size": 1}},
        context={"tenant": "acme", "tone": "plain"},
        metadata={"owner": "ada", "tier": 1},
    )
    config, context, metadata = applied(
        assistant, {"configurable": {"size": 2}, "tags": ["b"]}, {"tone": "warm"}, {"tier": 2}
    )
    assert config == {"tags": ["b"], "recursion_limit": 7, "configurable": {"colour": "red", "size": 2}}
    assert context == {"tenant": "acme", "tone": "warm"}
    assert metadata == {"owner": "ada", "tier": 2, "assistant_id": assistant.id, "graph_id": "desk"}
    config, context, metadata = applied(_assistant(), None, None, {"assistant_id": "forged"})
    assert (config, context) == ({}, None)
    assert metadata["assistant_id"] == assistant.id


def _assistant(**settings: Any) -> Any:
    from changeover.store.records.assistant import Assistant

    blank: dict[str, Any] = {"config": {}, "context": {}, "metadata": {}}
    return Assistant(
        id=default_id("desk"), graph="desk", version=1, name="desk", description=None, created_at=0.0, updated_at=0.0,
        **{**blank, **settings},
    )  # fmt: skip


async def test_an_assistants_settings_apply_to_its_runs(sdk: LangGraphClient) -> None:
    made = await sdk.assistants.create(
        "desk",
        {"tags": ["mine"], "configurable": {"colour": "red"}},
        context={"tenant": "acme"},
        metadata={"owner": "ada"},
    )
    id_ = made["assistant_id"]
    values: Any = await sdk.runs.wait(None, id_, input={"text": "hi"}, context={"tone": "warm"})
    [told] = values["told"]
    assert told["configurable"] == {"colour": "red"}
    assert told["context"] == {"tenant": "acme", "tone": "warm"}
    assert "mine" in told["tags"]
    assert told["metadata"] == {"owner": "ada", "assistant_id": id_}
    await sdk.assistants.update(id_, context={"tenant": "other"})
    values = await sdk.runs.wait(None, id_, input={"text": "hi"})
    assert values["told"][0]["context"]["tenant"] == "other"
    await sdk.assistants.set_latest(id_, 1)
    values = await sdk.runs.wait(None, id_, input={"text": "hi"})
    assert values["told"][0]["context"]["tenant"] == "acme"


async def test_a_changed_default_assistant_applies_to_runs_by_the_graphs_name(sdk: LangGraphClient) -> None:
    await sdk.assistants.update("desk", context={"tenant": "acme"})
    values: Any = await sdk.runs.wait(None, "desk", input={"text": "hi"})
    assert values["told"][0]["context"]["tenant"] == "acme"
    assert values["told"][0]["metadata"]["assistant_id"] == default_id("desk")


# --- deleting with threads -------------------------------------------------------------------------


async def test_threads_go_with_their_assistant_only_when_asked(sdk: LangGraphClient) -> None:
    id_ = (await sdk.assistants.create("desk"))["assistant_id"]
    mine, other, named = [
        (await sdk.threads.create(thread_id=name))["thread_id"] for name in ("mine", "other", "named")
    ]
    await sdk.threads.create(thread_id="told", metadata={"assistant_id": id_})
    await sdk.runs.wait(mine, id_, input={"text": "hi"})
    await sdk.runs.wait(other, "desk", input={"text": "hi"})
    await sdk.assistants.delete(id_)
    assert (await sdk.threads.get(mine))["status"] == "idle"
    await sdk.assistants.create("desk", assistant_id=id_)
    await sdk.assistants.delete(id_, delete_threads=True)
    for gone in (mine, "told"):
        await refused(404, "unknown-thread", sdk.threads.get(gone))
    for kept in (other, named):
        assert (await sdk.threads.get(kept))["thread_id"] == kept


async def test_a_busy_thread_keeps_its_assistant_and_all_its_threads(sdk: LangGraphClient) -> None:
    id_ = (await sdk.assistants.create("desk"))["assistant_id"]
    for name in ("idle", "busy"):
        await sdk.threads.create(thread_id=name, metadata={"assistant_id": id_})
    run = await sdk.runs.create("busy", "desk", input={"text": "hi"}, after_seconds=600)
    await refused(409, "thread-busy", sdk.assistants.delete(id_, delete_threads=True))
    assert (await sdk.threads.get("idle"))["thread_id"] == "idle"
    assert (await sdk.assistants.get(id_))["assistant_id"] == id_
    await sdk.runs.cancel("busy", run["run_id"], wait=True)
    await sdk.assistants.delete(id_, delete_threads=True)
    await refused(404, "unknown-thread", sdk.threads.get("busy"))


# --- the graph behind it ---------------------------------------------------------------------------


async def test_the_graph_is_drawn_with_and_without_what_is_inside(sdk: LangGraphClient) -> None:
    flat: Any = await sdk.assistants.get_graph("desk")
    assert {node["id"] for node in flat["nodes"]} == {"__start__", "tell", "below", "__end__"}
    assert {"source", "target"} <= flat["edges"][0].keys()
    deep: Any = await sdk.assistants.get_graph("desk", xray=True)
    one: Any = await sdk.assistants.get_graph("desk", xray=1)
    assert "below:inside:deep" in {node["id"] for node in deep["nodes"]}
    assert "below:inside" in {node["id"] for node in one["nodes"]}
    for wrong in (0, -1, "deep"):
        await refused(422, "invalid-request", sdk.assistants.get_graph("desk", xray=wrong))  # type: ignore[arg-type]


async def test_schemas_tell_input_output_state_and_context(sdk: LangGraphClient) -> None:
    schemas: Any = await sdk.assistants.get_schemas("desk")
    assert schemas["graph_id"] == "desk"
    assert schemas["input_schema"]["properties"].keys() == {"text"}
    assert schemas["output_schema"]["properties"].keys() == {"text", "told", "odd"}
    assert schemas["state_schema"]["properties"]["told"]["type"] == "array"
    assert schemas["context_schema"]["properties"].keys() == {"tenant", "tone"}
    assert schemas["config_schema"] == schemas["context_schema"]
    plain: Any = await sdk.assistants.get_schemas("other")
    assert (plain["context_schema"], plain["config_schema"]) == (None, None)


async def test_subgraphs_are_listed_by_namespace(sdk: LangGraphClient) -> None:
    assert (await sdk.assistants.get_subgraphs("desk")).keys() == {"below"}
    assert (await sdk.assistants.get_subgraphs("desk", recurse=True)).keys() == {"below", "below|inside"}
    one = await sdk.assistants.get_subgraphs("desk", "below")
    assert one.keys() == {"below"}
    assert one["below"]["state_schema"]["properties"].keys() == {"text", "told", "odd"}  # type: ignore[index]
    assert (await sdk.assistants.get_subgraphs("desk", "below", recurse=True)).keys() == {"below", "below|inside"}
    assert (await sdk.assistants.get_subgraphs("desk", "below|inside")).keys() == {"below|inside"}
    assert await sdk.assistants.get_subgraphs("desk", "nowhere") == {}
    assert await sdk.assistants.get_subgraphs("other") == {}


async def test_what_is_shown_of_a_graph_is_of_the_version_that_serves_or_is_named(
    manager: GraphVersionManager, http: httpx.AsyncClient, project: WriteProject
) -> None:
    project({"graphs/other.py": DESK["graphs/other.py"].replace("text: str", "text: str; more: int")})
    await manager.build()
    for path, inside in (("schemas", '"more"'), ("graph", ""), ("subgraphs", "")):
        now = await http.get(f"/assistants/other/{path}")
        assert (now.status_code, now.headers["changeover-version"]) == (200, "v1")
        named = await http.get(f"/assistants/other/{path}", headers={"Changeover-Version": "v2"})
        assert (named.status_code, named.headers["changeover-version"]) == (200, "v2")
        if inside:
            assert (inside in now.text, inside in named.text) == (False, True)
        absent = await http.get(f"/assistants/other/{path}", headers={"Changeover-Version": "v9"})
        assert (absent.status_code, absent.json()["code"]) == (404, "unknown-version")
    await manager.switch("v2")
    assert '"more"' in (await http.get("/assistants/other/schemas")).text


async def test_remote_graph_draws_an_agent(sample: Path, serving: Serving) -> None:
    async with serving(sample) as url:
        remote = RemoteGraph("support", url=url)
        drawn = await remote.aget_graph(xray=True)
        assert {"__start__", "model", "tools"} <= drawn.nodes.keys()
        assert drawn.draw_mermaid()


# --- what is refused -------------------------------------------------------------------------------


MALFORMED: list[dict[str, Any]] = [
    {},
    {"graph_id": ""},
    {"graph_id": 1},
    {"graph_id": None},
    {"graph_id": "desk", "assistant_id": "mine"},
    {"graph_id": "desk", "if_exists": "replace"},
    {"graph_id": "desk", "metadata": []},
    {"graph_id": "desk", "name": ""},
    {"graph_id": "desk", "name": 1},
    {"graph_id": "desk", "description": 1},
    {"graph_id": "desk", "context": "x"},
    {"graph_id": "desk", "config": {"callbacks": []}},
    {"graph_id": "desk", "config": {"recursion_limit": 0}},
    {"graph_id": "desk", "config": {"configurable": {"thread_id": "t"}}},
    {"graph_id": "desk", "config": {"configurable": {"__read": 1}}},
    {"graph_id": "desk", "unknown": 1},
]


async def test_a_malformed_assistant_is_refused(http: httpx.AsyncClient) -> None:
    for body in MALFORMED:
        answer = await http.post("/assistants", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request"), (body, answer.text)


QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("/assistants/search", {"limit": 0}),
    ("/assistants/search", {"limit": 1001}),
    ("/assistants/search", {"offset": -1}),
    ("/assistants/search", {"sort_by": "size"}),
    ("/assistants/search", {"sort_order": "up"}),
    ("/assistants/search", {"select": ["secret"]}),
    ("/assistants/search", {"metadata": "x"}),
    ("/assistants/count", {"limit": 1}),
    ("/assistants/desk/versions", {"limit": 0}),
    ("/assistants/desk/latest", {"version": 0}),
    ("/assistants/desk/latest", {}),
]


async def test_a_malformed_question_is_refused(http: httpx.AsyncClient) -> None:
    for path, body in QUESTIONS:
        answer = await http.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request"), (path, body, answer.text)


async def test_what_could_not_be_read_again_is_refused(http: httpx.AsyncClient) -> None:
    for value in ('"\\ud800"', "NaN", "Infinity", "1e999", "[" * 200 + "]" * 200):
        answer = await http.post("/assistants", content=f'{{"graph_id": "desk", "metadata": {{"a": {value}}}}}')
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request"), answer.text


# --- a real socket ---------------------------------------------------------------------------------


async def test_assistants_survive_a_restart(project: WriteProject, serving: Serving) -> None:
    folder = project(DESK)
    async with serving(folder) as url:
        sdk = get_client(url=url)
        made = await sdk.assistants.create("desk", context={"tenant": "acme"})
        await sdk.assistants.update(made["assistant_id"], context={"tenant": "later"})
    async with serving(folder) as url:
        sdk = get_client(url=url)
        kept = await sdk.assistants.get(made["assistant_id"])
        assert (kept["version"], kept["context"]) == (2, {"tenant": "later"})
        assert await sdk.assistants.get_graph(made["assistant_id"])
