"""Who may call, and with how much."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_samples import ECHO, LOCAL, WriteProject, said

from changeover import GraphVersionManager, create_app
from changeover.errors import OperatorError
from changeover.server.serve import bind


@asynccontextmanager
async def opened(folder: Path, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with GraphVersionManager.open(folder, **settings) as manager:
        await manager.serve_folder()
        transport = httpx.ASGITransport(create_app(manager))
        async with httpx.AsyncClient(transport=transport, base_url=LOCAL) as http:
            yield http


async def test_a_token_is_asked_for_everywhere_but_health(project: WriteProject) -> None:
    async with opened(project(ECHO), token="s3cret") as http:
        for path in ("/healthz", "/readyz", "/ok"):
            assert (await http.get(path)).status_code == 200
        for path in ("/admin/status", "/info", "/metrics", "/docs", "/openapi.json", "/nothing"):
            answer = await http.get(path)
            assert (answer.status_code, answer.json()["code"]) == (401, "token-required")
        for headers in ({"Authorization": "Bearer s3cret"}, {"x-api-key": "s3cret"}):
            assert (await http.get("/admin/status", headers=headers)).status_code == 200
        for headers in ({"Authorization": "Bearer s3cre"}, {"Authorization": "Basic s3cret"}, {"x-api-key": "ß"}):
            wrong = {name: value.encode() for name, value in headers.items()}
            assert (await http.get("/admin/status", headers=wrong)).status_code == 401
        assert "s3cret" not in (await http.get("/admin/status", headers={"x-api-key": "s3cret"})).text


async def test_pages_of_others_are_kept_out(project: WriteProject) -> None:
    body = {"assistant_id": "echo", "input": said("hi")}
    async with opened(project(ECHO), cors=("https://desk.example",)) as http:
        foreign = await http.post("/runs/wait", json=body, headers={"Origin": "https://evil.example"})
        assert (foreign.status_code, foreign.json()["code"]) == (403, "foreign-origin")
        rebound = await http.get("/admin/status", headers={"Host": "evil.example"})
        assert (rebound.status_code, rebound.json()["code"]) == (403, "foreign-host")
        for origin in ("https://desk.example", LOCAL):
            allowed = await http.post("/runs/wait", json=body, headers={"Origin": origin})
            assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, origin)
        preflight = await http.options(
            "/runs/wait", headers={"Origin": "https://desk.example", "Access-Control-Request-Method": "POST"}
        )
        assert preflight.headers["access-control-allow-origin"] == "https://desk.example"


@pytest.mark.parametrize("path", ["/runs/wait", "/admin/versions"])
@pytest.mark.parametrize("keyed", [False, True])
async def test_a_body_that_is_too_large_is_refused(project: WriteProject, path: str, keyed: bool) -> None:
    async with opened(project(ECHO), limit_body_bytes=1000) as http:

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b"x" * 100

        headers = {"Content-Type": "application/json", **({"Idempotency-Key": "k"} if keyed else {})}
        for content in (b"x" * 2000, chunks()):
            answer = await http.post(path, content=content, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")


async def test_garbage_is_a_problem_and_never_a_crash(project: WriteProject) -> None:
    async with opened(project(ECHO)) as http:
        for path in ("/runs/wait", "/threads", "/assistants/search", "/admin/switch", "/admin/versions"):
            for content in (b"{", b"\xff\xfe", b"[]", b"12", b'{"a": 1}'):
                answer = await http.post(path, content=content, headers={"Content-Type": "application/json"})
                assert answer.status_code == 422, (path, content, answer.text)
                assert answer.headers["content-type"] == "application/problem+json"


async def test_an_unforeseen_error_shows_nothing_of_itself(project: WriteProject) -> None:
    folder = project(ECHO)
    async with GraphVersionManager.open(folder) as manager:
        app = create_app(manager)

        @app.get("/broken")
        async def broken() -> None:
            raise ZeroDivisionError("the inner secret")

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=LOCAL) as http:
            answer = await http.get("/broken")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text


def test_other_addresses_than_loopback_need_a_token(project: WriteProject) -> None:
    folder = project(ECHO)
    with pytest.raises(OperatorError) as refused:
        bind(GraphVersionManager.open(folder, host="0.0.0.0", port=0).settings)
    assert refused.value.code == "token-required"
    bind(GraphVersionManager.open(folder, host="0.0.0.0", port=0, token="t").settings).close()
