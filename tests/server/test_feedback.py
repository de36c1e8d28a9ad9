"""Whoever has the address of a run's feedback key may say something; nobody else may, and nobody may read it so."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from server_samples import DEADLINE_S, ECHO, LOCAL, Serving, WriteProject, said

from changeover import GraphVersionManager, create_app
from changeover.store import feedback as stored
from changeover.store.feedback import Opinion
from changeover.store.opening import Store

RUN = "1ef3cefa-4c09-6926-96d0-3dc97fd5e39b"
NOTHING = "A" * 43


@pytest.fixture
async def url(manager: GraphVersionManager) -> str:
    return (await manager.store.feedback.urls(RUN, ["stars"]))["stars"]


async def test_a_run_tells_where_feedback_on_it_may_be_given(client: httpx.AsyncClient) -> None:
    sdk = LangGraphClient(client)
    stream = sdk.runs.stream(None, "support", input=said("hi"), feedback_keys=["stars", "words"])
    parts = [part async for part in stream]
    (told,) = [part.data for part in parts if part.event == "feedback"]
    assert told.keys() == {"stars", "words"}
    assert all(address.startswith(LOCAL + "/runs/") for address in told.values())
    answer = await client.post(told["stars"], json={"score": 1, "value": {"liked": True}, "comment": "good"})
    assert answer.status_code == 200
    run_id = parts[0].data["run_id"]
    (given,) = (await client.get(f"/runs/{run_id}/feedback")).json()
    assert (given["run_id"], given["key"], given["score"]) == (run_id, "stars", 1)
    assert (given["value"], given["comment"]) == ({"liked": True}, "good")


async def test_no_keys_no_event(client: httpx.AsyncClient) -> None:
    stream = LangGraphClient(client).runs.stream(None, "support", input=said("hi"))
    assert "feedback" not in {part.event async for part in stream}


async def test_a_run_that_is_joined_tells_it_too(client: httpx.AsyncClient) -> None:
    sdk = LangGraphClient(client)
    thread = (await sdk.threads.create())["thread_id"]
    body = {"assistant_id": "support", "input": said("hi"), "feedback_keys": ["stars"], "stream_resumable": True}
    run = (await client.post(f"/threads/{thread}/runs", json=body)).json()
    events = [part async for part in sdk.runs.join_stream(thread, run["run_id"], last_event_id="-1")]
    assert [part.data.keys() for part in events if part.event == "feedback"] == [{"stars"}]


@pytest.mark.parametrize("keys", ["stars", [""], [1], ["k" * 256], ["k"] * 51])
async def test_keys_that_are_none_are_refused(client: httpx.AsyncClient, keys: Any) -> None:
    body = {"assistant_id": "support", "input": said("hi"), "feedback_keys": keys}
    assert (await client.post("/runs/stream", json=body)).status_code == 422


async def test_a_link_will_do(client: httpx.AsyncClient, url: str) -> None:
    answer = await client.get(url, params={"score": 0.5, "value": "so so", "comment": "well"})
    assert answer.status_code == 200
    assert answer.json()["score"] == 0.5
    (given,) = (await client.get(f"/runs/{RUN}/feedback")).json()
    assert (given["value"], given["comment"]) == ("so so", "well")


async def test_a_later_opinion_takes_the_place_of_the_first(client: httpx.AsyncClient, url: str) -> None:
    await client.post(url, json={"score": True, "comment": "good"})
    await client.post(url, json={"score": 0})
    (given,) = (await client.get(f"/runs/{RUN}/feedback")).json()
    assert (given["score"], given["comment"]) == (0, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"{",
        b'{"score": "high"}',
        b'{"score": 1e999}',
        b'{"score": NaN}',
        b'{"comment": 1}',
        b'{"comment": "\\ud800"}',
        b'{"key": "other", "score": 1}',
        b'{"score": null, "value": null}',
        b'{"value": ' + b"[" * 200 + b"]" * 200 + b"}",
        b"\xff\xfe",
    ],
)
async def test_what_is_no_opinion_is_refused(client: httpx.AsyncClient, url: str, body: bytes) -> None:
    answer = await client.post(url, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert (await client.get(f"/runs/{RUN}/feedback")).json() == []


async def test_a_link_without_an_opinion_says_nothing(client: httpx.AsyncClient, url: str) -> None:
    assert (await client.get(url)).status_code == 422, "as a preview of it would ask"
    assert (await client.get(url, params={"score": "nan"})).status_code == 422


async def test_a_large_opinion_is_refused(client: httpx.AsyncClient, url: str) -> None:
    answer = await client.post(url, json={"value": "x" * 100_000})
    assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")


async def test_a_guessed_or_foreign_or_old_address_takes_nothing(
    client: httpx.AsyncClient, manager: GraphVersionManager, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = url.replace(RUN, RUN.replace("1", "2"))
    for wrong in (f"/runs/{RUN}/feedback/{NOTHING}", other):
        answer = await client.post(wrong, json={"score": 1})
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown-feedback")
    monkeypatch.setattr(stored, "VALID_S", -1.0)
    assert (await client.post(url, json={"score": 1})).status_code == 404
    await manager.store.feedback.urls(RUN, ["more"])

    def job(connection: Any) -> int:
        return int(connection.execute("SELECT count(*) FROM feedback WHERE key = 'stars'").fetchone()[0])

    assert await manager.store.database.read(job) == 0, "what is too old is forgotten"


async def test_feedback_on_an_unknown_run_is_404(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"/runs/{RUN}/feedback")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown-run")


async def test_the_address_needs_no_token_and_all_else_does(sample: Path) -> None:
    async with GraphVersionManager.open(sample, token="s3cret") as manager:
        await manager.serve_folder()
        address = (await manager.store.feedback.urls(RUN, ["stars"]))["stars"]
        transport = httpx.ASGITransport(create_app(manager))
        async with httpx.AsyncClient(transport=transport, base_url=LOCAL, timeout=DEADLINE_S) as client:
            foreign = {"origin": "https://pages.example.com"}
            assert (await client.post(address, json={"score": 1}, headers=foreign)).status_code == 200
            assert (await client.get(address, params={"score": 1})).status_code == 200
            for path in (
                f"/runs/{RUN}/feedback",
                f"{address}/more",
                f"/runs/{RUN}/feedback/short",
                "/runs/crons/count",
            ):
                assert (await client.get(path)).status_code == 401


async def test_the_address_is_that_by_which_the_client_knows_the_server(
    project: WriteProject, serving: Serving
) -> None:
    async with serving(project(ECHO)) as served, get_client(url=served) as sdk, httpx.AsyncClient() as http:
        stream = sdk.runs.stream(None, "echo", input=said("hi"), feedback_keys=["stars"])
        (told,) = [part.data async for part in stream if part.event == "feedback"]
        assert told["stars"].startswith(served + "/runs/")
        assert (await http.post(told["stars"], json={"score": 1})).status_code == 200


async def test_the_secret_is_not_in_the_database(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "c.db")
    address = (await store.feedback.urls(RUN, ["stars"]))["stars"]
    await store.feedback.give(RUN, urlsplit(address).path.rsplit("/", 1)[1], Opinion(score=1))
    await store.close()
    secret = address.rsplit("/", 1)[1].encode()
    assert all(secret not in path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
