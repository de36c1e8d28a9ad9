"""A plugin that goes down, comes back, is stopped and started: what is known of it, and what its users get."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from plugin_stands import QUICK, Stand, Version

from changeover import ProjectError
from changeover.build.tenancy import Tenancy
from changeover.resources.resource import ResourceDown

Eventually = Callable[..., Any]

FRAIL = """
import asyncio, time

opened, closed, wrong = [], [], {}

class Kb:
    def on_start(self):
        opened.append(1)
        if "start" in wrong:
            raise RuntimeError(wrong["start"])
    def on_stop(self):
        closed.append(1)
    def health_check(self):
        match wrong.get("health"):
            case None: return {"rows": 3, "path": "a" * 1000}
            case "false": return False
            case "hang":
                while True: time.sleep(0.01)
            case "exit": raise SystemExit(1)
            case text: raise RuntimeError(text)
    def find(self):
        return "found"
"""


async def frail(stand: Stand, rest: str = "") -> Version:
    return await stand.open({"changeover.yaml": QUICK, "graphs/kb.py": FRAIL + rest})


def wrong(version: Version) -> dict[str, str]:
    found: dict[str, str] = version.module().wrong
    return found


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no answer", "health_check failed: RuntimeError: no answer"),
        ("false", "health_check failed: NotWell: it said that it is not well"),
        ("hang", "health_check did not end within 0.4 s"),
        ("exit", "health_check failed: HookExit: it wants to end the process: SystemExit: 1"),
    ],
)
async def test_one_that_is_not_well_is_degraded_and_started_again(
    stand: Stand, eventually: Eventually, what: str, said: str
) -> None:
    version = await frail(stand)
    book, keeper = version.plugins["kb"], version.keeper()
    wrong(version)["health"] = what
    await eventually(lambda: keeper.status == "degraded" and keeper.reason == said)
    with pytest.raises(ResourceDown) as raised:
        book.find()
    assert said in raised.value.message
    wrong(version).clear()
    await eventually(lambda: keeper.status == "healthy")
    assert book.find() == "found"
    module = version.module()
    assert len(module.opened) == len(module.closed) + 1 >= 2
    events = [event for event, _ in stand.told]
    assert (events[0], events[-1]) == ("resource_degraded", "resource_recovered")


async def test_tries_are_further_and_further_apart_and_told_once(stand: Stand, eventually: Eventually) -> None:
    version = await frail(stand)
    loop = asyncio.get_running_loop()
    wrong(version).update(health="no", start="no")
    times: list[float] = []

    def count() -> bool:
        if len(version.module().opened) > len(times):
            times.append(loop.time())
        return len(times) == 4

    await eventually(count)
    pauses = [later - earlier for earlier, later in pairwise(times[1:])]
    assert pauses[1] > 1.5 * pauses[0]
    assert [event for event, _ in stand.told] == ["resource_degraded"]


async def test_one_that_starts_and_is_not_well_refuses_the_version(stand: Stand) -> None:
    with pytest.raises(ProjectError) as raised:
        await frail(stand, "\nwrong['health'] = 'no rows'\n")
    (problem,) = raised.value.problems
    assert problem.message == "plugin 'kb': health_check failed: RuntimeError: no rows"
    assert (problem.path, problem.line) == ("graphs/kb.py", 20)


async def test_what_it_says_of_its_health_is_shown_in_short(stand: Stand) -> None:
    version = await frail(stand)
    health = version.details()["health"]
    assert health["rows"] == 3
    assert len(health["path"]) == 300


async def test_what_on_error_handles_is_no_degradation(stand: Stand, eventually: Eventually) -> None:
    rest = "\n    async def on_error(self, exception):\n        return 'mild' in str(exception)\n"
    version = await frail(stand, rest)
    wrong(version)["health"] = "mild trouble"
    await eventually(lambda: version.details().get("handled_errors", 0) >= 2)
    assert version.status() == "healthy"
    assert version.keeper().last_error == "health_check failed: RuntimeError: mild trouble"
    wrong(version)["health"] = "great trouble"
    await eventually(lambda: version.status() == "degraded")


async def test_one_is_stopped_and_started_by_hand(stand: Stand, eventually: Eventually) -> None:
    version = await frail(stand)
    module = version.module()
    await stand.pool.stop("plugin:kb")
    await eventually(lambda: version.status() == "stopped" and len(module.closed) == 1)
    with pytest.raises(ResourceDown, match="stopped by hand"):
        version.plugins["kb"].find()
    await stand.pool.start("plugin:kb")
    assert (version.status(), len(module.opened), len(module.closed)) == ("healthy", 2, 1)
    assert version.plugins["kb"].find() == "found"
    await stand.pool.start("plugin:kb")
    assert (version.status(), len(module.opened), len(module.closed)) == ("healthy", 3, 2)


async def test_a_hanging_check_does_not_hold_up_a_stop(stand: Stand, eventually: Eventually) -> None:
    settings = QUICK.replace("timeout: 400ms", "timeout: 60s")
    version = await stand.open({"changeover.yaml": settings, "graphs/kb.py": FRAIL})
    wrong(version)["health"] = "hang"
    await eventually(lambda: [one for one in threading.enumerate() if one.name == "changeover-plugin-health_check"])
    keeper = version.keeper()
    keeper.stop()
    await eventually(lambda: keeper.status == "stopped" and version.module().closed)


async def test_whoever_is_still_there_makes_it(stand: Stand, tmp_path: Path) -> None:
    """The first that asked for it went before it was made: its code is gone, the second's is there."""
    settings = QUICK.replace("deadline", "scope: server, deadline")
    first = stand.version({"changeover.yaml": settings, "graphs/kb.py": FRAIL})
    second = stand.version({"changeover.yaml": settings, "graphs/kb.py": FRAIL + "\nedition = 2\n"})
    taking = [asyncio.ensure_future(first.open()), asyncio.ensure_future(second.open())]
    asyncio.get_running_loop().call_soon(first.let_go)
    await asyncio.gather(*taking)
    assert second.status() == "healthy"
    assert second.module().opened == [1]


async def test_a_version_that_is_put_to_rest_while_it_wakes_has_what_it_needs(
    stand: Stand, eventually: Eventually
) -> None:
    slow = FRAIL.replace("    def on_start(self):", "    async def on_start(self):")
    slow = slow.replace("opened.append(1)", "opened.append(1)\n        await asyncio.sleep(0.1)")
    version = stand.version({"changeover.yaml": QUICK, "graphs/kb.py": slow})
    tenancy, kb = Tenancy(stand.pool, list(version.needs.values())), version.plugins["kb"]
    waking = asyncio.ensure_future(tenancy.wake())
    await eventually(lambda: version.module().opened)
    tenancy.rest()
    await waking
    assert kb.find() == "found"
    tenancy.rest()
    await eventually(lambda: version.module().closed)
    async with tenancy.run():
        assert kb.find() == "found"
        tenancy.end()
        assert kb.find() == "found"
    await eventually(lambda: len(version.module().closed) == 2)
