"""What every test may use: the sample project, and projects written on the spot."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import shutil
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from js_support import javascript  # noqa: F401 - a fixture
from postgres_support import new_postgres_url, own_postgres, postgres_server, postgres_url  # noqa: F401 - fixtures
from serving import serving  # noqa: F401 - a fixture

REPOSITORY = Path(__file__).resolve().parents[1]
SAMPLE = ("agents.yaml", "tools.yaml", "prompts", "graphs")

DEADLINE_S = 10.0
POLL_S = 0.005

WriteProject = Callable[[Mapping[str, str]], Path]
AsNobody = Callable[[], AbstractContextManager[None]]
NOBODY = 65534


def pytest_collection_finish() -> None:
    """Everything that is imported by now stays: without looking at it again and again, tests take a seventh less."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A copy of the help desk that a test may edit."""
    folder = tmp_path / "sample"
    folder.mkdir()
    for name in SAMPLE:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> WriteProject:
    """Writes `{path: text}` into one folder and returns it; called again, it edits that folder."""

    def write(files: Mapping[str, str]) -> Path:
        folder = tmp_path / "project"
        folder.mkdir(exist_ok=True)
        for path, text in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(textwrap.dedent(text), encoding="utf-8")
        return folder

    return write


async def _eventually(condition: Callable[[], Any], within_s: float = DEADLINE_S) -> Any:
    ends = time.monotonic() + within_s
    while True:
        found = condition()
        found = await found if inspect.isawaitable(found) else found
        if found:
            return found
        assert time.monotonic() < ends, f"not within {within_s:g} s"
        await asyncio.sleep(POLL_S)


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Waits until a condition, plain or async, gives something true, and returns that; fails after a deadline."""
    return _eventually


@pytest.fixture
def as_nobody() -> AsNobody:
    """A time without the rights of root, who may read and write everything."""

    @contextmanager
    def drop() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)

    return drop


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that every user of the machine may enter."""
    with tempfile.TemporaryDirectory(prefix="changeover-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o700)
