"""Who may see the page, and whose forms count."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from changeover import GraphVersionManager, create_app

TOKEN = "a-token-for-tests-0123456789"
LOCAL = "http://127.0.0.1:2024"
HTML = {"Accept": "text/html"}
STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
async def guarded(sample: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A server with a token, as a browser that has not signed in sees it."""
    async with GraphVersionManager.open(sample, token=TOKEN) as manager:
        await manager.serve_folder()
        transport = httpx.ASGITransport(create_app(manager))
        async with httpx.AsyncClient(transport=transport, base_url=LOCAL) as client:
            yield client


async def _sign_in(client: httpx.AsyncClient, token: str = TOKEN, **form: str) -> httpx.Response:
    return await client.post("/ui/login", data={"token": token, "name": "ada", **form}, headers={"Origin": LOCAL})


async def test_page_asks_who_is_there_and_leads_back(guarded: httpx.AsyncClient) -> None:
    asked = await guarded.get("/ui/versions?status=ready", headers=HTML)
    assert asked.status_code == 303
    assert asked.headers["location"] == "/ui/login?next=%2Fui%2Fversions%3Fstatus%3Dready"
    signed = await _sign_in(guarded, next="/ui/versions?status=ready")
    assert (signed.status_code, signed.headers["location"]) == (303, "/ui/versions?status=ready")
    page = await guarded.get("/ui/versions", headers=HTML)
    assert page.status_code == 200
    assert "ada" in page.text


async def test_cookie_is_out_of_reach_of_scripts_and_holds_no_token(guarded: httpx.AsyncClient) -> None:
    signed = await _sign_in(guarded)
    cookie = signed.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    assert TOKEN not in cookie


async def test_name_is_in_any_letters(guarded: httpx.AsyncClient) -> None:
    await _sign_in(guarded, name="Jürgen Ślązak 李")
    page = await guarded.get("/ui/", headers=HTML)
    assert page.status_code == 200
    assert "Jürgen.Ślązak.李" in page.text
    built = {"path": "prompts/support.md", "base": "-", "ends": "lf", "text": "New.\n", "message": ""}
    base = (await guarded.get("/admin/folder/files/prompts/support.md")).headers["etag"].strip('"')
    await guarded.post("/ui/edit", data={**built, "base": base}, headers={"Origin": LOCAL})
    assert (await guarded.get("/admin/versions/v2")).json()["author"] == "Jürgen.Ślązak.李"


async def test_wrong_token_signs_nobody_in(guarded: httpx.AsyncClient) -> None:
    refused = await _sign_in(guarded, "wrong")
    assert refused.status_code == 401
    assert "set-cookie" not in refused.headers
    assert "not the token" in refused.text


@pytest.mark.parametrize("cookie", ["", "x", "ImFkYSI.aaaa.bbbb", "a" * 5000])
async def test_forged_cookie_is_none(guarded: httpx.AsyncClient, cookie: str) -> None:
    signed = await _sign_in(guarded)
    name = signed.headers["set-cookie"].partition("=")[0]
    guarded.cookies.clear()
    asked = await guarded.get("/admin/status", headers={"Cookie": f"{name}={cookie}"})
    assert asked.status_code == 401


async def test_cookie_of_another_token_is_none(guarded: httpx.AsyncClient, sample: Path, tmp_path: Path) -> None:
    await _sign_in(guarded)
    other = GraphVersionManager.open(sample, token="another-token-0123456789", database=f"sqlite:///{tmp_path}/o.db")
    async with other as manager:
        transport = httpx.ASGITransport(create_app(manager))
        async with httpx.AsyncClient(transport=transport, base_url=LOCAL, cookies=guarded.cookies) as client:
            assert (await client.get("/admin/status")).status_code == 401


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "same-site"}]
)
@pytest.mark.parametrize("path", ["/ui/rollback", "/admin/rollback", "/ui/logout"])
async def test_page_of_somebody_else_changes_nothing(
    guarded: httpx.AsyncClient, headers: dict[str, str], path: str
) -> None:
    await _sign_in(guarded)
    refused = await guarded.post(path, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "foreign-page")


async def test_session_may_use_the_api_from_our_own_page(guarded: httpx.AsyncClient) -> None:
    await _sign_in(guarded)
    assert (await guarded.get("/admin/status")).status_code == 200
    checked = await guarded.post("/admin/check", json={}, headers={"Origin": LOCAL})
    assert checked.status_code == 200


async def test_session_is_worth_nothing_where_scripts_of_another_host_run(guarded: httpx.AsyncClient) -> None:
    await _sign_in(guarded)
    assert (await guarded.get("/docs", headers=HTML)).status_code == 401


async def test_programs_get_their_own_answer_and_no_form(guarded: httpx.AsyncClient) -> None:
    asked = await guarded.get("/ui/versions", headers={"Accept": "application/json"})
    assert (asked.status_code, asked.json()["code"]) == (401, "token-required")


@pytest.mark.parametrize("address", ["https://evil.example/", "//evil.example", "/ui/\\evil", "/ui//evil", "/other"])
async def test_signing_in_leads_nowhere_else(guarded: httpx.AsyncClient, address: str) -> None:
    signed = await _sign_in(guarded, next=address)
    assert signed.headers["location"] == "/ui/"


async def test_little_is_read_of_who_gave_no_token(guarded: httpx.AsyncClient) -> None:
    refused = await _sign_in(guarded, name="x" * 100_000)
    assert (refused.status_code, refused.json()["code"]) == (413, "body-too-large")


@pytest.mark.parametrize("charset", ["punycode", "idna", "utf-7", "unicode_escape"])
async def test_form_in_another_encoding_is_not_read(guarded: httpx.AsyncClient, charset: str) -> None:
    """Some of what Python decodes takes hours for one request, and some gives what is no text."""
    form = b'--b\r\nContent-Disposition: form-data; name="token"\r\n\r\nwrong\r\n--b--\r\n'
    told = {"Origin": LOCAL, "Content-Type": f"multipart/form-data; boundary=b; charset={charset}"}
    refused = await guarded.post("/ui/login", content=form, headers=told)
    assert refused.status_code == 415
    told["Content-Type"] = "multipart/form-data; boundary=b; charset=UTF-8"
    assert (await guarded.post("/ui/login", content=form, headers=told)).status_code == 401


async def test_cookie_that_somebody_else_left_keeps_nobody_out(guarded: httpx.AsyncClient) -> None:
    cookie = (await _sign_in(guarded)).headers["set-cookie"].partition(";")[0]
    name = cookie.partition("=")[0]
    guarded.cookies.clear()
    asked = await guarded.get("/admin/status", headers={"Cookie": f"{name}=left.by.another; {cookie}"})
    assert asked.status_code == 200


async def test_cookie_of_a_browser_on_https_is_sent_on_https_alone(guarded: httpx.AsyncClient) -> None:
    """A proxy that ends TLS may not say so; a browser does."""
    assert "Secure" not in (await _sign_in(guarded)).headers["set-cookie"]
    told = {"Origin": "https://desk.example", "Host": "desk.example"}
    signed = await guarded.post("/ui/login", data={"token": TOKEN}, headers=told)
    assert "Secure" in signed.headers["set-cookie"]


async def test_signing_out_ends_it(guarded: httpx.AsyncClient) -> None:
    await _sign_in(guarded)
    await guarded.post("/ui/logout", headers={"Origin": LOCAL})
    assert (await guarded.get("/ui/", headers=HTML)).status_code == 303


async def test_policy_lets_nothing_in_from_elsewhere(guarded: httpx.AsyncClient) -> None:
    page = await guarded.get("/ui/login", headers=HTML)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"


async def test_every_answer_has_the_policy(guarded: httpx.AsyncClient) -> None:
    """Also one that refuses, leads on, or is of no page."""
    strange = ("/ui/login/", "/ui/static/none", "/ui/static/page.js", "/ui/logins", "/ui/login?next=%00")
    asked = [await guarded.get(path) for path in ("/ui", "/ui/", *strange)]
    asked += [await guarded.get("/ui/", headers=HTML), await guarded.get("/ui/", headers=STREAM)]
    asked += [await guarded.post("/ui/login"), await guarded.put("/ui/login", headers={"Origin": LOCAL})]
    asked += [await _sign_in(guarded, name="x" * 300), await _sign_in(guarded, name="x" * 100_000)]
    await _sign_in(guarded)
    broken = ("/ui/none", "/ui/versions/none", "/ui/resources?page=x", "/ui/versions/v1/files/none", "/ui/rollback")
    asked += [await guarded.get(path, headers=HTML) for path in broken]
    assert {answer.status_code for answer in asked} >= {200, 303, 307, 401, 403, 404, 405, 409, 413, 422}
    for answer in asked:
        assert "default-src 'none'" in answer.headers["content-security-policy"], answer.url
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_what_no_page_answers_is_not_said_to_be_missing(guarded: httpx.AsyncClient) -> None:
    asked = await guarded.put("/ui/login", headers={"Origin": LOCAL})
    assert asked.status_code == 405
    assert "there is no such page" not in asked.text


async def test_browser_at_the_root_finds_the_page(guarded: httpx.AsyncClient) -> None:
    await _sign_in(guarded)
    assert (await guarded.get("/", headers=HTML)).headers["location"] == "/ui/"
    assert (await guarded.get("/", headers={"Accept": "application/json"})).status_code == 404
