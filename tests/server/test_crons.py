"""Crons as LangGraph's clients make, change and find them; they fire in a server that runs, as what they say."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import NAMESPACE_OID, uuid4
from zoneinfo import ZoneInfo

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from server_samples import ECHO, Serving, WriteProject, said

from changeover import GraphVersionManager
from changeover.runs.assistants import default_id
from changeover.runs.crons import request_of_cron

UNKNOWN = str(NAMESPACE_OID)
EACH_SECOND = "* * * * * *"
NEVER_SOON = "0 0 1 1 *"
Eventually = Callable[..., Awaitable[Any]]


@pytest.fixture
def sdk(client: httpx.AsyncClient) -> LangGraphClient:
    return LangGraphClient(client)


async def refusal(asked: Awaitable[Any]) -> dict[str, Any]:
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await asked
    problem: dict[str, Any] = refused.value.response.json()
    return problem


async def test_a_cron_is_answered_as_clients_expect_it(sdk: LangGraphClient) -> None:
    cron: Any = await sdk.crons.create("support", schedule="0 9 * * *", input=said("hi"), metadata={"team": "a"})
    assert cron["assistant_id"] == default_id("support")
    assert cron["schedule"] == "0 9 * * *"
    assert cron["thread_id"] is None
    assert cron["timezone"] is None
    assert cron["end_time"] is None
    assert cron["enabled"] is True
    assert cron["on_run_completed"] == "delete"
    assert cron["metadata"] == {"team": "a"}
    assert cron["payload"]["input"] == said("hi")
    assert datetime.fromisoformat(cron["next_run_date"]).hour == 9
    (found,) = await sdk.crons.search()
    assert found == cron


async def test_zone_end_and_enabled_are_honoured(sdk: LangGraphClient) -> None:
    cron: Any = await sdk.crons.create("support", schedule="0 9 * * *", timezone=ZoneInfo("Asia/Tokyo"))
    assert cron["timezone"] == "Asia/Tokyo"
    assert datetime.fromisoformat(cron["next_run_date"]).hour == 0
    over: Any = await sdk.crons.create("support", schedule="0 9 * * *", end_time=datetime.now(UTC))
    assert over["next_run_date"] is None
    naive: Any = await sdk.crons.create("support", schedule="0 9 * * *", end_time=datetime(2090, 1, 1))
    assert naive["end_time"] == "2090-01-01T00:00:00+00:00"
    off: Any = await sdk.crons.create("support", schedule="0 9 * * *", enabled=False)
    assert (off["enabled"], off["next_run_date"]) == (False, None)


RUN_FIELDS: dict[str, tuple[Any, str, Any]] = {
    "input": (said("hi"), "input", said("hi")),
    "config": ({"tags": ["t"], "configurable": {"a": 1}}, "config", {"tags": ["t"], "configurable": {"a": 1}}),
    "context": ({"tenant": "acme"}, "context", {"tenant": "acme"}),
    "interrupt_before": (["model"], "interrupt_before", ["model"]),
    "interrupt_after": ("*", "interrupt_after", "*"),
    "stream_mode": (["updates"], "stream_modes", ["updates"]),
    "stream_subgraphs": (True, "subgraphs", True),
    "stream_resumable": (True, "resumable", True),
    "durability": ("exit", "durability", "exit"),
    "multitask_strategy": ("reject", "multitask_strategy", "reject"),
}


async def test_each_field_of_the_run_reaches_it(manager: GraphVersionManager, sdk: LangGraphClient) -> None:
    for name, (value, field, expected) in RUN_FIELDS.items():
        cron: Any = await sdk.crons.create("support", schedule=NEVER_SOON, **{name: value})
        stored = await manager.store.crons.get(cron["cron_id"])
        request = request_of_cron(stored, await manager.assistants.resolve(stored.assistant_id))
        assert getattr(request, field) == expected, name


@pytest.mark.parametrize(("during", "durability"), [(True, "async"), (False, "exit")])
async def test_the_older_name_of_durability_is_read(
    manager: GraphVersionManager, sdk: LangGraphClient, during: bool, durability: str
) -> None:
    with pytest.warns(DeprecationWarning, match="checkpoint_during"):
        cron: Any = await sdk.crons.create("support", schedule=NEVER_SOON, checkpoint_during=during)
    stored = await manager.store.crons.get(cron["cron_id"])
    assert stored.payload["durability"] == durability


async def test_metadata_and_webhook_and_thread_reach_the_run(
    manager: GraphVersionManager, sdk: LangGraphClient
) -> None:
    await sdk.threads.create(thread_id="t1")
    cron: Any = await sdk.crons.create_for_thread(
        "t1", "support", schedule=NEVER_SOON, metadata={"a": 1}, webhook="https://example.com/hook?k=1"
    )
    assert (cron["thread_id"], cron["on_run_completed"]) == ("t1", None)
    stored = await manager.store.crons.get(cron["cron_id"])
    request = request_of_cron(stored, await manager.assistants.resolve(stored.assistant_id))
    assert (request.thread_id, request.create_thread, request.temporary) == ("t1", False, False)
    assert request.kwargs is not None
    assert request.kwargs["webhook"] == "https://example.com/hook?k=1"
    assert request.metadata["a"] == 1
    assert request.metadata["cron_id"] == cron["cron_id"]


@pytest.mark.parametrize(("wish", "temporary"), [(None, True), ("delete", True), ("keep", False)])
async def test_without_a_thread_each_run_has_one_of_its_own(
    manager: GraphVersionManager, sdk: LangGraphClient, wish: Any, temporary: bool
) -> None:
    cron: Any = await sdk.crons.create("support", schedule=NEVER_SOON, on_run_completed=wish)
    assert cron["on_run_completed"] == (wish or "delete")
    stored = await manager.store.crons.get(cron["cron_id"])
    assistant = await manager.assistants.resolve(stored.assistant_id)
    first, second = request_of_cron(stored, assistant), request_of_cron(stored, assistant)
    assert first.thread_id != second.thread_id
    assert (first.create_thread, first.temporary) == (True, temporary)


async def test_the_settings_of_the_assistant_apply_as_they_are_when_it_fires(
    manager: GraphVersionManager, sdk: LangGraphClient
) -> None:
    assistant = await sdk.assistants.create("support", config={"tags": ["old"]})
    cron: Any = await sdk.crons.create(assistant["assistant_id"], schedule=NEVER_SOON)
    await sdk.assistants.update(assistant["assistant_id"], config={"tags": ["new"]})
    stored = await manager.store.crons.get(cron["cron_id"])
    request = request_of_cron(stored, await manager.assistants.resolve(stored.assistant_id))
    assert request.config["tags"] == ["new"]
    assert request.assistant_id == assistant["assistant_id"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"schedule": "every day"}, "bad-schedule"),
    ({"schedule": "0 0 30 2 *"}, "bad-schedule"),
    ({"timezone": "Mars/Olympus"}, "bad-timezone"),
    ({"end_time": "tomorrow"}, "invalid-request"),
    ({"end_time": "0001-01-01T00:00:00+14:00"}, "invalid-request"),
    ({"webhook": "ftp://example.com"}, "bad-url"),
    ({"webhook": "http://127.0.0.1:1/"}, "private-address"),
    ({"webhook": "http://169.254.169.254/latest"}, "private-address"),
    ({"config": {"configurable": {"__x": 1}}}, "invalid-request"),
    ({"config": {"recursion_limit": "many"}}, "invalid-request"),
    ({"config": {"configurable": {"thread_id": "other"}}}, "invalid-request"),
    ({"stream_mode": ["nothing"]}, "invalid-request"),
    ({"interrupt_before": "model"}, "invalid-request"),
    ({"durability": "never"}, "invalid-request"),
    ({"multitask_strategy": "fight"}, "invalid-request"),
    ({"on_run_completed": "burn"}, "invalid-request"),
    ({"enabled": "yes"}, "invalid-request"),
    ({"context": "acme"}, "invalid-request"),
    ({"metadata": []}, "invalid-request"),
    ({"command": {"resume": 1}}, "invalid-request"),
    ({"surprise": 1}, "invalid-request"),
    ({"input": {"text": "\ud800"}}, "invalid-request"),
]


async def test_what_could_not_run_is_refused_when_the_cron_is_made(client: httpx.AsyncClient) -> None:
    for fields, code in REFUSED:
        body = json.dumps({"assistant_id": "support", "schedule": NEVER_SOON, **fields})
        answer = await client.post("/runs/crons", content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (422, code), fields
        assert (await client.post("/runs/crons/count", json={})).json() == 0, fields


async def test_unknown_things_are_404(sdk: LangGraphClient) -> None:
    assert (await refusal(sdk.crons.create("nobody", schedule=NEVER_SOON)))["code"] == "unknown-assistant"
    assert (await refusal(sdk.crons.create(UNKNOWN, schedule=NEVER_SOON)))["status"] == 404
    asked = sdk.crons.create_for_thread(UNKNOWN, "support", schedule=NEVER_SOON)
    assert (await refusal(asked))["code"] == "unknown-thread"
    assert (await refusal(sdk.crons.update(UNKNOWN, enabled=False)))["code"] == "unknown-cron"
    assert (await refusal(sdk.crons.delete("no uuid")))["code"] == "unknown-cron"


async def test_a_cron_on_a_thread_says_nothing_of_what_becomes_of_it(
    sdk: LangGraphClient, client: httpx.AsyncClient
) -> None:
    await sdk.threads.create(thread_id="t1")
    body = {"assistant_id": "support", "schedule": NEVER_SOON, "on_run_completed": "keep"}
    assert (await client.post("/threads/t1/runs/crons", json=body)).status_code == 422
    cron: Any = await sdk.crons.create_for_thread("t1", "support", schedule=NEVER_SOON)
    asked = sdk.crons.update(cron["cron_id"], on_run_completed="keep")
    assert (await refusal(asked))["code"] == "unsupported"


CHANGES: dict[str, Any] = {
    "schedule": "0 10 * * *",
    "timezone": "Europe/Berlin",
    "enabled": False,
    "metadata": {"b": 2},
    "on_run_completed": "keep",
}


async def test_each_field_can_be_changed_alone(sdk: LangGraphClient) -> None:
    for name in CHANGES:
        cron: Any = await sdk.crons.create("support", schedule="0 9 * * *", metadata={"a": 1})
        changed: Any = await sdk.crons.update(cron["cron_id"], **{name: CHANGES[name]})
        assert changed[name] == CHANGES[name], name
        for other in CHANGES.keys() - {name}:
            assert changed[other] == cron[other], (name, other)
        assert changed["updated_at"] > cron["updated_at"], name
        assert changed["created_at"] == cron["created_at"], name


async def test_each_field_of_the_run_can_be_changed_alone(sdk: LangGraphClient) -> None:
    for name in sorted(RUN_FIELDS.keys() - {"multitask_strategy"}):
        value, _, expected = RUN_FIELDS[name]
        if name == "stream_mode":
            expected = value
        cron: Any = await sdk.crons.create("support", schedule=NEVER_SOON, webhook="https://example.com/a")
        changed: Any = await sdk.crons.update(cron["cron_id"], **{name: value})
        assert changed["payload"][name] == expected, name
        assert changed["payload"]["webhook"] == "https://example.com/a", name


async def test_null_takes_away_and_the_end_can_be_cleared(sdk: LangGraphClient, client: httpx.AsyncClient) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=1)
    cron: Any = await sdk.crons.create(
        "support", schedule=NEVER_SOON, end_time=soon, webhook="https://example.com/a", timezone="Asia/Tokyo"
    )
    assert cron["next_run_date"] is None
    kept: Any = await sdk.crons.update(cron["cron_id"], metadata={})
    assert kept["end_time"] == cron["end_time"]
    cleared: Any = await sdk.crons.update(cron["cron_id"], end_time=None)
    assert cleared["end_time"] is None
    assert cleared["next_run_date"] is not None
    url = f"/runs/crons/{cron['cron_id']}"
    bare = (await client.patch(url, json={"webhook": None, "timezone": None})).json()
    assert "webhook" not in bare["payload"]
    assert bare["timezone"] is None
    assert (await client.patch(url, json={"schedule": None})).status_code == 422
    assert (await client.patch(url, json={"webhook": "http://10.0.0.1/"})).json()["code"] == "private-address"
    assert (await client.patch(url, json={"schedule": "no"})).json()["code"] == "bad-schedule"
    assert (await client.get(url)).json() == bare, "what was refused changed nothing"


async def test_crons_are_searched_counted_sorted_and_paged(sdk: LangGraphClient, client: httpx.AsyncClient) -> None:
    await sdk.threads.create(thread_id="t1")
    first: Any = await sdk.crons.create("support", schedule=NEVER_SOON, metadata={"team": "a", "n": 1})
    second: Any = await sdk.crons.create("billing", schedule="0 9 * * *", enabled=False)
    third: Any = await sdk.crons.create_for_thread("t1", "support", schedule="0 9 * * *", metadata={"team": "b"})
    ids = [cron["cron_id"] for cron in (first, second, third)]

    async def found(**wanted: Any) -> list[str]:
        return [cron["cron_id"] for cron in await sdk.crons.search(**wanted)]

    assert await found(sort_by="created_at", sort_order="asc") == ids
    assert await found() == ids[::-1]
    assert set(await found(assistant_id="support")) == {ids[0], ids[2]}
    assert await found(assistant_id=default_id("billing")) == [ids[1]]
    assert await found(thread_id="t1") == [ids[2]]
    assert await found(enabled=False) == [ids[1]]
    assert await found(metadata={"team": "a"}) == [ids[0]]
    assert await found(metadata={"team": "a", "n": 2}) == []
    assert await found(sort_by="next_run_date", sort_order="asc") == [ids[1], ids[2], ids[0]]
    assert await found(limit=1, offset=1, sort_by="created_at", sort_order="asc") == [ids[1]]
    assert await sdk.crons.count() == 3
    assert await sdk.crons.count(assistant_id="support") == 2
    assert await sdk.crons.count(thread_id="t1") == 1
    assert await sdk.crons.count(metadata={"team": "b"}) == 1
    assert (await sdk.crons.search(limit=1, select=["cron_id", "now"]))[0].keys() == {"cron_id", "now"}
    page = await client.post("/runs/crons/search", json={"limit": 2})
    assert page.headers["x-pagination-next"] == "2"
    assert "x-pagination-next" not in (await client.post("/runs/crons/search", json={"limit": 3})).headers
    await sdk.crons.delete(ids[0])
    assert await sdk.crons.count() == 2


async def test_crons_go_with_their_assistant(sdk: LangGraphClient) -> None:
    assistant = await sdk.assistants.create("support")
    await sdk.crons.create(assistant["assistant_id"], schedule=NEVER_SOON)
    await sdk.assistants.delete(assistant["assistant_id"])
    assert await sdk.crons.count() == 0


# --- a server that runs ------------------------------------------------------------------------------------------


async def test_a_cron_on_a_thread_runs_on_it_at_each_of_its_times(
    project: WriteProject, serving: Serving, eventually: Eventually
) -> None:
    async with serving(project(ECHO)) as url, get_client(url=url) as sdk:
        thread = (await sdk.threads.create())["thread_id"]
        cron: Any = await sdk.crons.create_for_thread(thread, "echo", schedule=EACH_SECOND, input=said("Tick"))

        async def ran_twice() -> bool:
            runs = await sdk.runs.list(thread)
            return sum(run["status"] == "success" for run in runs) >= 2

        await eventually(ran_twice)
        await sdk.crons.update(cron["cron_id"], enabled=False)
        assert (await sdk.runs.list(thread))[0]["metadata"]["cron_id"] == cron["cron_id"]
        messages = (await sdk.threads.get_state(thread))["values"]["messages"]
        assert [m["content"] for m in messages if m["type"] == "human"][:2] == ["Tick", "Tick"]


@pytest.mark.parametrize("wish", ["keep", "delete"])
async def test_the_thread_of_a_run_is_kept_or_goes_as_was_said(
    project: WriteProject, serving: Serving, eventually: Eventually, wish: Any
) -> None:
    async with serving(project(ECHO)) as url, get_client(url=url) as sdk, httpx.AsyncClient(base_url=url) as http:
        end = datetime.now(UTC) + timedelta(seconds=1.5)  # so that it fires once or twice
        cron: Any = await sdk.crons.create(
            "echo", schedule=EACH_SECOND, input=said("Tick"), on_run_completed=wish, end_time=end
        )
        assert cron["next_run_date"] is not None
        seen: set[str] = set()

        async def began() -> bool:
            runs = (await http.get("/admin/runs", params={"limit": 10})).json()["runs"]
            seen.update(run["thread_id"] for run in runs)
            return bool(seen)

        async def ended() -> bool:
            page = await http.get("/admin/runs", params={"active": True})
            return page.json()["runs"] == [] and (await sdk.crons.search())[0]["next_run_date"] is None

        await eventually(began)
        await eventually(ended)

        async def told() -> bool:
            answers = [await http.get(f"/threads/{thread}") for thread in seen]
            return {answer.status_code for answer in answers} == {200 if wish == "keep" else 404}

        await eventually(told)


async def test_a_cron_whose_thread_was_deleted_says_so(
    manager: GraphVersionManager, sdk: LangGraphClient, eventually: Eventually
) -> None:
    await manager.work()
    thread = str(uuid4())
    await sdk.threads.create(thread_id=thread)
    await sdk.crons.create_for_thread(thread, "support", schedule=EACH_SECOND, input=said("Tick"))
    await manager.store.database.write(lambda c: c.execute("DELETE FROM threads WHERE id = ?", (thread,)) and None)

    async def failures() -> list[Any]:
        events = await manager.store.journal.events(limit=1000)
        return [event for event in events if event.type == "cron_failed"]

    found = await eventually(failures)
    assert (found[0].data["code"], found[0].data["thread_id"]) == ("unknown-thread", thread)
    assert [thread_.id for thread_ in await manager.store.runs.threads()] == []
