"""The folder is followed: a save serves, a bad one does not, and what was decided by hand stays decided."""

from __future__ import annotations

import asyncio
import os
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from changeover import GraphVersionManager
from changeover.errors import NotFound, ProjectError
from changeover.rollout.watch import DEFAULT_MAX_WAIT_S
from changeover.store.records.version import Version

Eventually = Callable[..., Awaitable[Any]]
Write = Callable[[Mapping[str, str]], Path]

AGENTS = """
models: {demo: {model: "demo:rules", params: {rules: []}}}
agents:
  support: {model: demo, prompt: support}
"""
QUIET_S = 0.1
PROJECT = {"agents.yaml": AGENTS, "prompts/support.md": "You are number 1.\n"}


@pytest.fixture
def project(tmp_path: Path) -> Write:
    """Saves files as editors do, each by a rename, so that no half of one is ever seen."""

    def write(files: Mapping[str, str]) -> Path:
        folder = tmp_path / "project"
        for path, text in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.swp")
            partial.write_text(textwrap.dedent(text))
            partial.rename(target)
        return folder

    return write


@pytest.fixture
def folder(project: Write) -> Path:
    return project(PROJECT)


@asynccontextmanager
async def served(folder: Path, policy: str | None = None, **settings: Any) -> AsyncIterator[GraphVersionManager]:
    """As a server does: what is current serves, then the folder is followed."""
    async with GraphVersionManager.open(folder, **{"watch_quiet_s": QUIET_S, **settings}) as manager:
        await manager.serve_folder()
        await manager.watch(policy)
        yield manager


async def says(manager: GraphVersionManager, agent: str = "support", thread: str | None = None) -> str:
    answer = await manager.invoke(agent, {"messages": [("user", "hello")]}, thread_id=thread)
    return str(answer["messages"][-1].text)


async def events(manager: GraphVersionManager, kind: str) -> list[Mapping[str, Any]]:
    return [event.data for event in await manager.store.journal.events(limit=100_000) if event.type == kind]


async def known(manager: GraphVersionManager, status: str | None = None) -> list[Version]:
    return await manager.versions(status=status)


def prompt(number: int | str) -> dict[str, str]:
    return {"prompts/support.md": f"You are number {number}.\n"}


async def test_a_save_is_served(folder: Path, project: Write, eventually: Eventually) -> None:
    async with served(folder) as manager:
        assert "number 1" in await says(manager)
        project(prompt(2))
        await eventually(lambda: manager.routing.current == "v2")
        assert "number 2" in await says(manager)
        head = (await manager.history())[0]
        assert (head.actor, head.reason) == ("watcher", "saved")


async def test_a_bad_edit_is_rejected_and_its_fix_is_served(
    folder: Path, project: Write, eventually: Eventually
) -> None:
    async with served(folder) as manager:
        project({"agents.yaml": AGENTS + "  billing: {model: demo, prompt: nowhere}\n"})
        (rejected,) = await eventually(lambda: known(manager, "rejected"))
        assert [problem["code"] for problem in rejected.problems] == ["unknown-prompt"]
        assert (await manager.report())["folder"]["problems"] == list(rejected.problems)
        assert [event["version"] for event in await events(manager, "version_rejected")] == [rejected.id]
        assert "number 1" in await says(manager)
        project({"prompts/nowhere.md": "You bill.\n"})
        await eventually(lambda: manager.routing.current not in ("v1", rejected.id))
        assert "You bill." in await says(manager, "billing")


async def test_going_back_from_a_bad_edit_needs_no_new_version(
    folder: Path, project: Write, eventually: Eventually
) -> None:
    async with served(folder) as manager:
        project({"agents.yaml": "agents: {"})
        await eventually(lambda: known(manager, "rejected"))
        project({"agents.yaml": AGENTS})
        await eventually(lambda: _is_seen(manager, "v1"))
        assert [version.id for version in await known(manager)] == ["v2", "v1"]
        assert len(await manager.history()) == 1


async def _is_seen(manager: GraphVersionManager, id_: str) -> bool:
    return await manager.store.journal.note("folder-digest") == (await manager.version(id_)).digest


async def test_five_hundred_saves_make_at_most_two_builds_and_the_last_bytes_win(
    folder: Path, eventually: Eventually
) -> None:
    """One more for each pause between them, and for each two seconds without one, that a busy machine makes of it."""
    file = folder / "prompts/support.md"
    saved_at: list[float] = []

    def save() -> None:
        for number in range(2, 502):
            partial = file.with_suffix(".tmp~")
            partial.write_text(f"You are number {number}.\n")
            partial.rename(file)
            saved_at.append(time.monotonic())
            time.sleep(0.001)

    async with served(folder, watch_quiet_s=None) as manager:  # the default
        await asyncio.to_thread(save)
        await eventually(lambda: _last_wins(manager, "number 501"))
        pauses = sum(later - sooner > manager.settings.watch_quiet_s / 2 for sooner, later in pairwise(saved_at))
        at_most = 3 + pauses + int((saved_at[-1] - saved_at[0]) / DEFAULT_MAX_WAIT_S)
        assert len(await known(manager)) <= at_most
        assert len(await manager.history()) <= at_most


async def _last_wins(manager: GraphVersionManager, wanted: str) -> bool:
    return wanted in await says(manager)


async def test_staged_edits_are_built_and_wait(folder: Path, project: Write, eventually: Eventually) -> None:
    async with served(folder, "stage") as manager:
        project(prompt(2))
        (staged,) = await eventually(lambda: known(manager, "ready"))
        assert "number 1" in await says(manager)
        await manager.switch(staged)
        assert "number 2" in await says(manager)


async def test_watching_can_be_off(folder: Path, project: Write) -> None:
    async with served(folder, watch_auto="off") as manager:
        assert not manager.watching
        project(prompt(2))
        assert (await manager.report())["folder"]["differs"] is True
        assert "number 1" in await says(manager)


async def test_a_checkout_of_many_files_is_one_edit(folder: Path, project: Write, eventually: Eventually) -> None:
    def files(number: int) -> dict[str, str]:
        agents = "".join(f"  a{n}: {{model: demo, prompt: p{n}}}\n" for n in range(60))
        return {"agents.yaml": AGENTS + agents} | {f"prompts/p{n}.md": f"Branch {number}, {n}.\n" for n in range(60)}

    project(files(1))
    async with served(folder) as manager:
        await asyncio.to_thread(project, files(2))
        await eventually(lambda: manager.routing.current != "v1")
        assert "Branch 2, 0." in await says(manager, "a0")
        await eventually(lambda: _branch(manager, "a59", "Branch 2, 59."))
        assert len(await known(manager)) <= 3


async def _branch(manager: GraphVersionManager, agent: str, wanted: str) -> bool:
    return wanted in await says(manager, agent)


async def test_a_swapped_link_is_one_edit(tmp_path: Path, eventually: Eventually) -> None:
    """As Kubernetes mounts a ConfigMap: files are links into `..data`, a link that is swapped by rename."""
    folder = tmp_path / "mounted"

    def make(name: str, number: int) -> None:
        for path, text in (PROJECT | prompt(number)).items():
            target = folder / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)

    make("..one", 1)
    (folder / "..data").symlink_to("..one")
    for name in ("agents.yaml", "prompts"):
        (folder / name).symlink_to(f"..data/{name}")
    async with served(folder, database=f"sqlite:///{tmp_path}/state.db") as manager:
        assert "number 1" in await says(manager)
        make("..two", 2)
        (folder / "..tmp").symlink_to("..two")
        os.rename(folder / "..tmp", folder / "..data")
        await eventually(lambda: manager.routing.current == "v2")
        assert "number 2" in await says(manager)


async def test_an_added_agent_is_served_and_a_removed_one_only_finishes(
    folder: Path, project: Write, eventually: Eventually
) -> None:
    async with served(folder) as manager:
        project({"agents.yaml": AGENTS + "  extra: {model: demo, prompt: support}\n"})
        await eventually(lambda: manager.routing.current == "v2")
        await says(manager, "extra", "t")
        project({"agents.yaml": AGENTS})
        await eventually(lambda: manager.routing.current == "v1")
        with pytest.raises(NotFound):
            await says(manager, "extra")
        with pytest.raises(NotFound):
            await says(manager, "extra", "new")
        assert "number 1" in await says(manager, "extra", "t")
        assert (await manager.store.runs.thread("t")).version == "v2"


async def test_going_back_to_an_earlier_text_serves_the_earlier_version(
    folder: Path, project: Write, eventually: Eventually
) -> None:
    async with served(folder) as manager:
        project(prompt(2))
        await eventually(lambda: manager.routing.current == "v2")
        project(prompt(1))
        await eventually(lambda: manager.routing.current == "v1")
        assert len(await known(manager)) == 2


async def test_what_was_rolled_back_is_not_brought_back_by_saving_or_restarting(
    folder: Path, project: Write, eventually: Eventually
) -> None:
    async with served(folder) as manager:
        project(prompt(2))
        await eventually(lambda: manager.routing.current == "v2")
        await manager.rollback()
        (folder / "prompts/support.md").touch()
        project(prompt(1))
        await eventually(lambda: _is_seen(manager, "v1"))
        project(prompt(2))
        await eventually(lambda: _is_seen(manager, "v2"))
        assert manager.routing.current == "v1"
    async with served(folder) as manager:
        await settled_without_change(manager)
        assert manager.routing.current == "v1"
        project(prompt(3))
        await eventually(lambda: manager.routing.current == "v3")


async def settled_without_change(manager: GraphVersionManager) -> None:
    """What the watcher looks at when it starts is done once the build lock is free after it."""
    assert await manager.folder.build_if_changed() is None


async def test_a_graph_that_was_rolled_back_alone_stays_so_until_an_edit_changes_it(
    folder: Path, project: Write, eventually: Eventually
) -> None:
    agents = AGENTS + "  billing: {model: demo, prompt: billing}\n"
    project({"agents.yaml": agents, "prompts/billing.md": "Bill 1.\n"})
    async with served(folder) as manager:
        project({**prompt(2), "prompts/billing.md": "Bill 2.\n"})
        await eventually(lambda: _branch(manager, "billing", "Bill 2."))
        await eventually(lambda: _last_wins(manager, "number 2"))
        await manager.rollback(graphs=["billing"])
        assert "Bill 1." in await says(manager, "billing")
        project(prompt(3))
        await eventually(lambda: _last_wins(manager, "number 3"))
        assert "Bill 1." in await says(manager, "billing")
        project({"prompts/billing.md": "Bill 3.\n"})
        await eventually(lambda: _branch(manager, "billing", "Bill 3."))
        assert dict(manager.routing.graphs) == {}


async def test_a_restart_with_a_changed_folder_counts_as_a_save(
    folder: Path, project: Write, eventually: Eventually
) -> None:
    async with served(folder):
        pass
    project(prompt(2))
    async with served(folder) as manager:
        await eventually(lambda: manager.routing.current == "v2")


async def test_a_restart_with_the_same_folder_leaves_a_switch_by_hand_alone(
    folder: Path, project: Write, eventually: Eventually
) -> None:
    async with served(folder) as manager:
        project(prompt(2))
        await eventually(lambda: manager.routing.current == "v2")
        await eventually(lambda: _is_seen(manager, "v2"))
        await manager.switch("v1", reason="by hand")
        other = await manager.build("from elsewhere", files=prompt(7))  # not what the folder holds
        await manager.switch(other)
    async with served(folder) as manager:
        await settled_without_change(manager)
        assert manager.routing.current == other.id
        assert "number 7" in await says(manager)


async def test_a_restart_with_a_broken_folder_serves_what_was_current(folder: Path, project: Write) -> None:
    async with served(folder):
        pass
    project({"agents.yaml": "agents: {"})
    async with served(folder) as manager:
        assert "number 1" in await says(manager)


# --- the environment --------------------------------------------------------------------------


async def test_a_value_in_env_takes_effect_without_a_new_version(
    folder: Path, project: Write, eventually: Eventually
) -> None:
    project(
        {
            "agents.yaml": """
            models:
              one: {model: "demo:rules", params: {rules: []}}
              other: {model: "demo:rules", params: {rules: [], chunk: "${DESK_CHUNK:-1}"}}
            agents:
              support: {model: "${DESK_MODEL:-one}", prompt: support}
              other: {model: other, prompt: support}
            """,
            ".env": "DESK_CHUNK=1\n",
        }
    )

    async def pieces(manager: GraphVersionManager) -> int:
        stream = manager.stream("other", {"messages": [("user", "hello")]}, stream_mode="messages")
        return len([part async for part in stream])

    async with served(folder) as manager:
        before = await pieces(manager)
        project({".env": "DESK_CHUNK=1000\n"})
        await eventually(lambda: events(manager, "environment_changed"))
        assert await pieces(manager) < before
        (changed,) = await events(manager, "environment_changed")
        assert changed["variables"] == ["DESK_CHUNK"]
        assert "1000" not in str(changed)
        assert len(await known(manager)) == 1
        assert len(await manager.history()) == 1


async def test_a_variable_that_was_missing_makes_the_rejected_edit_ready(
    folder: Path, project: Write, eventually: Eventually
) -> None:
    needs = AGENTS.replace("rules: []", 'rules: [], latency: "${DESK_LATENCY}"')
    async with served(folder) as manager:
        project({"agents.yaml": needs, "prompts/support.md": "You are number 2.\n"})
        (rejected,) = await eventually(lambda: known(manager, "rejected"))
        assert [problem["code"] for problem in rejected.problems] == ["env-missing"]
        assert "number 1" in await says(manager)
        project({".env": "DESK_LATENCY=0s\n"})
        await eventually(lambda: manager.routing.current == rejected.id)
        assert "number 2" in await says(manager)
        assert len(await known(manager)) == 2


async def test_a_variable_that_goes_missing_leaves_what_serves_as_it_was(
    folder: Path, project: Write, eventually: Eventually
) -> None:
    needs = AGENTS.replace("rules: []", 'rules: [], latency: "${DESK_LATENCY}"')
    project({"agents.yaml": needs, ".env": "DESK_LATENCY=0s\n"})
    async with served(folder) as manager:
        project({".env": "OTHER=1\n"})
        (event,) = await eventually(lambda: events(manager, "environment_rejected"))
        assert event["problems"][0]["code"] == "env-missing"
        assert "number 1" in await says(manager)


async def test_build_takes_a_changed_env_without_a_watcher(folder: Path, project: Write) -> None:
    project({"agents.yaml": AGENTS.replace("rules: []", 'rules: [], latency: "${DESK_LATENCY}"')})
    async with GraphVersionManager.open(folder) as manager:
        with pytest.raises(ProjectError):
            await manager.build()
        project({".env": "DESK_LATENCY=0s\n"})
        assert (await manager.build()).status == "ready"


async def test_settings_of_a_model_are_an_edit_like_any_other(
    folder: Path, project: Write, eventually: Eventually
) -> None:
    async with served(folder) as manager:
        project({"agents.yaml": AGENTS.replace("rules: []", "rules: [], chunk: 1")})
        await eventually(lambda: manager.routing.current == "v2")
        stream = manager.stream("support", {"messages": [("user", "hello")]}, stream_mode="messages")
        assert len([part async for part in stream]) > 20


async def test_closing_leaves_no_thread_and_no_task(folder: Path) -> None:
    before = set(threading.enumerate())
    async with served(folder):
        pass
    left = {thread for thread in threading.enumerate() if thread not in before}
    assert [thread.name for thread in left if not thread.name.startswith("asyncio_")] == []
    assert asyncio.all_tasks() == {asyncio.current_task()}
