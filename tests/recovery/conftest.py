"""Fixtures of servers that die."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from recovery_desks import Desk, Nursery, project_files

from changeover import GraphVersionManager
from postgres_support import create_database, drop_database

MakeDesk = Callable[..., Desk]


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    opened = Nursery()
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose graphs are built, so that a server of it is ready at once."""
    folder = tmp_path_factory.mktemp("recovery") / "template"
    for path, text in project_files().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    _build(folder)
    return folder


@pytest.fixture(scope="session")
def postgres_template(template: Path, postgres_server: str) -> Iterator[str]:
    """The address of a database in which the graphs of the template are built, to be copied."""
    url = create_database(postgres_server)
    _build(template, url)
    yield url
    drop_database(postgres_server, url)


def _build(folder: Path, database: str | None = None) -> None:
    async def build() -> None:
        async with GraphVersionManager.open(folder, database) as manager:
            await manager.serve_folder()

    os.environ["DESK_FOLDER"] = str(folder)
    try:
        asyncio.run(build())
    finally:
        del os.environ["DESK_FOLDER"]


@pytest.fixture
def make_desk(nursery: Nursery, template: Path, tmp_path: Path) -> Iterator[MakeDesk]:
    """Makes desks: each a copy of the project, with its state, in a folder of its own."""
    made: list[Desk] = []

    def make(name: str = "desk", database: str | None = None, work: Path | None = None) -> Desk:
        folder = tmp_path / name
        ignored = shutil.ignore_patterns(".changeover") if database else None
        shutil.copytree(template, folder, ignore=ignored)
        place = work or folder / "work"
        place.mkdir(exist_ok=True)
        made.append(Desk(nursery, folder, place, database))
        return made[-1]

    yield make
    for desk in made:
        desk.close()


@pytest.fixture
def desk(make_desk: MakeDesk) -> Desk:
    return make_desk()
