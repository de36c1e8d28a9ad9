"""A folder with a langgraph.json, and a real server that serves it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from changeover import GraphVersionManager
from changeover.server.serve import serve

DEADLINE_S = 30.0

Write = Callable[[Mapping[str, str]], Path]


@dataclass
class Served:
    """A server on a free port of a real socket; `said` is what it printed."""

    url: str
    manager: GraphVersionManager
    said: list[str] = field(default_factory=list)


ServeFolder = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    folder = tmp_path / "gate"
    folder.mkdir()
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Saves files as editors do, each by a rename; called again, it edits the folder."""

    def save(files: Mapping[str, str]) -> Path:
        folder = tmp_path / "project"
        folder.mkdir(exist_ok=True)
        for path, text in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = target.with_name(f".{target.name}.swp")
            draft.write_text(text)
            draft.rename(target)
        return folder

    return save


@pytest.fixture
def serve_folder() -> ServeFolder:
    @asynccontextmanager
    async def start(folder: Path, **settings: Any) -> AsyncIterator[Served]:
        said: list[str] = []
        heard = asyncio.Event()
        stop = asyncio.Event()

        def announce(text: str) -> None:
            said.append(text)
            heard.set()

        manager = GraphVersionManager.open(folder, port=0, **settings)
        task = asyncio.create_task(serve(manager, announce, stop))
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not (urls := [text.rsplit(" at ", 1)[1] for text in said if " at http" in text]):
                    waiting = asyncio.create_task(heard.wait())
                    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
                    heard.clear()
                    waiting.cancel()
                    if task.done():
                        task.result()
                        raise AssertionError(f"the server ended at once: {said}")
            assert manager.routing is not None, said
            yield Served(urls[0], manager, said)
        finally:
            stop.set()
            await asyncio.gather(task, return_exceptions=True)

    return start
