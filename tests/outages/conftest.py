"""Servers in processes of their own, whose database or disk fails them for a while."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recovery"))

from recovery_desks import GRAPHS, NOTES, Desk, Nursery

MakeDesk = Callable[..., Desk]


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    opened = Nursery()
    yield opened
    opened.close()


@pytest.fixture
def make_desk(nursery: Nursery, tmp_path: Path) -> Iterator[MakeDesk]:
    """Makes desks: each a project of the graphs `steps` and `talks` in a folder of its own."""
    made: list[Desk] = []

    def make(name: str = "desk", database: str | None = None, work: Path | None = None) -> Desk:
        folder = tmp_path / name
        (folder / "graphs").mkdir(parents=True)
        for graph in ("steps", "talks"):
            (folder / "graphs" / f"{graph}.py").write_text(NOTES + GRAPHS[graph])
        place = work or folder / "work"
        place.mkdir(exist_ok=True)
        made.append(Desk(nursery, folder, place, database))
        return made[-1]

    yield make
    for desk in made:
        desk.close()
        shutil.rmtree(desk.folder, ignore_errors=True)
