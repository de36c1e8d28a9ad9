"""Plugins of a project that is served: what an edit opens and closes is counted by the plugin itself, in a file."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from plugin_desks import BOOK, PROJECT, ask, changed, diary, look, settings

from changeover import GraphVersionManager, ProjectError
from changeover.resources.resource import ResourceDown

Eventually = Callable[..., Any]
Serve = Callable[..., AbstractAsyncContextManager[GraphVersionManager]]
SECOND = BOOK.replace("EDITION = 1", "EDITION = 2")


@pytest.fixture
async def serving(project: Callable[..., Path], tmp_path: Path) -> AsyncIterator[Serve]:
    """A manager of the project, its first version current; afterwards nothing of it is left in the process."""

    @asynccontextmanager
    async def serve(**entries: str) -> AsyncIterator[GraphVersionManager]:
        folder = project({**PROJECT, "changeover.yaml": settings(tmp_path, **entries)})
        async with GraphVersionManager.open(folder) as manager:
            await changed(manager)
            yield manager

    yield serve
    left = [task.get_name() for task in asyncio.all_tasks() if "changeover" in task.get_name()]
    left += [thread.name for thread in threading.enumerate() if "changeover-plugin" in thread.name]
    assert left == []
    words = Counter(line.split()[0] for line in diary(tmp_path))
    assert words["open"] == words["close"]


async def test_a_graph_and_a_tool_use_the_plugin_of_their_version(serving: Serve, tmp_path: Path) -> None:
    async with serving() as manager:
        assert await look(manager) == "cat in one, edition 1"
        assert await ask(manager) == "cat in one, edition 1"
        (plugin,) = [one for one in manager.resources.report() if one["kind"] == "plugin"]
        assert (plugin["id"], plugin["status"], plugin["versions"]) == ("plugin:book", "healthy", ["v1"])
        assert plugin["details"]["health"] == {"edition": 1}
    assert diary(tmp_path) == ["open one 1", "close one 1"]


async def test_a_version_shares_the_plugin_until_its_code_or_its_settings_change(
    serving: Serve, project: Callable[..., Path], tmp_path: Path, eventually: Eventually
) -> None:
    async with serving() as manager:
        project({"agents.yaml": PROJECT["agents.yaml"].replace("You look it up", "Be quick")})
        await changed(manager)
        assert diary(tmp_path) == ["open one 1"]
        project({"graphs/book.py": SECOND})
        await changed(manager)
        await eventually(lambda: len(diary(tmp_path)) == 3)
        assert diary(tmp_path) == ["open one 1", "open one 2", "close one 1"]
        project({"changeover.yaml": settings(tmp_path, config="name: two")})
        await changed(manager)
        await eventually(lambda: len(diary(tmp_path)) == 5)
        assert diary(tmp_path)[3:] == ["open two 2", "close one 2"]
        assert (await look(manager), await ask(manager)) == ("cat in two, edition 2", "cat in two, edition 2")
        project(
            {
                "changeover.yaml": "",
                "graphs/desk.py": "",
                "tools.yaml": "",
                "agents.yaml": "agents: {a: {model: 'demo:rules'}}",
            }
        )
        await changed(manager)
        await eventually(lambda: diary(tmp_path)[5:] == ["close two 2"])


async def test_one_of_the_server_outlives_an_edit_of_its_code(
    serving: Serve, project: Callable[..., Path], tmp_path: Path, eventually: Eventually
) -> None:
    async with serving(scope="server") as manager:
        project({"graphs/book.py": SECOND})
        await changed(manager)
        assert (await look(manager), await ask(manager)) == ("cat in one, edition 1", "cat in one, edition 1")
        assert diary(tmp_path) == ["open one 1"]
        project({"changeover.yaml": settings(tmp_path, scope="server", config="name: two")})
        await changed(manager)
        await eventually(lambda: diary(tmp_path) == ["open one 1", "open two 2", "close one 1"])


async def test_a_run_in_flight_keeps_its_plugin(
    serving: Serve, project: Callable[..., Path], tmp_path: Path, eventually: Eventually
) -> None:
    waiting = PROJECT["graphs/desk.py"].replace(
        "def look(state):\n                return",
        "async def look(state):\n                import asyncio, os\n"
        f"                while state['word'] == 'wait' and not os.path.exists('{tmp_path}/go'):\n"
        "                    await asyncio.sleep(0.01)\n                return",
    )
    project({"graphs/desk.py": waiting})
    async with serving() as manager:
        project({"graphs/desk.py": waiting})
        await changed(manager)
        run = asyncio.ensure_future(look(manager, "wait"))
        await eventually(lambda: sum(manager.in_flight.count().values()) == 1)
        before = diary(tmp_path)
        project({"graphs/book.py": SECOND})
        await changed(manager)
        assert await look(manager) == "cat in one, edition 2"
        assert diary(tmp_path)[len(before) :].count("close one 1") <= 1  # of the first version, none of the run's
        (tmp_path / "go").touch()
        assert await run == "wait in one, edition 1"


async def test_a_required_one_that_fails_rejects_the_version_and_nothing_of_it_stays_open(
    serving: Serve, project: Callable[..., Path], tmp_path: Path, eventually: Eventually
) -> None:
    async with serving() as manager:
        (tmp_path / "locked").touch()
        project({"graphs/book.py": SECOND})
        with pytest.raises(ProjectError) as raised:
            await manager.build()
        (problem,) = raised.value.problems
        assert problem.message == "plugin 'book': on_start failed: RuntimeError: the shelf is locked"
        assert (problem.path, problem.line) == ("graphs/book.py", 18)
        assert manager.status()["routing"]["current"] == "v1"
        assert await look(manager) == "cat in one, edition 1"
        await eventually(lambda: diary(tmp_path) == ["open one 1", "open one 2", "close one 2"])
        assert [one["versions"] for one in manager.resources.report() if one["kind"] == "plugin"] == [["v1"]]


async def test_an_edit_that_was_rejected_for_its_plugin_is_live_once_that_can_be_had(
    serving: Serve, project: Callable[..., Path], tmp_path: Path, eventually: Eventually
) -> None:
    async with serving() as manager:
        await manager.watch()
        (tmp_path / "locked").touch()
        project({"graphs/book.py": SECOND})
        await eventually(lambda: "close one 2" in diary(tmp_path))
        (tmp_path / "locked").unlink()

        async def is_live() -> bool:
            return await look(manager) == "cat in one, edition 2"

        await eventually(is_live)


async def test_what_was_opened_beside_one_that_fails_is_closed(
    serving: Serve, project: Callable[..., Path], tmp_path: Path, eventually: Eventually
) -> None:
    async with serving() as manager:
        bad = "class Bad:\n    def on_init(self, config):\n        self.rows = config['rows']\n"
        both = settings(tmp_path) + "  bad: {class: graphs.bad:Bad}\n"
        project({"graphs/book.py": SECOND, "graphs/bad.py": bad, "changeover.yaml": both})
        with pytest.raises(ProjectError) as raised:
            await manager.build()
        assert [problem.message for problem in raised.value.problems] == [
            "plugin 'bad': on_init failed: KeyError: 'rows'"
        ]
        await eventually(lambda: diary(tmp_path) == ["open one 1", "open one 2", "close one 2"])


async def test_a_plan_says_what_becomes_of_it(serving: Serve, project: Callable[..., Path], tmp_path: Path) -> None:
    async with serving() as manager:
        project({"agents.yaml": PROJECT["agents.yaml"].replace("You look it up", "Be quick")})
        await manager.build()
        project({"graphs/book.py": SECOND})
        await manager.build()
        plans = [(await manager.plan(id_)).resources for id_ in ("v2", "v3")]
        folder = manager.project
    async with GraphVersionManager.open(folder) as manager:  # not all of them are loaded
        plans += [(await manager.plan(id_)).resources for id_ in ("v2", "v3")]
    assert [plan is not None and "plugin:book" in plan.keep for plan in plans] == [True, False, True, False]
    assert [plan is not None and plan.replace for plan in plans] == [(), ("plugin:book",)] * 2


async def test_one_that_is_not_required_is_served_without_and_comes_back(
    serving: Serve, tmp_path: Path, eventually: Eventually
) -> None:
    (tmp_path / "locked").touch()
    async with serving(required="false") as manager:
        for call in (look, ask):
            with pytest.raises(ResourceDown, match=r"plugin 'book' is degraded since .*the shelf is locked"):
                await call(manager)
        (tmp_path / "locked").unlink()
        await eventually(lambda: manager.resources.find("plugin:book").status == "healthy")
        assert await ask(manager) == "cat in one, edition 1"


async def test_one_that_goes_down_is_told_of_and_started_again(
    serving: Serve, tmp_path: Path, eventually: Eventually
) -> None:
    async with serving() as manager:
        plugin = manager.resources.find("plugin:book")
        (tmp_path / "down").touch()
        await eventually(lambda: plugin.status == "degraded")
        with pytest.raises(ResourceDown, match="no answer"):
            await look(manager)
        (tmp_path / "down").unlink()
        await eventually(lambda: plugin.status == "healthy")
        assert await look(manager) == "cat in one, edition 1"
        events = [one.type for one in await manager.store.journal.events() if one.type.startswith("resource")]
        assert events == ["resource_degraded", "resource_recovered"]


async def test_a_changed_variable_opens_it_anew_without_a_version(
    serving: Serve, project: Callable[..., Path], tmp_path: Path, eventually: Eventually
) -> None:
    project({".env": "NAME_OF_BOOK=red\n"})
    async with serving(config="name: '${NAME_OF_BOOK}'") as manager:
        project({".env": "NAME_OF_BOOK=blue\n"})
        assert await manager.folder.refresh_environment()
        assert await look(manager) == "cat in blue, edition 1"
        await eventually(lambda: diary(tmp_path) == ["open red 1", "open blue 1", "close red 1"])
        assert len(await manager.versions()) == 1


async def test_each_is_opened_once_and_closed_once_over_random_edits(
    serving: Serve, project: Callable[..., Path], tmp_path: Path
) -> None:
    """Whatever is edited: a name of a book with an edition is opened once for each time that nothing had it open."""
    dice = random.Random(7)
    async with serving() as manager:
        for edit in range(100):
            match dice.randrange(4):
                case 0:
                    project({"graphs/book.py": BOOK.replace("EDITION = 1", f"EDITION = {dice.randrange(1, 4)}")})
                case 1:
                    name = dice.choice(["one", "two"])
                    project({"changeover.yaml": settings(tmp_path, config=f"name: {name}")})
                case 2:
                    project({"agents.yaml": PROJECT["agents.yaml"].replace("up.", f"up {edit}.")})
                case 3:
                    (tmp_path / "locked").touch()
                    project({"graphs/book.py": BOOK + f"\n    # {edit}\n"})
                    with pytest.raises(ProjectError):
                        await manager.build()
                    (tmp_path / "locked").unlink()
                    project({"graphs/book.py": BOOK})
            await changed(manager)
            await look(manager)
    open_now: Counter[str] = Counter()
    for line in diary(tmp_path):
        word, book = line.split(" ", 1)
        open_now[book] += 1 if word == "open" else -1
        assert open_now[book] >= 0
    assert set(open_now.values()) == {0}
