"""Tools of the kind `openapi`: a document in the project becomes tools with the arguments of its operations."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from http_peer import Peer
from langchain_core.tools import BaseTool
from tool_callers import Serve

from changeover import GraphVersionManager

Eventually = Callable[..., Any]
SHOP = """
openapi: 3.0.3
info: {title: Shop, version: "1"}
servers: [{url: "https://shop.example/v1"}]
paths:
  /items/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: string}}]
    get:
      operationId: getItem
      summary: One item
      parameters:
        - {$ref: '#/components/parameters/lang'}
        - {name: X-Trace, in: header, schema: {type: string}}
  /items:
    get:
      operationId: listItems
      parameters:
        - {name: tag, in: query, schema: {type: array, items: {type: string}}}
        - {name: ids, in: query, explode: false, schema: {type: array, items: {type: integer}}}
        - {name: 'page[size]', in: query, schema: {type: integer, minimum: 1, maximum: 50, default: 10}}
    post:
      operationId: addItem
      requestBody:
        required: true
        content: {application/json: {schema: {$ref: '#/components/schemas/Item'}}}
  /orders:
    post:
      operationId: order
      requestBody:
        required: true
        content: {application/x-www-form-urlencoded: {schema: {type: object, properties: {item: {type: string}}}}}
components:
  parameters: {lang: {name: lang, in: query, schema: {type: string, enum: [de, en]}}}
  schemas:
    Item:
      type: object
      required: [name]
      additionalProperties: false
      properties:
        id: {type: integer, readOnly: true}
        name: {type: string, minLength: 1}
        note: {type: string, nullable: true}
        parts: {type: array, items: {$ref: '#/components/schemas/Item'}}
"""
INCLUDE = "include: [specs]\n"


def entry(peer: Peer, more: str = "") -> str:
    return f"tools:\n  shop: {{openapi: specs/shop.yaml, base_url: '{peer.url}/v1', private: true{more}}}\n"


async def serving(serve: Serve, tools: str, *names: str, shop: str = SHOP) -> Any:
    return await serve(tools, *names, specs__shop_DOT_yaml=shop, changeover_DOT_yaml=INCLUDE)


async def tool_of(manager: GraphVersionManager, name: str) -> BaseTool:
    loaded = await manager.loader.load((await manager.versions())[0].id)
    node = loaded.graphs["desk"].compiled.graph.nodes["call"].bound
    found: BaseTool = node.tools_by_name[name]
    return found


async def test_its_arguments_go_where_the_document_says(serve: Serve, peer: Peer) -> None:
    call = await serving(serve, entry(peer), "shop")
    await call("getItem", **{"id": "a/b", "lang": "de", "X-Trace": "t1"})
    await call("listItems", tag=["x", "y"], ids=[1, 2])
    await call("addItem", name="Lamp", parts=[{"name": "Bulb"}])
    await call("order", item="Lamp & co")
    get, listed, added, ordered = peer.asked
    assert (get.method, get.target, get.headers["x-trace"]) == ("GET", "/v1/items/a%2Fb?lang=de", "t1")
    assert listed.query == [("tag", "x"), ("tag", "y"), ("ids", "1,2"), ("page[size]", "10")]
    assert (added.method, added.json) == ("POST", {"name": "Lamp", "parts": [{"name": "Bulb"}]})
    assert ordered.headers["content-type"] == "application/x-www-form-urlencoded"
    assert ordered.body == b"item=Lamp+%26+co"
    assert peer.opened == 1, "all operations share a connection"


async def test_a_model_is_told_the_schemas_of_the_document(serve: Serve, peer: Peer) -> None:
    call = await serving(serve, entry(peer), "shop")
    tool = await tool_of(call.manager, "getItem")
    assert tool.description == "One item"
    schema = (await tool_of(call.manager, "addItem")).tool_call_schema
    assert isinstance(schema, dict)
    assert schema["required"] == ["name"]
    assert set(schema["properties"]) == {"name", "note", "parts"}, "what only the server writes is no argument"
    assert schema["properties"]["note"]["type"] == ["string", "null"]
    assert "$ref" not in json.dumps(schema)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("getItem", {"lang": "de"}, "'id' is missing"),
    ("getItem", {"id": "1", "lang": "fr"}, "'lang': 'fr' is not one of"),
    ("getItem", {"id": ".."}, "'id' is a part of the path"),
    ("getItem", {"id": "1", "X-Trace": "a\r\nX-Key: b"}, "'X-Trace' goes into a header"),
    ("listItems", {"page_size": 51}, "51 is greater than the maximum of 50"),
    ("addItem", {"name": ""}, "'name'"),
    ("addItem", {"name": "a", "id": 3}, "there is no argument 'id'"),
]


async def test_arguments_are_held_to_the_document(serve: Serve, peer: Peer) -> None:
    call = await serving(serve, entry(peer), "shop")
    for name, args, said_of_it in WRONG:
        answer = await call(name, **args)
        assert answer.status == "error", (name, args)
        assert said_of_it in answer.text
    assert peer.opened == 0


async def test_only_what_is_chosen_is_there(serve: Serve, peer: Peer) -> None:
    call = await serving(serve, entry(peer, ", operations: [getItem, 'list*']"), "shop/*Item*")
    assert (await call("getItem", id="1")).status == "success"
    assert (await call("listItems")).status == "success"
    assert "not a valid tool" in (await call("addItem", name="x")).text


async def test_the_document_may_be_json(serve: Serve, peer: Peer) -> None:
    document = {
        "openapi": "3.1.0",
        "info": {"title": "t", "version": "1"},
        "paths": {"/now": {"get": {"summary": "The time"}}},
    }
    tools = entry(peer).replace("shop.yaml", "shop.json")
    call = await serve(tools, "shop", specs__shop_DOT_json=json.dumps(document), changeover_DOT_yaml=INCLUDE)
    assert (await call("get_now")).status == "success"


async def test_an_edit_of_the_document_is_an_edit_of_its_tools(serve: Serve, peer: Peer) -> None:
    call = await serving(serve, entry(peer), "shop")
    before = (await call.manager.versions())[0]
    (call.folder / "specs" / "shop.yaml").write_text(SHOP.replace("enum: [de, en]", "enum: [de]"))
    after = await call.manager.build()
    assert after.graphs["desk"].digest != before.graphs["desk"].digest
    assert after.graphs["desk"].contract_digest != before.graphs["desk"].contract_digest
    assert after.graphs["idle"].digest == before.graphs["idle"].digest
    await call("getItem", id="1", lang="en")
    await call.manager.switch(after)
    assert (await call("getItem", id="1", lang="en")).status == "error"
    assert call.manager.resources.opened["http"] == 1, "the server is the same"


async def test_python_asks_for_one_of_them(serve: Serve, peer: Peer) -> None:
    made = """
        from langgraph.graph import END, START, MessagesState, StateGraph

        def graph(ctx):
            item = ctx.tool("shop/getItem")
            async def look(state):
                return {"messages": [("ai", await item.ainvoke({"id": "7"}))]}
            built = StateGraph(MessagesState).add_node(look).add_edge(START, "look").add_edge("look", END)
            return built
        """
    call = await serve(
        entry(peer), "shop", graphs__made_DOT_py=made, specs__shop_DOT_yaml=SHOP, changeover_DOT_yaml=INCLUDE
    )
    answer = await call.manager.invoke("made", {"messages": []})
    assert '"/v1/items/7"' in answer["messages"][-1].text
    before = (await call.manager.versions())[0].graphs["made"].digest
    (call.folder / "specs" / "shop.yaml").write_text(SHOP.replace("One item", "An item"))
    assert (await call.manager.build()).graphs["made"].digest != before
