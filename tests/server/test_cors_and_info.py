"""What browsers ask before they call, and what clients ask about the server."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from server_samples import ECHO, LOCAL, Serving, WriteProject

from changeover import GraphVersionManager, create_app

PAGE = "https://agentchat.example"
LOCAL_PAGES = (
    "http://localhost:3000",
    "http://localhost",
    "https://localhost:5173",
    "http://127.0.0.1:3000",
    "http://[::1]:3000",
    "http://app.localhost:3000",
)
FOREIGN_PAGES = (
    PAGE,
    "null",
    "http://localhost.evil.example",
    "http://evil.example:3000",
    "http://127.0.0.1.evil.example",
    "http://localhost:3000.evil.example",
    "http://evillocalhost:3000",
    "file://localhost",
)


@asynccontextmanager
async def opened(folder: Path, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with GraphVersionManager.open(folder, **settings) as manager:
        await manager.serve_folder()
        transport = httpx.ASGITransport(create_app(manager))
        async with httpx.AsyncClient(transport=transport, base_url=LOCAL) as http:
            yield http


async def preflight(http: httpx.AsyncClient, origin: str, method: str = "POST", **headers: str) -> httpx.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": method, **headers}
    return await http.options("/threads", headers=asked)


async def test_pages_of_this_machine_may_call_without_any_setting(project: WriteProject) -> None:
    async with opened(project(ECHO)) as http:
        for page in LOCAL_PAGES:
            assert (await preflight(http, page)).headers["access-control-allow-origin"] == page
            answer = await http.post("/threads", json={}, headers={"Origin": page})
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, page)


async def test_other_pages_may_call_only_where_a_setting_names_them(
    project: WriteProject, caplog: pytest.LogCaptureFixture
) -> None:
    folder = project(ECHO)
    async with opened(folder) as http:
        for page in FOREIGN_PAGES:
            with caplog.at_level(logging.WARNING):
                asked = await preflight(http, page)
                answer = await http.post("/threads", json={}, headers={"Origin": page})
            for refused in (asked, answer):
                assert (refused.status_code, refused.json()["code"]) == (403, "foreign-origin")
                assert "server.cors" in refused.json()["hint"]
                assert "access-control-allow-origin" not in refused.headers
            told = [record for record in caplog.records if getattr(record, "origin", None) == page]
            assert len(told) == 1, "whoever runs the server is told, once"
        read = await http.get("/info", headers={"Origin": PAGE})
        assert "access-control-allow-origin" not in read.headers
    async with opened(folder, cors=(PAGE + "/",)) as http:
        assert (await preflight(http, PAGE)).headers["access-control-allow-origin"] == PAGE
        assert (await http.post("/threads", json={}, headers={"Origin": PAGE})).status_code == 200
        assert (await preflight(http, FOREIGN_PAGES[2])).status_code == 403
    async with opened(folder, cors=("*",)) as http:
        assert (await preflight(http, "https://any.example")).headers["access-control-allow-origin"] == "*"
        assert (await http.post("/threads", json={}, headers={"Origin": "https://any.example"})).status_code == 200


async def test_a_preflight_allows_every_method_and_header_that_clients_use(project: WriteProject) -> None:
    async with opened(project(ECHO), cors=(PAGE,), token="s3cret") as http:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"):
            wanted = "x-api-key,content-type,last-event-id,changeover-version,authorization"
            answer = await preflight(http, PAGE, method, **{"Access-Control-Request-Headers": wanted})
            assert answer.status_code == 200, "it is asked without the token"
            assert method in answer.headers["access-control-allow-methods"]
            assert answer.headers["access-control-allow-headers"] == wanted


async def test_a_public_page_may_reach_the_private_network_where_it_may_call(project: WriteProject) -> None:
    private = {"Access-Control-Request-Private-Network": "true"}
    async with opened(project(ECHO), cors=(PAGE,)) as http:
        assert (await preflight(http, PAGE, **private)).headers["access-control-allow-private-network"] == "true"
        refused = await preflight(http, "https://evil.example", **private)
        assert "access-control-allow-private-network" not in refused.headers


async def test_pages_may_read_the_headers_that_clients_need_also_of_errors(project: WriteProject) -> None:
    async with opened(project(ECHO), token="s3cret") as http:
        for key, status in (("s3cret", 200), ("wrong", 401)):
            answer = await http.post("/threads/search", json={}, headers={"Origin": LOCAL_PAGES[0], "x-api-key": key})
            assert answer.status_code in (status, 404, 405)
            exposed = {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")}
            assert exposed >= {"Content-Location", "Location", "Changeover-Version", "X-Pagination-Next", "ETag"}
            assert answer.headers["access-control-allow-origin"] == LOCAL_PAGES[0]


async def test_answers_to_programs_carry_nothing_for_browsers(project: WriteProject) -> None:
    async with opened(project(ECHO)) as http:
        answer = await http.get("/info")
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_info_tells_what_clients_ask(project: WriteProject) -> None:
    async with opened(project(ECHO)) as http:
        info = (await http.get("/info")).json()
        assert info["langgraph_py_version"] == version("langgraph")
        assert info["flags"]["assistants"] is True
        assert info["flags"]["strict_resume"] is True
        assert info["flags"]["langsmith"] is False
        assert (info["server"], info["current"]) == ("changeover", "v1")
        assert info["metadata"]["changeover_version"] == "v1"
        assert (await http.post("/runs/crons/count", json={})).status_code == (200 if info["flags"]["crons"] else 404)


async def test_a_probe_may_ask_for_the_headers_alone(project: WriteProject) -> None:
    async with opened(project(ECHO)) as http:
        assert (await http.get("/ok")).json() == {"ok": True}
        for path in ("/ok", "/info", "/healthz", "/readyz"):
            answer = await http.head(path)
            assert (answer.status_code, answer.content) == (200, b"")
        answer = await http.options("/ok")
        assert answer.status_code == 405
        assert set(answer.headers["allow"].split(", ")) <= {"GET", "HEAD"}


async def test_the_clients_api_key_is_the_token(project: WriteProject, serving: Serving) -> None:
    async with serving(project(ECHO), token="s3cret") as url:
        assert await get_client(url=url, api_key="s3cret").assistants.count() == 1
        for key in ("wrong", None):
            with pytest.raises(httpx.HTTPStatusError) as refused:
                await get_client(url=url, api_key=key).assistants.count()
            assert refused.value.response.status_code == 401
