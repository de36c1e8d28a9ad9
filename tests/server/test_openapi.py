"""The OpenAPI document: it is valid, it has every route, and what the server answers is what it declares."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from server_samples import ECHO, Serving, WriteProject
from starlette.routing import Mount, WebSocketRoute

from changeover import GraphVersionManager, create_app

PAGES = ("/", "/openapi.json", "/docs", "/docs/oauth2-redirect")
EXAMPLES = 6
REQUEST_TIMEOUT_S = 10.0
THREAD = "a-thread"
URL_LIMIT_CHARS = 30_000  # longer ones are refused by the parser of HTTP, before any route
CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
ENDLESS = (
    ("GET", "/threads/{thread_id}/stream"),
    ("POST", "/threads/{thread_id}/stream/events"),
    ("POST", "/admin/versions/{v}/drain"),
)
QUICK = {**ECHO, "agents.yaml": ECHO["agents.yaml"].replace("600ms", "0ms")}


def document(folder: Path, **given: Any) -> dict[str, Any]:
    return create_app(GraphVersionManager.open(folder, **given)).openapi()


def operations(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, at in described["paths"].items():
        for method, operation in at.items():
            yield method.upper(), path, operation


def served(routes: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of every route, those of included routers with their prefixes."""
    for route in routes:
        if hasattr(route, "effective_candidates"):
            yield from served([*route.effective_candidates(), *route.effective_low_priority_routes()])
        elif not isinstance(route, WebSocketRoute | Mount):
            route = getattr(route, "starlette_route", None) or route
            for method in route.methods:
                yield method, route.path.replace(":path}", "}")


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for inner in part.values():
            yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)


def test_the_document_is_valid_and_nothing_in_it_leads_nowhere(project: WriteProject) -> None:
    described = document(project(QUICK))
    schemathesis.openapi.from_dict(described).validate()
    for reference in references(described):
        assert reference.removeprefix("#/components/schemas/") in described["components"]["schemas"]
    ids = [operation["operationId"] for _, _, operation in operations(described)]
    assert sorted(set(ids)) == sorted(ids)


def test_every_route_is_in_the_document(project: WriteProject) -> None:
    app = create_app(GraphVersionManager.open(project(QUICK)))
    described = {(method, path) for method, path, _ in operations(app.openapi())}
    there = {(method, path) for method, path in served(app.routes) if path not in PAGES}
    assert ("POST", "/threads/{thread_id}/runs/stream") in there
    assert ("POST", "/admin/switch") in there
    # HEAD is what every GET answers without its body
    assert {(method, path) for method, path in there - described if ("GET", path) not in described} == set()
    assert described - there == set()


def test_every_operation_declares_its_problems(project: WriteProject) -> None:
    described = document(project(QUICK))
    for method, path, operation in operations(described):
        answers = operation["responses"]
        assert any(status.startswith("2") for status in answers), (method, path)
        assert "500" in answers, (method, path)
        for status, answer in answers.items():
            if status > "400":
                assert list(answer["content"]) == ["application/problem+json"], (method, path, status)
                shape = answer["content"]["application/problem+json"]["schema"]
                assert shape == {"$ref": "#/components/schemas/Problem"}
        if "requestBody" in operation:
            assert {"413", "422"} <= answers.keys(), (method, path)
        if "412" in answers:
            assert "If-Match" in [parameter["name"] for parameter in operation["parameters"]], (method, path)
    state = described["paths"]["/threads/{thread_id}/state"]
    assert ("ETag" in state["get"]["responses"]["200"]["headers"], "412" in state["post"]["responses"]) == (True, True)
    run = described["paths"]["/threads/{thread_id}/runs/stream"]["post"]
    assert run["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/RunBody"}
    assert list(run["responses"]["200"]["content"]) == ["text/event-stream"]
    assert "412" in run["responses"]
    assert {"Changeover-Version", "Content-Location", "Location"} == run["responses"]["200"]["headers"].keys()


def test_a_token_is_declared_where_one_is_asked(project: WriteProject) -> None:
    folder = project(QUICK)
    guarded, unguarded = document(folder, token="s3cret"), document(folder)
    assert "security" not in unguarded
    assert "401" not in unguarded["paths"]["/runs"]["post"]["responses"]
    assert guarded["security"] == [{"bearer": []}, {"key": []}]
    assert "401" in guarded["paths"]["/runs"]["post"]["responses"]
    for path in ("/healthz", "/runs/{run_id}/feedback/{token}"):
        assert guarded["paths"][path]["get"]["security"] == []
        assert "401" not in guarded["paths"][path]["get"]["responses"]


def aimed(case: Case, run_id: str) -> Case:
    """The same request for things that exist, and not for next year."""
    known = {"assistant_id": "echo", "graph_id": "echo", "graph": "echo", "g": "echo", "v": "v1", "thread_id": THREAD}
    known |= {"run_id": run_id, "id_": run_id}
    for name in case.path_parameters:
        case.path_parameters[name] = known.get(name, case.path_parameters[name])
    case.headers.pop("Changeover-Version", None)
    if isinstance(case.body, dict):
        case.body.pop("after_seconds", None)
        for name in case.body.keys() & {"assistant_id", "graph_id"}:
            case.body[name] = "echo"
    return case


def modes(operation: APIOperation) -> list[GenerationMode]:
    """Requests that are right, and requests that are wrong where there is something to be wrong."""
    is_plain = not operation.body and not operation.query and not operation.headers and not operation.path_parameters
    return [GenerationMode.POSITIVE] if is_plain else list(GenerationMode)


def explore(operation: APIOperation, url: str) -> None:
    with httpx.Client(base_url=url, timeout=REQUEST_TIMEOUT_S) as http:
        http.post("/threads", json={"thread_id": THREAD, "if_exists": "do_nothing"})
        asked = {"assistant_id": "echo", "input": {"messages": "hi"}}
        answer = http.post(f"/threads/{THREAD}/runs", json=asked)
        run_id = answer.json().get("run_id", "none")

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of(*map(operation.as_strategy, modes(operation))), is_aimed=st.booleans())
    def answers_as_declared(case: Case, is_aimed: bool) -> None:
        if is_aimed:
            case = aimed(case, run_id)
        sent = case.as_transport_kwargs(base_url=url)
        assume(len(urlencode(sent.get("params") or {}, doseq=True)) < URL_LIMIT_CHARS)
        answer = case.call(base_url=url, timeout=REQUEST_TIMEOUT_S)
        case.validate_response(answer, checks=CHECKS)

    answers_as_declared()


def explored(url: str) -> list[str]:
    """What was answered otherwise than declared, an operation a line."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    faults = []
    for found in schema.get_all_operations():
        operation = found.ok()
        if (operation.method.upper(), operation.path) in ENDLESS:
            continue
        try:
            explore(operation, url)
        except (Exception, BaseExceptionGroup) as error:
            inner = error.exceptions if isinstance(error, BaseExceptionGroup) else (error,)
            faults.append(f"{operation.method.upper()} {operation.path}: " + "\n".join(map(str, inner)))
    return faults


@pytest.mark.timeout(180)
async def test_requests_of_any_kind_are_answered_as_declared(project: WriteProject, serving: Serving) -> None:
    async with serving(project(QUICK)) as url:
        faults = await asyncio.to_thread(explored, url)
    assert not faults, "\n\n".join(faults)


async def test_numbers_that_no_row_can_have_are_refused(client: httpx.AsyncClient) -> None:
    await client.post("/threads", json={"thread_id": THREAD})
    too_large = 10**30
    for url in (
        f"/admin/runs?offset={too_large}",
        f"/admin/threads?limit={too_large}",
        f"/admin/versions?before={too_large}",
        f"/admin/history?before={too_large}",
        f"/admin/events?after={too_large}",
        f"/threads/{THREAD}/runs?offset={too_large}",
    ):
        answer = await client.get(url)
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), url


async def test_names_that_are_no_text_are_refused(client: httpx.AsyncClient) -> None:
    for url, body in (
        ("/admin/switch", rb'{"to": "\ud800"}'),
        ("/admin/switch", rb'{"to": "v1", "graphs": ["\ud800"]}'),
        ("/admin/rollback", rb'{"to": "\ud800"}'),
        ("/runs/cancel", rb'{"thread_id": "\ud800", "status": "all"}'),
        ("/runs/cancel", rb'{"thread_id": "a", "run_ids": ["\ud800"]}'),
    ):
        answer = await client.post(url, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, (url, body)
