"""An alert reaches its receiver once for each event that it is of, whatever becomes of the process that wrote it."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from changeover import GraphVersionManager, ProjectError
from changeover.alerts import NAMES, Alert
from changeover.errors import OperatorError
from changeover.project.check import analyse
from changeover.project.models import AlertSpec
from changeover.project.problems import Problem
from changeover.resources.addresses import Addresses
from changeover.resources.need import Need
from changeover.resources.pool import User
from changeover.resources.resource import Resource
from changeover.runs.deliveries import Deliveries
from changeover.runs.letters import Letters
from changeover.secret_values import Secrets
from changeover.store import rows
from changeover.store.opening import Store
from receiver import Receiver, receiving

Eventually = Callable[..., Awaitable[Any]]
WriteProject = Callable[..., Path]
SOURCES = Path(__file__).resolve().parents[2] / "runtime"
ECHO = {
    "agents.yaml": """
        models: {demo: {model: "demo:rules"}}
        agents: {echo: {model: demo, prompt: echo}}
        """,
    "prompts/echo.md": "First words.\n",
}
EVERY = {"changeover.yaml": 'alerts: [{url: "${ALERT_URL}", on: ["*"]}]\n'}
ADDRESS = Alert("${ALERT_URL}", ("*",))


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("changeover.runs.deliveries.LOOK_EVERY_S", 0.05)


@asynccontextmanager
async def serving(folder: Path, **flags: Any) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(folder, **flags) as manager:
        await manager.serve_folder()
        await manager.work()
        yield manager


def told(receiver: Receiver, type_: str) -> list[dict[str, Any]]:
    return [one.body for one in receiver.received if one.body["type"] == type_]


async def test_what_goes_wrong_is_told_in_a_sentence(
    project: WriteProject, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiving() as receiver:
        monkeypatch.setenv("ALERT_URL", f"{receiver.url}?key=s3cret")
        async with serving(project({**ECHO, **EVERY})) as manager:
            agents = ", ".join(f"echo{number}: {{model: nobody, prompt: echo}}" for number in range(30))
            project({"agents.yaml": f"models: {{}}\nagents: {{{agents}}}\n"})
            with pytest.raises(ProjectError):
                await manager.build()
            await eventually(lambda: told(receiver, "version_rejected"))
            project({**ECHO, "prompts/echo.md": "Second words.\n"})
            await manager.switch(await manager.build())
            await manager.rollback(reason="wrong tone", actor="ada")
            await eventually(lambda: told(receiver, "rolled_back"))
        (rejected,) = told(receiver, "version_rejected")
        (rolled_back,) = told(receiver, "rolled_back")
    assert receiver.received[0].target == "/hook?key=s3cret"
    assert rejected["version"] == "v2"
    assert rejected["project"] == "project"
    assert rejected["message"] == rejected["text"]
    assert rejected["message"].startswith("project: v2 could not be built: agents.yaml:2")
    assert rejected["message"].endswith("What serves goes on.")
    assert rejected["at"].startswith("20")
    assert len(rejected["details"]["problems"]) == 20
    assert rejected["details"]["problems"][0]["code"] == "unknown-model"
    assert "prompt: echo" not in str(rejected), "no line of the project is sent"
    assert rolled_back["message"] == "project: rolled back from v3 to v1 by ada: wrong tone."
    assert rolled_back["version"] == "v1"
    assert rolled_back["count"] == 1


class Sleeper(Resource):
    """A process that may be killed."""

    async def open(self) -> None:
        self.process = await asyncio.create_subprocess_exec("sleep", "600")
        self._watching = asyncio.create_task(self._watch(self.process))

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        self.lost(f"it ended with {await process.wait()}, as its key s3cret is old")

    async def close(self) -> None:
        self._watching.cancel()
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


async def test_a_resource_that_dies_is_told_and_so_is_its_return(
    project: WriteProject, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiving() as receiver:
        monkeypatch.setenv("ALERT_URL", receiver.url)
        async with serving(project({**ECHO, **EVERY})) as manager:
            sleeper, user = Sleeper(), User("test")
            need = Need(
                *("plugin", "kb", "key", lambda: sleeper),
                problem=lambda reason: Problem("plugin", reason),
                secrets=Secrets(frozenset({"s3cret"})),
            )
            await manager.resources.take(user, [need])
            sleeper.process.kill()
            await eventually(lambda: told(receiver, "resource_recovered"))
            manager.resources.give_back(user)
    (degraded,), (recovered,) = told(receiver, "resource_degraded"), told(receiver, "resource_recovered")
    assert degraded["message"] == (
        "project: plugin 'kb' does not work: it ended with -9, as its key *** is old. What needs it is told so;"
        " it is tried again."
    )
    assert (degraded["details"]["kind"], degraded["details"]["name"]) == ("plugin", "kb")
    assert recovered["message"] == "project: plugin 'kb' works again."


async def test_equal_alerts_are_of_the_same_resource(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "c.db")
    try:
        await store.alerts.follow([ADDRESS])
        for name in ("kb", "kb", "crm"):
            await store.journal.add_event("resource_degraded", kind="plugin", name=name, reason="it is down")
        await store.journal.add_event("resource_recovered", kind="plugin", name="kb")
        assert await store.outbox.count() == 3
    finally:
        await store.close()


async def test_an_alert_of_one_thing_is_not_told_of_others(
    project: WriteProject, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiving() as receiver:
        monkeypatch.setenv("ALERT_URL", receiver.url)
        alerts = {"changeover.yaml": 'alerts: [{url: "${ALERT_URL}", on: [run_dead, rolled_back]}]\n'}
        async with serving(project({**ECHO, **alerts})) as manager:
            await manager.store.journal.add_event("resource_degraded", kind="plugin", name="kb")
            project({"prompts/echo.md": "Second words.\n"})
            await manager.switch(await manager.build())
            await manager.store.journal.add_event("run_dead", run_id="r", version="v1", reason="given up: it ended")
            await eventually(lambda: receiver.received)
            assert await manager.store.outbox.count() in (0, 1)
        assert [one.body["message"] for one in receiver.received] == ["project: run r on v1 was given up: it ended."]


async def test_it_is_written_with_its_event_or_not_at_all(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "c.db")
    try:
        await store.alerts.follow([ADDRESS])

        def undone(connection: Any) -> None:
            rows.add_event(connection, time.time(), "run_dead", run_id="r")
            raise KeyError("the transaction ends here")

        with pytest.raises(KeyError):
            await store.database.write(undone)
        assert (await store.journal.events(), await store.outbox.count()) == ([], 0)
        await store.journal.add_event("run_dead", run_id="r")
        assert await store.outbox.count() == 1
    finally:
        await store.close()


async def test_what_is_written_where_nobody_delivers_is_told_by_the_next_server(
    project: WriteProject, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiving() as receiver:
        monkeypatch.setenv("ALERT_URL", receiver.url)
        folder = project({**ECHO, **EVERY})
        async with GraphVersionManager.open(folder) as manager:
            await manager.serve_folder()
            await manager.store.journal.add_event("drain_stalled", version="v1", waiting_for=[], count=3)
        async with serving(folder):
            await eventually(lambda: receiver.received)
    assert "v1 is still needed by 3 runs or threads" in receiver.received[0].body["message"]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_of_two_servers_one_tells_and_a_storm_is_two_alerts(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, eventually: Eventually
) -> None:
    where = tmp_path / "c.db" if kind == "sqlite" else request.getfixturevalue("postgres_url")
    now = time.time()
    stores = [await asyncio.to_thread(Store.open, where, lambda: now, shared=True) for _ in range(2)]
    async with receiving(500, 200) as receiver:
        letters = Letters([ADDRESS], "desk", lambda: {"ALERT_URL": receiver.url})
        senders = [
            Deliveries(store.outbox, Addresses(private=False), letters, lambda: now, (0.0, 0.0)) for store in stores
        ]
        try:
            for store, sender in zip(stores, senders, strict=True):
                await store.alerts.follow([ADDRESS])
                await sender.start(alone=False)
            await stores[0].journal.add_event("run_dead", version="v1", run_id="r0", reason="given up")
            await eventually(lambda: len(receiver.received) == 2)  # the first attempt failed
            for number in range(1, 30):
                await stores[number % 2].journal.add_event("run_dead", version="v1", run_id=f"r{number}")
            await stores[1].journal.add_event("run_dead", version="v2", run_id="other")
            await eventually(lambda: len(receiver.received) == 3)
            assert receiver.received[2].body["version"] == "v2", "what is not equal does not wait"
            await eventually(lambda: _holds(stores[0], 1))  # no attempt is under way whose lease would be over
            now += 61
            for sender in senders:
                sender.wake()
            await eventually(lambda: len(receiver.received) == 4)
            for store in stores:
                await eventually(lambda store=store: _holds(store, 0))
        finally:
            for store, sender in zip(stores, senders, strict=True):
                await sender.close()
                await store.close()
    first, again, _, folded = receiver.received
    assert first.headers["changeover-delivery"] == again.headers["changeover-delivery"]
    assert folded.body["count"] == 29
    assert folded.body["message"].endswith("(28 more like this since the last alert)")
    assert folded.body["details"]["run_id"] == "r1"


async def _holds(store: Store, count: int) -> bool:
    return await store.outbox.count() == count


async def test_an_address_is_neither_stored_nor_logged(
    project: WriteProject, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "changeover")
    monkeypatch.setattr("changeover.runs.deliveries.PAUSES_S", ())
    async with receiving(503) as receiver:
        monkeypatch.setenv("ALERT_URL", f"{receiver.url}/hush?key=s3cret")
        folder = project({**ECHO, **EVERY})
        async with serving(folder) as manager:
            await manager.store.journal.add_event("run_dead", version="v1", run_id="r")
            failed = await eventually(lambda: _of_type(manager, "alert_failed"))
            assert failed[0].data["alert"] == "run_dead"
            assert failed[0].data["reason"] == "it answered 503"
            assert await manager.store.outbox.count() == 0, "an alert that failed makes no other"
            assert "hush" not in str(manager.settings.rows())
            with sqlite3.connect(folder / ".changeover" / "changeover.db") as connection:
                dump = "\n".join(connection.iterdump())
    assert "hush" not in dump
    assert "ALERT_URL" not in dump
    assert not [record for record in caplog.records if "hush" in str(vars(record))]


async def _of_type(manager: GraphVersionManager, type_: str) -> list[Any]:
    return [event for event in await manager.store.journal.events(limit=1000) if event.type == type_]


async def test_a_missing_variable_is_said_and_its_value_is_taken_from_env_later(
    project: WriteProject, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALERT_URL", raising=False)
    monkeypatch.setattr("changeover.runs.deliveries.PAUSES_S", (0.01,) * 1000)
    async with receiving() as receiver, serving(project({**ECHO, **EVERY})) as manager:
        (note,) = manager.notes
        assert note == "alerts of * cannot be sent: the environment variable ALERT_URL is not set"
        await manager.store.journal.add_event("run_dead", version="v1", run_id="r")
        project({".env": f"ALERT_URL={receiver.url}\n"})
        await manager.folder.refresh_environment()
        await eventually(lambda: told(receiver, "run_dead"))


async def test_an_alert_that_is_gone_from_the_settings_is_told_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = time.time()
    store = Store.open(tmp_path / "c.db", lambda: now)
    gone = Alert("http://127.0.0.1:1/", ("run_dead",))
    try:
        await store.alerts.follow([ADDRESS, gone])
        await store.journal.add_event("run_dead", run_id="r")
        assert await store.outbox.count() == 2
        assert await store.outbox.next_at(alerts=[]) is None, "who does not know an address leaves it to others"
        caplog.clear()
        await store.alerts.follow([ADDRESS])
        (said,) = [record for record in caplog.records if record.message == "alerts_changed"]
        assert (vars(said)["added"], vars(said)["removed"], said.levelname) == ([], ["run_dead"], "WARNING")
        assert await store.outbox.count() == 2, "it may come back"
        await store.journal.add_event("run_dead", run_id="other")
        assert await store.outbox.count() == 2, "that of the alert that is left stands for both"
        now += 86_500
        await store.alerts.follow([ADDRESS])
        assert await store.outbox.count() == 1
        await store.alerts.follow([])
        await store.journal.add_event("resource_degraded", kind="plugin", name="kb")
        assert await store.outbox.count() == 0
    finally:
        await store.close()


async def test_who_opens_the_database_with_other_alerts_and_serves_nothing_changes_none(
    project: WriteProject, postgres_url: str, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiving() as receiver:
        monkeypatch.setenv("ALERT_URL", receiver.url)
        folder = project({**ECHO, **EVERY})
        async with serving(folder, database=postgres_url) as manager:
            monkeypatch.setenv("CHANGEOVER_ALERTS", "[]")
            async with GraphVersionManager.open(folder, postgres_url) as other:
                await other.store.journal.add_event("run_dead", version="v1", run_id="r0", reason="given up")
            command = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "changeover.cli", "versions", "--database", postgres_url),
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(SOURCES)},
                stdout=asyncio.subprocess.DEVNULL,
            )
            assert await command.wait() == 0
            await manager.store.journal.add_event("resource_degraded", kind="plugin", name="kb", reason="it is down")
            await eventually(lambda: told(receiver, "run_dead") and told(receiver, "resource_degraded"))


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("alerts: [{url: x, on: [run_dead, rejected]}]\n", (1, 34), "should be one of version_rejected"),
        ("alerts:\n  - url: x\n", (2, 5), "'alerts.0.on' is missing"),
        ("alerts:\n  - {url: x, on: [run_dead], to: y}\n", (2, 30), "'to' is not a key here"),
        ("alerts: [{url: x, on: []}]\n", (1, 23), "'alerts.0.on'"),
    ],
)
def test_a_wrong_alert_is_a_problem_where_it_stands_and_no_start(
    project: WriteProject, text: str, place: tuple[int, int], said: str
) -> None:
    folder = project({**ECHO, "changeover.yaml": text})
    files = {path: (folder / path).read_bytes() for path in (*ECHO, "changeover.yaml")}
    _, problems = analyse(files, {})
    (problem,) = problems
    assert (problem.path, problem.line, problem.column) == ("changeover.yaml", *place)
    assert said in problem.message
    with pytest.raises(OperatorError) as caught:
        GraphVersionManager.open(folder)
    assert f"changeover.yaml:{place[0]}:{place[1]}" in caught.value.message


def test_alerts_come_from_a_variable_too(project: WriteProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHANGEOVER_ALERTS", '[{"url": "https://hooks.example/T0/s3cret", "on": ["run_dead"]}]')
    settings = GraphVersionManager.open(project({**ECHO, **EVERY})).settings
    assert settings.alerts == (Alert("https://hooks.example/T0/s3cret", ("run_dead",)),)
    shown = next(row for row in settings.rows() if row["setting"] == "alerts")
    assert (shown["value"], shown["source"]) == (("run_dead to hooks.example",), "environment")
    monkeypatch.setenv("CHANGEOVER_ALERTS", "https://hooks.example/T0/s3cret")
    with pytest.raises(OperatorError) as caught:
        GraphVersionManager.open(project(ECHO))
    assert "s3cret" not in caught.value.message


def test_the_names_of_the_file_are_those_that_are_told() -> None:
    allowed = str(AlertSpec.model_json_schema()["properties"]["on"])
    assert all(f"'{name}'" in allowed for name in (*NAMES, "*"))


async def test_the_file_of_a_webhook_that_waited_goes_on_in_the_outbox(tmp_path: Path) -> None:
    from changeover.store.schema import migrate_sqlite

    path = tmp_path / "c.db"
    migrate_sqlite(path, upto=4)
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO webhooks (id, run_id, url, host, body, attempts, next_at) VALUES"
            " ('d', 'r', 'https://example.com/a', 'example.com', '{}', 2, 5.0)"
        )
    store = Store.open(path)
    try:
        (found,) = await store.outbox.claim(9, 20.0, {}, 9)
        assert (found.id, found.run_id, found.url, found.lane, found.attempt) == (
            *("d", "r", "https://example.com/a", "example.com"),
            3,
        )
    finally:
        await store.close()
