"""The hooks of a plugin: their order, their deadlines, and what goes wrong in them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from plugin_stands import PLUGIN, QUICK, Stand

from changeover import ProjectError, deadline
from changeover.project.problems import Problem

DIARY = """
seen = []

class Kb:
    def __init__(self):
        seen.append("made")
    def on_load(self):
        seen.append("load")
    def on_init(self, config):
        seen.append(("init", config))
    async def on_start(self):
        seen.append("start")
    def on_stop(self):
        seen.append("stop")
"""


def failing(hook: str, body: str, rest: str = "") -> dict[str, str]:
    arguments = "self, config" if hook == "on_init" else "self"
    kind = "async def" if "await" in body else "def"
    text = f"import asyncio, sys, time\n\nclass Kb:\n    {kind} {hook}({arguments}):\n        {body}\n{rest}"
    return {"changeover.yaml": QUICK, "graphs/kb.py": text}


async def refused(stand: Stand, files: dict[str, str]) -> Problem:
    with pytest.raises(ProjectError) as raised:
        await stand.open(files)
    (problem,) = raised.value.problems
    return problem


async def test_hooks_are_called_in_order_with_the_configuration(stand: Stand) -> None:
    version = await stand.open({"changeover.yaml": PLUGIN, "graphs/kb.py": DIARY})
    seen = version.module().seen
    assert seen == ["made", "load", ("init", {"path": "data/kb"}), "start"]
    details = version.details()
    assert {"make_s", "load_s", "init_s", "start_s"} <= set(details)
    assert (details["class"], details["scope"]) == ("graphs.kb:Kb", "version")
    version.let_go()
    await stand.pool.close()
    assert seen[4:] == ["stop"]


async def test_a_restart_stops_and_starts_the_same_instance(stand: Stand) -> None:
    version = await stand.open({"changeover.yaml": PLUGIN, "graphs/kb.py": DIARY})
    version.keeper().restart()
    await version.keeper().settled()
    assert version.status() == "healthy"
    assert version.module().seen[3:] == ["start", "stop", "start"]


async def test_a_class_needs_no_hooks(stand: Stand) -> None:
    version = await stand.open({"changeover.yaml": PLUGIN, "graphs/kb.py": "class Kb: pass"})
    assert version.status() == "healthy"


async def test_a_class_that_passes_on_unknown_names_has_no_hooks_by_that(stand: Stand) -> None:
    text = "class Kb:\n    def __getattr__(self, name):\n        raise RuntimeError('asked for ' + name)\n"
    version = await stand.open({"changeover.yaml": QUICK, "graphs/kb.py": text})
    assert version.status() == "healthy"


async def test_the_base_class_may_be_used_and_data_is_read_from_its_folder(stand: Stand) -> None:
    text = """
    from changeover import Plugin

    class Kb(Plugin):
        def on_init(self, config):
            self.text = (self.project_folder / config["path"] / "one.txt").read_text()
    """
    version = await stand.open({"changeover.yaml": PLUGIN, "graphs/kb.py": text, "data/kb/one.txt": "one"})
    assert version.plugins["kb"].text == "one"


async def test_values_of_the_environment_are_put_in_and_never_shown(stand: Stand) -> None:
    text = """
    class Kb:
        def on_init(self, config):
            self.key = config["key"]
        def on_start(self):
            raise RuntimeError("refused: " + self.key)
    """
    settings = "plugins:\n  kb: {class: graphs.kb:Kb, config: {key: '${KEY}'}}\n"
    with pytest.raises(ProjectError) as raised:
        await stand.open({"changeover.yaml": settings, "graphs/kb.py": text}, {"KEY": "hunter22"})
    assert "refused: ***" in str(raised.value)
    assert "hunter22" not in str(raised.value)


@pytest.mark.parametrize("hook", ["__init__", "on_load", "on_init", "on_start"])
async def test_a_required_plugin_whose_hook_raises_refuses_the_version_at_its_line(stand: Stand, hook: str) -> None:
    problem = await refused(stand, failing(hook, "raise RuntimeError('no database')"))
    assert (problem.code, problem.path, problem.line) == ("plugin-failed", "graphs/kb.py", 5)
    said = "the class" if hook == "__init__" else hook
    assert problem.message == f"plugin 'kb': {said} failed: RuntimeError: no database"


@pytest.mark.parametrize("body", ["sys.exit(3)", "await asyncio.sleep(0); sys.exit(3)", "raise KeyboardInterrupt"])
async def test_a_hook_that_wants_to_end_the_process_has_failed(stand: Stand, body: str) -> None:
    problem = await refused(stand, failing("on_start", body))
    assert (problem.path, problem.line) == ("graphs/kb.py", 5)
    assert "wants to end the process" in problem.message


@pytest.mark.parametrize("hook", ["__init__", "on_load", "on_init", "on_start"])
@pytest.mark.parametrize("body", ["while True: pass", "await asyncio.sleep(60)"])
async def test_a_hook_that_hangs_is_given_up_at_its_deadline(stand: Stand, hook: str, body: str) -> None:
    if hook == "__init__" and "await" in body:
        return
    problem = await refused(stand, failing(hook, body))
    said = "the class" if hook == "__init__" else hook
    assert problem.message == f"plugin 'kb': {said} did not end within 0.4 s"
    assert (problem.path, problem.line) == ("graphs/kb.py", 5)


async def test_a_hook_that_hangs_holds_nobody_up(stand: Stand) -> None:
    opening = asyncio.ensure_future(refused(stand, failing("on_start", "time.sleep(0.9)")))
    loop = asyncio.get_running_loop()
    longest_s, before = 0.0, loop.time()
    while not opening.done():
        await asyncio.sleep(0.01)
        longest_s, before = max(longest_s, loop.time() - before), loop.time()
    assert "did not end" in (await opening).message
    assert longest_s < 0.7


async def test_an_async_hook_that_cannot_be_cancelled_is_left_behind(stand: Stand) -> None:
    body = """
        for _ in range(18):
            try: await asyncio.sleep(0.1)
            except BaseException: pass
"""
    problem = await refused(stand, failing("on_start", body))
    assert problem.message.endswith("on_start did not end within 0.4 s")


async def test_calls_that_never_end_are_bounded(
    stand: Stand, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "GIVE_UP_TRIES", 2)
    body = "Kb.calls = getattr(Kb, 'calls', 0) + 1; os.read(Kb.gate[0], 1)"
    files = failing("on_start", body, "\nimport os\nKb.gate = os.pipe()\n")
    files["changeover.yaml"] = files["changeover.yaml"].replace("deadline", "required: false, deadline")
    version = await stand.open(files)
    try:
        for _ in range(6):
            version.keeper().restart()
            await version.keeper().settled()
        assert version.module().Kb.calls == 4
        assert "calls that were given up still run" in version.keeper().reason
        assert version.details()["given_up"] == 4
    finally:
        os.close(version.module().Kb.gate[1])
    await eventually(lambda: not [each for each in threading.enumerate() if "changeover-plugin" in each.name])
    os.close(version.module().Kb.gate[0])


async def test_on_stop_follows_an_on_start_that_failed(stand: Stand) -> None:
    rest = "    def on_stop(self):\n        Kb.stopped = True\n        raise ValueError('half open')\n"
    files = failing("on_start", "raise RuntimeError('no')", rest)
    files["changeover.yaml"] = files["changeover.yaml"].replace("deadline", "required: false, deadline")
    version = await stand.open(files)
    assert version.module().Kb.stopped
    assert version.keeper().last_error == "on_start failed: RuntimeError: no"


async def test_a_plugin_that_fails_to_stop_is_closed_all_the_same(stand: Stand) -> None:
    for body in ("raise ValueError('stuck')", "await asyncio.sleep(60)", "while True: pass", "sys.exit(1)"):
        version = await stand.open(failing("on_stop", body))
        keeper = version.keeper()
        version.let_go()
        await stand.pool.close()
        assert (keeper.status, keeper.opens, keeper.closes) == ("closed", 1, 1)
        assert keeper.last_error.startswith("on_stop")


async def test_on_error_may_let_it_start_all_the_same(stand: Stand) -> None:
    rest = """
    def on_error(self, exception):
        Kb.given = exception
        return True
"""
    version = await stand.open(failing("on_start", "raise RuntimeError('cold cache')", rest))
    assert version.status() == "healthy"
    assert str(version.module().Kb.given) == "cold cache"
    assert version.details()["handled_errors"] == 1


@pytest.mark.parametrize("body", ["return False", "return 'yes'", "raise ValueError", "time.sleep(0.8)", "sys.exit()"])
async def test_an_on_error_that_handles_nothing_changes_nothing(stand: Stand, body: str) -> None:
    rest = f"    def on_error(self, exception):\n        {body}\n"
    problem = await refused(stand, failing("on_start", "raise RuntimeError('no')", rest))
    assert problem.message == "plugin 'kb': on_start failed: RuntimeError: no"


async def test_async_hooks_of_a_plugin_share_a_task(stand: Stand) -> None:
    """Some libraries must close in the task in which they opened."""
    text = """
    import anyio

    class Kb:
        async def on_start(self):
            self.group = anyio.create_task_group()
            await self.group.__aenter__()
            self.group.start_soon(anyio.sleep_forever)
        async def health_check(self):
            await anyio.sleep(0)
        async def on_stop(self):
            self.group.cancel_scope.cancel()
            await self.group.__aexit__(None, None, None)
    """
    version = await stand.open({"changeover.yaml": QUICK, "graphs/kb.py": text})
    version.keeper().restart()
    await version.keeper().settled()
    assert version.status() == "healthy"
    version.keeper().stop()
    version.let_go()
    keeper_errors = version_errors(stand)
    await stand.pool.close()
    assert keeper_errors == []


def version_errors(stand: Stand) -> list[str]:
    return [one["last_error"] for one in stand.pool.report() if one["errors"]]


async def test_a_plain_hook_may_give_something_to_wait_for(stand: Stand) -> None:
    rest = "async def later():\n    Kb.started = True\n"
    version = await stand.open(failing("on_start", "return later()", rest))
    assert version.module().Kb.started
