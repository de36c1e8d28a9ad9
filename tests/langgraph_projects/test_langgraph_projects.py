"""Projects written for LangGraph's server are served as they stand, and edited live like any other."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk import get_client
from langgraph_shapes import Shape, shapes

SHAPES = ["src layout", "several folders", "package names", "factory", "env as a file", "env as a mapping", "a store"]


@pytest.mark.parametrize("name", SHAPES)
async def test_a_run_keeps_its_version_while_the_project_is_edited(
    name: str, gate: Path, write: Any, serve_folder: Any, eventually: Callable[..., Any]
) -> None:
    shape: Shape = shapes(gate)[name]
    folder = write(shape.files)
    async with serve_folder(folder) as served:
        client = get_client(url=served.url)
        wait = lambda: client.runs.wait(None, "desk", input={"said": ""}, config=dict(shape.config))  # noqa: E731
        first = asyncio.create_task(wait())
        await eventually((gate / "begun").exists)
        write({shape.edited: shape.files[shape.edited].replace("one", "two")})
        await eventually(lambda: served.manager.routing.current == "v2")
        (gate / "open").touch()
        assert (await first)["said"] == shape.says.format(word="one")
        assert (await wait())["said"] == shape.says.format(word="two")


async def test_a_factory_is_called_for_every_access_and_closed_after_it(
    gate: Path, write: Any, serve_folder: Any
) -> None:
    (gate / "open").touch()
    async with serve_folder(write(shapes(gate)["factory"].files)) as served:
        client = get_client(url=served.url)
        thread = await client.threads.create()
        for tenant in ("acme", "bell"):
            config = {"configurable": {"tenant": tenant}}
            answer = await client.runs.wait(thread["thread_id"], "desk", input={"said": ""}, config=config)
            assert answer["said"] == f"one for {tenant}"
        await client.threads.get_state(thread["thread_id"])
        await client.threads.update_state(thread["thread_id"], {"said": "by hand"})
        assert (await client.threads.get_history(thread["thread_id"]))[0]["values"] == {"said": "by hand"}
        await client.assistants.get_graph("desk")
    accesses = (gate / "accesses").read_text().split()
    assert accesses[0] == "assistants.read"  # for the contract, when the version was built
    assert accesses.count("threads.create_run") == 2
    assert {"threads.read", "threads.update"} <= set(accesses)


@pytest.mark.parametrize("name", ["env as a file", "env as a mapping"])
async def test_a_changed_env_reaches_the_code_without_a_new_version(
    name: str, gate: Path, write: Any, serve_folder: Any, eventually: Callable[..., Any]
) -> None:
    (gate / "open").touch()
    shape = shapes(gate)[name]
    folder = write(shape.files)
    file = "config/desk.env" if name == "env as a file" else "langgraph.json"
    async with serve_folder(folder) as served:
        client = get_client(url=served.url)
        say = lambda: client.runs.wait(None, "desk", input={"said": ""})  # noqa: E731
        assert "kind" in (await say())["said"]
        write({file: shape.files[file].replace("kind", "stern")})

        async def is_stern() -> bool:
            return "stern" in (await say())["said"]

        await eventually(is_stern)
        assert [version.id for version in await served.manager.versions()] == ["v1"]
        kept = await served.manager.store.versions.files("v1")
        assert not any(b"kind" in text or b"stern" in text for text in kept.values())
    assert "DESK_TONE" not in os.environ


async def test_what_the_operator_set_comes_before_the_env_of_the_file(
    gate: Path, write: Any, serve_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gate / "open").touch()
    monkeypatch.setenv("DESK_TONE", "the operator's")
    async with serve_folder(write(shapes(gate)["env as a mapping"].files)) as served:
        answer = await get_client(url=served.url).runs.wait(None, "desk", input={"said": ""})
        assert answer["said"] == "one, the operator's3"
    assert os.environ["DESK_TONE"] == "the operator's"
