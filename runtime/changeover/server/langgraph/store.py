"""The long-term store over HTTP: what graphs remember beyond a thread, for their clients to read and write.

The same items that a graph sees as `runtime.store`. Rules of names are LangGraph's; they are tested here because an
operation that the store refuses takes down all that it does at the same moment.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Body, Query
from langgraph.store.base import Item, SearchItem
from langgraph.store.base.embed import tokenize_path
from pydantic import AfterValidator, Field, StringConstraints
from starlette.responses import Response

from changeover.errors import InvalidRequest
from changeover.manager import GraphVersionManager
from changeover.server.encoding import JSON
from changeover.server.langgraph.objects import JsonObject, storable
from changeover.server.langgraph.payloads import Strict

DEPTH_LIMIT = 100
TTL_LIMIT_MINUTES = 10**8  # 190 years, within what dates can say
OPERATORS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte")
FILTER_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


def _label(label: str) -> str:
    if "." in label or "\x00" in label:
        raise ValueError("a label of a namespace has no '.' and no NUL")
    return str(storable(label))


def _not_reserved(namespace: list[str]) -> list[str]:
    if namespace[0] == "langgraph":
        raise ValueError("'langgraph' is the root of LangGraph's own namespaces")
    return namespace


def _sized(value: Any) -> Any:
    try:
        orjson.dumps(value)
    except TypeError as error:
        raise ValueError(f"the store cannot hold it: {error}") from None
    return value


def _filter(conditions: dict[str, Any]) -> dict[str, Any]:
    for key, value in conditions.items():
        if FILTER_KEY.fullmatch(key) is None:
            raise ValueError("a key of a filter consists of letters, digits, '_' and '-', with '.' between its parts")
        if isinstance(value, dict) and (not value or not value.keys() <= set(OPERATORS)):
            raise ValueError(f"an object in a filter has the operators {', '.join(OPERATORS)}")
    return conditions


def _path(path: str) -> str:
    tokenize_path(path)
    return path


Label = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_label)]
Labels = Annotated[list[Label], Field(max_length=DEPTH_LIMIT)]
Namespace = Annotated[list[Label], Field(min_length=1, max_length=DEPTH_LIMIT)]
OwnNamespace = Annotated[Namespace, AfterValidator(_not_reserved)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=1000), AfterValidator(storable)]
Value = Annotated[JsonObject, AfterValidator(_sized)]
IndexPath = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_path)]
Minutes = Annotated[float, Field(gt=0, le=TTL_LIMIT_MINUTES)]


class Put(Strict):
    namespace: OwnNamespace
    key: Key
    value: Value
    index: Literal[False] | Annotated[list[IndexPath], Field(max_length=100)] | None = None
    ttl: Minutes | None = None


class Delete(Strict):
    namespace: Namespace
    key: Key


class Search(Strict):
    namespace_prefix: Labels
    filter: Annotated[JsonObject, AfterValidator(_sized), AfterValidator(_filter)] | None = None
    query: Annotated[str, Field(max_length=100_000), AfterValidator(storable)] | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 10
    offset: Annotated[int, Field(ge=0, le=10**9)] = 0
    refresh_ttl: bool | None = None


class Namespaces(Strict):
    prefix: Labels | None = None
    suffix: Labels | None = None
    max_depth: Annotated[int, Field(ge=1, le=DEPTH_LIMIT)] | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    offset: Annotated[int, Field(ge=0, le=10**9)] = 0


def router(manager: GraphVersionManager) -> APIRouter:
    routes = APIRouter(prefix="/store", tags=["store"])

    @routes.put("/items", status_code=204)
    async def put(item: Put) -> Response:
        # An absent `ttl` is the store's default, null is none at all.
        given = {"ttl": item.ttl} if "ttl" in item.model_fields_set else {}
        await manager.memory.aput(tuple(item.namespace), item.key, item.value, item.index, **given)
        return Response(status_code=204)

    @routes.get("/items")
    async def get(
        namespace: Annotated[str, Query(min_length=1, max_length=10_000)],
        key: Key,
        refresh_ttl: bool | None = None,
    ) -> JSON:
        found = await manager.memory.aget(_split(namespace), key, refresh_ttl=refresh_ttl)
        return JSON(None if found is None else _item_json(found))  # clients take null for an item that is not there

    @routes.delete("/items", status_code=204)
    async def delete(item: Delete) -> Response:
        await manager.memory.adelete(tuple(item.namespace), item.key)
        return Response(status_code=204)

    @routes.post("/items/search")
    async def search(wanted: Search) -> JSON:
        found = await manager.memory.asearch(
            tuple(wanted.namespace_prefix),
            query=wanted.query,
            filter=wanted.filter,
            limit=wanted.limit,
            offset=wanted.offset,
            refresh_ttl=wanted.refresh_ttl,
        )
        return JSON({"items": [_item_json(item) for item in found]})

    @routes.post("/namespaces")
    async def namespaces(wanted: Annotated[Namespaces, Body(default_factory=Namespaces)]) -> JSON:
        found = await manager.memory.alist_namespaces(
            prefix=tuple(wanted.prefix or ()),
            suffix=tuple(wanted.suffix or ()),
            max_depth=wanted.max_depth,
            limit=wanted.limit,
            offset=wanted.offset,
        )
        return JSON({"namespaces": [list(namespace) for namespace in found]})

    return routes


def _split(namespace: str) -> tuple[str, ...]:
    labels = tuple(namespace.split("."))
    if not all(labels) or len(labels) > DEPTH_LIMIT or "\x00" in namespace:
        raise InvalidRequest("namespace: labels with '.' between them, none of them empty")
    return labels


def _item_json(item: Item) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "namespace": list(item.namespace),
        "key": item.key,
        "value": item.value,
        "created_at": _time(item.created_at),
        "updated_at": _time(item.updated_at),
    }
    if isinstance(item, SearchItem):
        shape["score"] = item.score
    return shape


def _time(at: datetime) -> str:
    return (at.replace(tzinfo=UTC) if at.tzinfo is None else at).isoformat()
