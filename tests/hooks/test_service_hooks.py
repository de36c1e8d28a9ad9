"""Hooks of the service: each is called when it should be, may veto what it may veto, and breaks nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from changeover import GraphVersionManager, ProjectError, ServiceHooks, Switching, create_app
from changeover.errors import Conflict, OperatorError

Eventually = Callable[..., Awaitable[Any]]
WriteProject = Callable[..., Path]
ECHO = {
    "agents.yaml": """
        models: {demo: {model: "demo:rules"}}
        agents: {echo: {model: demo, prompt: echo}}
        """,
    "prompts/echo.md": "First words.\n",
}


class Diary(ServiceHooks):
    """Writes down what it is told. `against` is its reason against a switch; what is in `faults` raises that."""

    timeout_s = 5.0

    def __init__(self, against: str | None = None, **faults: Exception) -> None:
        self.told: list[Any] = []
        self.against = against
        self.faults = faults

    async def before_start(self, manager: GraphVersionManager) -> None:
        self._note("before_start", manager.is_open)

    async def after_start(self, manager: GraphVersionManager) -> None:
        self._note("after_start", manager.is_open)

    async def before_switch(self, switching: Switching) -> str | None:
        self._note("before_switch", switching)
        return self.against

    async def after_switch(self, switching: Switching, receipt: Any) -> None:
        self._note("after_switch", (switching, receipt.revision))

    async def on_failed_build(self, error: ProjectError) -> None:
        self._note("on_failed_build", (error.version, [problem.code for problem in error.problems]))

    def _note(self, what: str, told: Any) -> None:
        self.told.append((what, told))
        if what in self.faults:
            raise self.faults[what]

    def of(self, what: str) -> list[Any]:
        return [told for kind, told in self.told if kind == what]


class Hanging(ServiceHooks):
    """Is asked before a switch, and does not answer."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.asked = asyncio.Event()

    async def before_switch(self, switching: Switching) -> str | None:
        self.asked.set()
        await asyncio.Event().wait()
        return None


Open = Callable[..., Any]


@pytest.fixture
def opened(project: WriteProject) -> Open:
    @asynccontextmanager
    async def open_(*hooks: ServiceHooks) -> AsyncIterator[GraphVersionManager]:
        async with GraphVersionManager.open(project(ECHO), hooks=hooks) as manager:
            yield manager

    return open_


async def events(manager: GraphVersionManager, type_: str) -> list[dict[str, Any]]:
    return [dict(one.data) for one in await manager.store.journal.events(limit=1000) if one.type == type_]


async def second(manager: GraphVersionManager, project: WriteProject) -> str:
    """A version beside the one that serves."""
    project({"prompts/echo.md": "Second words.\n"})
    return (await manager.build()).id


async def test_each_hook_is_called_in_its_order(opened: Open, project: WriteProject, eventually: Eventually) -> None:
    diary = Diary()
    async with opened(diary) as manager:
        assert diary.told == [("before_start", False), ("after_start", True)]
        await manager.serve_folder()
        v2 = await second(manager, project)
        await manager.switch(v2, reason="better", actor="ada")
        await manager.rollback(reason="worse")
        await manager.ramp(v2, 10)
        await manager.ramp(v2, 0)
        project({"agents.yaml": "agents: {echo: {model: nobody}}\n"})
        for _ in range(2):
            with pytest.raises(ProjectError):
                await manager.build()
        await eventually(lambda: diary.of("on_failed_build"))
        assert len(await events(manager, "version_rejected")) == 1, "the same again is no news"
    asked = [(one.action, one.from_, one.to, one.actor) for one in diary.of("before_switch")]
    assert asked == [
        ("switch", None, "v1", "server"),
        ("switch", "v1", "v2", "ada"),
        ("ramp", "v1", "v2", "library"),
    ], "a rollback and the end of a ramp are not asked about"
    told = [(one.action, one.to, one.percent, revision) for one, revision in diary.of("after_switch")]
    assert told == [
        ("switch", "v1", None, 1),
        ("switch", "v2", None, 2),
        ("rollback", "v1", None, 3),
        ("ramp", "v2", 10, 4),
        ("ramp", "v2", 0, 5),
    ]
    assert diary.of("on_failed_build") == [("v3", ["unknown-model"])]


async def test_graphs_made_in_code_may_be_registered_after_the_start(opened: Open) -> None:
    from langgraph.graph import START, StateGraph

    class Registers(ServiceHooks):
        async def after_start(self, manager: GraphVersionManager) -> None:
            desk = StateGraph(dict).add_node("work", lambda state: {"by": "code"}).add_edge(START, "work")
            await manager.register("spring", {"desk": desk})

    async with opened(Registers()) as manager:
        await manager.switch("spring")
        assert await manager.invoke("desk", {}) == {"by": "code"}


@pytest.mark.parametrize(
    ("hook", "reason"),
    [
        (Diary("nobody is here"), "nobody is here"),
        (Diary(before_switch=ValueError("odd")), "ValueError: odd"),
        (Diary(""), "no reason was given"),
    ],
    ids=["reason", "raises", "empty"],
)
async def test_a_veto_leaves_the_routing_and_says_why(
    opened: Open, project: WriteProject, hook: Diary, reason: str
) -> None:
    against, hook.against = hook.against, None
    faults, hook.faults = hook.faults, {}
    later = Diary()
    async with opened(hook, later) as manager:
        await manager.serve_folder()
        v2 = await second(manager, project)
        hook.against, hook.faults = against, faults
        asked = len(later.of("before_switch"))
        for refused in (manager.switch(v2), manager.switch(v2, force=True), manager.ramp(v2, 5)):
            with pytest.raises(Conflict) as caught:
                await refused
            assert (caught.value.code, caught.value.extra["reason"]) == ("vetoed", reason)
        assert manager.routing is not None
        assert (manager.routing.current, manager.routing.revision) == ("v1", 1)
        assert len(later.of("before_switch")) == asked, "after the first veto nobody is asked"
        (first, *_) = await events(manager, "switch_vetoed")
        assert first == {
            "to": "v2",
            "from": "v1",
            "action": "switch",
            "actor": "library",
            "graphs": [],
            "hook": "Diary",
            "reason": reason,
        }
        hook.against, hook.faults = None, {}
        assert (await manager.switch(v2)).to == "v2"


async def test_a_reason_holds_no_value_of_the_environment(
    opened: Open, project: WriteProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESK_TOKEN", "tok-of-process")
    project({".env": "DESK_URL=https://u:pw-of-file@host/x\n"})
    said = "no answer of https://u:pw-of-file@host/x with tok-of-process"
    hook = Diary(before_switch=ConnectionError(said), after_start=ConnectionError(said))
    async with opened(hook) as manager:
        version = await manager.build()
        with pytest.raises(Conflict) as caught:
            await manager.switch(version)
        assert caught.value.extra["reason"] == "ConnectionError: no answer of *** with ***"
        for type_ in ("switch_vetoed", "hook_failed"):
            (event,) = await events(manager, type_)
            assert event["reason"] == "ConnectionError: no answer of *** with ***"


async def test_a_hook_that_would_end_the_program_is_a_veto(opened: Open) -> None:
    class Leaving(ServiceHooks):
        async def before_switch(self, switching: Switching) -> str | None:
            sys.exit("nobody is here")

    async with opened(Leaving()) as manager:
        version = await manager.build()
        with pytest.raises(Conflict) as caught:
            await manager.switch(version)
        assert caught.value.extra["reason"] == "SystemExit: nobody is here"


async def test_a_hook_that_hangs_is_a_veto_after_its_time(opened: Open) -> None:
    async with opened(Hanging(0.05)) as manager:
        version = await manager.build()
        with pytest.raises(Conflict) as caught:
            await manager.switch(version)
        assert caught.value.extra["reason"] == "it did not end within 0.05 s"
        assert manager.routing is None


async def test_a_hook_that_heeds_no_cancellation_holds_up_nothing(opened: Open) -> None:
    class Stubborn(Diary):
        timeout_s = 0.05
        told_enough = asyncio.Event()

        async def after_start(self, manager: GraphVersionManager) -> None:
            while not self.told_enough.is_set():
                with suppress(asyncio.CancelledError):
                    await self.told_enough.wait()

    stubborn, other = Stubborn(), Diary()
    async with opened(stubborn, other) as manager:
        assert other.of("after_start") == [True]
        (failed,) = await events(manager, "hook_failed")
        assert failed["reason"] == "it did not end within 0.05 s"
        stubborn.told_enough.set()


async def test_a_hook_that_is_cancelled_by_itself_takes_nobody_with_it(
    opened: Open, project: WriteProject, eventually: Eventually
) -> None:
    class Odd(Diary):
        async def after_switch(self, switching: Switching, receipt: Any) -> None:
            raise asyncio.CancelledError

    diary = Diary()
    async with opened(Odd(), diary) as manager:
        await manager.serve_folder()
        await manager.switch(await second(manager, project))
        await eventually(lambda: len(diary.of("after_switch")) == 2)
        assert {one["reason"] for one in await events(manager, "hook_failed")} == {"it was cancelled"}


async def test_a_rollback_waits_for_no_hook_and_gives_up_what_is_asked_about(
    opened: Open, project: WriteProject
) -> None:
    hanging = Hanging(60.0)
    async with opened() as manager:
        await manager.serve_folder()
        await manager.switch(await second(manager, project))
    async with opened(hanging) as manager:
        switching = asyncio.create_task(manager.switch("v2", reason="again"))
        await hanging.asked.wait()
        async with asyncio.timeout(5):
            receipt = await manager.rollback()
        assert (receipt.from_, receipt.to) == ("v2", "v1")
        with pytest.raises(Conflict) as caught:
            await switching
        assert caught.value.code == "overtaken"


async def test_who_asks_and_gives_up_takes_the_question_with_it(opened: Open) -> None:
    hanging = Hanging(60.0)
    async with opened(hanging) as manager:
        version = await manager.build()
        switching = asyncio.create_task(manager.switch(version))
        await hanging.asked.wait()
        switching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await switching
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "changeover-hook"]


async def test_what_fails_after_the_fact_is_an_event_and_nothing_else(
    opened: Open, project: WriteProject, eventually: Eventually
) -> None:
    odd = RuntimeError("odd")
    faulty = Diary(after_start=odd, after_switch=odd, on_failed_build=odd)
    other = Diary()
    async with opened(faulty, other) as manager:
        await manager.serve_folder()
        project({"agents.yaml": "agents: {echo: {model: nobody}}\n"})
        with pytest.raises(ProjectError):
            await manager.build()
        await eventually(lambda: _count(manager, 3))
        failed = await events(manager, "hook_failed")
        assert [one["call"] for one in failed] == ["after_start", "after_switch", "on_failed_build"]
        assert {(one["hook"], one["reason"]) for one in failed} == {("Diary", "RuntimeError: odd")}
        assert [what for what, _ in other.told if what != "before_switch"] == [
            *("before_start", "after_start", "after_switch", "on_failed_build"),
        ]
        assert manager.routing is not None


async def _count(manager: GraphVersionManager, count: int) -> bool:
    return len(await events(manager, "hook_failed")) == count


async def test_a_start_that_a_hook_is_against_is_none(opened: Open, project: WriteProject) -> None:
    manager = GraphVersionManager.open(project(ECHO), hooks=[Diary(before_start=ValueError("no licence"))])
    with pytest.raises(OperatorError) as caught:
        await manager.start()
    assert caught.value.code == "hook-failed"
    assert "before_start of Diary failed: ValueError: no licence" in caught.value.message
    assert not manager.is_open
    assert not (project({}) / ".changeover").exists(), "nothing was opened"


async def test_a_vetoed_save_is_refused_once_and_promoted_by_hand(
    opened: Open, project: WriteProject, eventually: Eventually
) -> None:
    diary = Diary()
    async with opened(diary) as manager:
        await manager.serve_folder()
        await manager.watch()
        diary.against = "not on a Friday"
        project({"prompts/echo.md": "Second words.\n"})
        await eventually(lambda: events(manager, "promotion_refused"))
        (refused,) = await events(manager, "promotion_refused")
        assert refused["version"] == "v2"
        assert "not on a Friday" in refused["reason"]
        diary.against = None
        project({"prompts/echo.md": "Third words.\n"})
        await eventually(lambda: manager.routing is not None and manager.routing.current == "v3")
        assert [one.to for one in diary.of("before_switch")] == ["v1", "v2", "v3"], "v2 was asked about once"
        assert (await manager.switch("v2")).to == "v2"


async def test_a_veto_is_a_conflict_over_http(opened: Open, project: WriteProject) -> None:
    diary = Diary()
    async with opened(diary) as manager:
        await manager.serve_folder()
        v2 = await second(manager, project)
        diary.against = "not on a Friday"
        transport = httpx.ASGITransport(create_app(manager))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.post("/admin/switch", json={"to": v2})
            assert (answer.status_code, answer.json()["code"]) == (409, "vetoed")
            assert answer.json()["reason"] == "not on a Friday"
            assert (await client.get("/admin/routing")).json()["current"] == "v1"
            diary.against = None
            assert (await client.post("/admin/switch", json={"to": v2})).status_code == 200
            diary.against = "never"
            assert (await client.post("/admin/rollback", json={})).json()["to"] == "v1"


async def test_a_first_version_that_is_vetoed_waits_for_a_switch_by_hand(project: WriteProject) -> None:
    diary = Diary("not yet")
    app = create_app(GraphVersionManager.open(project(ECHO), hooks=[diary]))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client,
    ):
        assert (await client.get("/admin/status")).json()["versions"] == []
        assert (await client.get("/readyz")).status_code == 503
        diary.against = None
        assert (await client.post("/admin/switch", json={"to": "v1"})).status_code == 200
        assert (await client.get("/readyz")).status_code == 200


async def test_what_has_happened_is_told_before_the_end(opened: Open) -> None:
    class Slow(Diary):
        async def after_switch(self, switching: Switching, receipt: Any) -> None:
            await asyncio.sleep(0.2)
            await super().after_switch(switching, receipt)

    slow = Slow()
    async with opened(slow) as manager:
        await manager.serve_folder()
    assert len(slow.of("after_switch")) == 1
