"""Bad input of every kind: a clear error with its position, and what serves goes on untouched."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from changeover import GraphVersionManager
from changeover.build.modules import PREFIX
from changeover.errors import Conflict, NotFound, OperatorError, ProjectError

Write = Callable[[Mapping[str, str]], Path]
Eventually = Callable[..., Awaitable[Any]]

ADD = """
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b
"""
PROJECT = {
    "agents.yaml": """
        models: {demo: {model: "demo:rules", params: {rules: []}}}
        agents:
          support: {model: demo, prompt: support, tools: [add]}
        """,
    "tools.yaml": 'tools: {add: {python: "graphs.calc:add"}}\n',
    "prompts/support.md": "You are the first.\n",
    "graphs/calc.py": ADD,
}


@asynccontextmanager
async def serving(folder: Path, **settings: Any) -> AsyncIterator[GraphVersionManager]:
    async with GraphVersionManager.open(folder, **settings) as manager:
        await manager.switch(await manager.build())
        yield manager
        await assert_untouched(manager)


async def assert_untouched(manager: GraphVersionManager) -> None:
    """Version v1 serves on the routing's first revision."""
    answer = await manager.invoke("support", {"messages": [("user", "hello")]})
    assert "You are the first." in answer["messages"][-1].text
    assert manager.routing is not None
    assert (manager.routing.current, manager.routing.revision) == ("v1", 1)
    head = await manager.store.routing.head()
    assert head == manager.routing


async def rejected(manager: GraphVersionManager, *codes: str) -> list[Any]:
    """Build, and check that what was wrong is told by the error, the version, the events and the status."""
    with pytest.raises(ProjectError) as caught:
        await manager.build()
    problems = [problem for problem in caught.value.problems if problem.severity == "error"]
    assert {problem.code for problem in problems} == set(codes)
    version = await manager.version(str(caught.value.version))
    assert version.status == "rejected"
    assert list(version.problems) == [problem.to_json() for problem in caught.value.problems]
    event = (await manager.store.journal.events(newest=True, limit=1))[0]
    assert (event.type, event.data["version"]) == ("version_rejected", version.id)
    assert event.data["problems"] == list(version.problems)
    assert (await manager.report())["folder"]["problems"] == list(version.problems)
    for refused in (manager.switch(version), manager.invoke("support", {"messages": []}, version=version.id)):
        with pytest.raises(Conflict) as conflict:
            await refused
        assert conflict.value.code == "version-rejected"
    await assert_untouched(manager)
    return problems


@pytest.mark.parametrize(
    ("path", "text", "code", "line"),
    [
        ("agents.yaml", "agents: {support: [ }", "yaml-syntax", 1),
        ("agents.yaml", "agents:\n  support: {model: nope}\n", "unknown-model", 2),
        ("agents.yaml", "agents:\n  support: {model: 'demo:rules', tools: [nope]}\n", "unknown-tool", 2),
        ("agents.yaml", "agents:\n  support: {model: 'demo:rules', prompt: nope}\n", "unknown-prompt", 2),
        ("prompts/support.md", "You are {{ nobody }}.\n", "prompt-variable", 1),
        ("graphs/calc.py", "def add(:\n", "import", 1),
        ("graphs/calc.py", "x = 1\nraise RuntimeError('not today')\n", "import", 2),
        ("graphs/calc.py", "import sys\nsys.exit(3)\n", "import", 2),
        ("graphs/calc.py", "raise KeyboardInterrupt\n", "import", 1),
        ("graphs/calc.py", "import no_such_module_anywhere\n", "import", 1),
    ],
)  # fmt: skip
async def test_a_broken_file_is_rejected_at_its_line(
    project: Write, path: str, text: str, code: str, line: int
) -> None:
    async with serving(project(PROJECT)) as manager:
        project({path: text + (ADD if path.endswith(".py") else "")})
        (problem,) = await rejected(manager, code)
        assert (problem.path, problem.line) == (path, line)


@pytest.mark.parametrize(
    "endless",
    [
        "while True:\n    pass\n",
        "import time\ntime.sleep(10**6)\n",
        "while True:\n    try:\n        pass\n    except BaseException:\n        pass\n",
        "import threading\nthreading.Event().wait()\n",
    ],
    ids=["loop", "sleep", "loop-that-catches", "wait"],
)
async def test_an_import_that_never_ends_is_given_up_and_keeps_nobody_waiting(project: Write, endless: str) -> None:
    async with serving(project(PROJECT), limit_build_s=0.5) as manager:
        project({"graphs/calc.py": endless + ADD})
        slowest_s = 0.0

        async def watch_the_loop() -> None:
            nonlocal slowest_s
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.01)
                slowest_s = max(slowest_s, time.monotonic() - before)

        watching = asyncio.create_task(watch_the_loop())
        began = time.monotonic()
        with pytest.raises(ProjectError) as caught:
            await manager.build()
        assert time.monotonic() - began < 5
        watching.cancel()
        (problem,) = caught.value.problems
        assert (problem.code, problem.path) == ("import", "graphs/calc.py")
        assert 1 <= problem.line <= 5
        assert "0.5 s" in problem.message
        assert slowest_s < 0.5
        await assert_untouched(manager)
        project({"graphs/calc.py": ADD + "\n"})
        assert (await manager.build()).status == "ready"  # and the next build is as good as any


async def test_a_build_whose_caller_leaves_keeps_no_code(project: Write, eventually: Eventually) -> None:
    async with serving(project(PROJECT)) as manager:
        slow = f"import time\ntime.sleep(0.2)\n{ADD}"
        project({"graphs/calc.py": slow})
        before = set(threading.enumerate())

        def at_work() -> bool:
            return any(t.name == "changeover-build" for t in threading.enumerate() if t not in before)

        building = asyncio.create_task(manager.build())
        await eventually(at_work)
        building.cancel()
        await asyncio.gather(building, return_exceptions=True)
        await eventually(lambda: not at_work())
        await eventually(lambda: len({name.partition(".")[0] for name in sys.modules if name.startswith(PREFIX)}) == 1)


async def test_a_huge_file(project: Write) -> None:
    folder = project(PROJECT)
    async with serving(folder) as manager:
        with (folder / "prompts/huge.md").open("wb") as file:
            file.truncate(50_000_000)
        (problem,) = await rejected(manager, "file-too-large")
        assert problem.path == "prompts/huge.md"


async def test_a_link_out_of_the_folder(project: Write, tmp_path: Path) -> None:
    folder = project(PROJECT)
    secret = tmp_path / "secret.txt"
    secret.write_text("do not read me")
    async with serving(folder) as manager:
        (folder / "prompts/support.md").unlink()
        (folder / "prompts/support.md").symlink_to(secret)
        with pytest.raises(ProjectError) as caught:
            await manager.build()
        assert "prompts/support.md" in {problem.path for problem in caught.value.problems}
        version = str(caught.value.version)
        assert b"do not read me" not in b"".join((await manager.store.versions.files(version)).values())


async def test_files_that_come_and_go_during_the_snapshot(project: Write) -> None:
    folder = project(PROJECT)
    stop = threading.Event()

    def flicker() -> None:
        while not stop.is_set():
            (folder / "prompts/now.md").write_text("here")
            (folder / "prompts/now.md").unlink()

    async with serving(folder) as manager:
        thread = threading.Thread(target=flicker)
        thread.start()
        try:
            for _ in range(3):
                try:
                    version = await manager.build()
                except Conflict as error:
                    assert error.code == "snapshot-unstable"  # noqa: PT017
                else:
                    assert version.status in ("ready", "current")
        finally:
            stop.set()
            thread.join()


async def test_an_alias_bomb(project: Write) -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    async with serving(project(PROJECT)) as manager:
        project({"agents.yaml": bomb})
        began = time.monotonic()
        problems = await rejected_with_any(manager)
        assert time.monotonic() - began < 5
        assert {problem.path for problem in problems} >= {"agents.yaml"}


async def rejected_with_any(manager: GraphVersionManager) -> list[Any]:
    with pytest.raises(ProjectError) as caught:
        await manager.build()
    return list(caught.value.problems)


@pytest.mark.parametrize("path", ["agents.yaml", "prompts/support.md", "graphs/calc.py"])
async def test_bytes_that_are_no_text(project: Write, path: str) -> None:
    folder = project(PROJECT)
    async with serving(folder) as manager:
        (folder / path).write_bytes(b"# \xff\xfe\x00 nonsense\n")
        problems = await rejected_with_any(manager)
        assert path in {problem.path for problem in problems}


async def test_agents_yaml_deleted_is_a_bad_edit(project: Write) -> None:
    folder = project(PROJECT)
    async with serving(folder) as manager:
        os.unlink(folder / "agents.yaml")
        problems = await rejected_with_any(manager)
        assert problems
        assert all(problem.severity == "error" for problem in problems[:1])


async def test_the_folder_deleted(project: Write, tmp_path: Path) -> None:
    folder = project(PROJECT)
    async with serving(folder, database=f"sqlite:///{tmp_path}/state/c.db") as manager:
        folder.rename(tmp_path / "away")
        with pytest.raises((OperatorError, ProjectError)):
            await manager.build()
        assert (await manager.report())["folder"]["differs"] is True


async def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(OperatorError) as caught:
        await GraphVersionManager.open(tmp_path / "nowhere").start()
    assert caught.value.code == "no-project"


async def test_all_problems_are_told_at_once_and_every_rejected_version_is_kept(project: Write) -> None:
    async with serving(project(PROJECT)) as manager:
        project({"agents.yaml": "agents:\n  a: {model: x, tools: [y]}\n  b: {model: 'demo:rules', prompt: z}\n"})
        with pytest.raises(ProjectError) as caught:
            await manager.build()
        assert {problem.code for problem in caught.value.problems} >= {
            "unknown-model",
            "unknown-tool",
            "unknown-prompt",
        }
        project({"agents.yaml": "agents: ["})
        with pytest.raises(ProjectError):
            await manager.build()
        found = await manager.versions(status="rejected")
        assert [version.id for version in found] == ["v3", "v2"]
        assert all(version.problems for version in found)
        kept = await manager.store.versions.files("v3")
        assert kept["agents.yaml"] == b"agents: ["


@pytest.mark.parametrize("name", ["v99", "", "../v1", "current"])
async def test_a_switch_to_an_unknown_version(project: Write, name: str) -> None:
    async with serving(project(PROJECT)) as manager:
        with pytest.raises(NotFound) as caught:
            await manager.switch(name)
        assert caught.value.code == "unknown-version"
        with pytest.raises(NotFound):
            await manager.holders(name)


async def test_the_same_bad_bytes_are_the_same_rejected_version_and_ready_once_they_pass(
    project: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a build depends on outside the folder may come later."""
    async with serving(project(PROJECT)) as manager:
        project({"graphs/calc.py": "import os\nos.environ['DESK_READY']\n" + ADD})
        for _ in range(2):
            await rejected_with_any(manager)
        assert [version.id for version in await manager.versions(status="rejected")] == ["v2"]
        monkeypatch.setenv("DESK_READY", "1")
        version = await manager.build()
        assert (version.id, version.status, version.problems) == ("v2", "ready", ())


async def test_tracebacks_of_a_version_that_cannot_be_rebuilt_name_its_problems(
    project: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stored version needs a variable that is gone: the run is refused, its thread is as it was."""
    monkeypatch.setenv("DESK_READY", "1")
    agents = PROJECT["agents.yaml"].replace("rules: []", 'rules: [], latency: "${DESK_LATENCY}"')
    monkeypatch.setenv("DESK_LATENCY", "0s")
    folder = project(PROJECT | {"agents.yaml": agents})
    async with GraphVersionManager.open(folder) as manager:
        await manager.switch(await manager.build())
        await manager.invoke("support", {"messages": [("user", "hello")]}, thread_id="t")
    monkeypatch.delenv("DESK_LATENCY")
    async with GraphVersionManager.open(folder) as manager:
        with pytest.raises(Conflict) as caught:
            await manager.invoke("support", {"messages": [("user", "hello")]}, thread_id="t")
        assert caught.value.code == "cannot-rebuild"
        assert caught.value.extra["problems"][0]["code"] == "env-missing"
        thread = await manager.store.runs.thread("t")
        assert (thread.status, thread.waiting) == ("idle", None)


@pytest.mark.parametrize("leaving", ["sys.exit(3)", "raise KeyboardInterrupt", "raise GeneratorExit"])
async def test_a_graph_that_ends_the_process_while_it_is_built(project: Write, leaving: str) -> None:
    async with serving(project(PROJECT)) as manager:
        project({"graphs/made.py": f"import sys\ndef graph(ctx):\n    {leaving}\n"})
        (problem,) = await rejected(manager, "build")
        assert (problem.path, problem.line) == ("graphs/made.py", 3)
