"""`changeover adopt` as it is typed: what it says, and the status it ends with."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from adopt_desks import DESK, FILES, plain, served, talk

from changeover import GraphVersionManager
from changeover.cli.app import run


@pytest.fixture
def type_(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Types a command, and returns its status and what it said to both."""
    for name in [name for name in os.environ if name.startswith("CHANGEOVER_")]:
        monkeypatch.delenv(name)

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["changeover", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        capsys.readouterr()
        status = run()
        return status, *capsys.readouterr()

    return command


@pytest.fixture
async def desk(project: Any, tmp_path: Path) -> tuple[str, str]:
    """A project, and a database with a conversation of plain LangGraph."""
    folder = project({**FILES, "langgraph.json": served(desk="./desk.py:graph")})
    where = f"sqlite:///{tmp_path / 'mine.db'}"
    async with plain(where, folder) as graph:
        await talk(graph, {"do": "ask"}, "t1")
    return str(folder), where


def test_it_says_what_it_did_and_what_to_do_next(type_: Any, desk: tuple[str, str]) -> None:
    shared = ("--project", desk[0], "--database", desk[1])
    status, out, err = type_("adopt", *shared, "--as", "v1", "--dry-run")
    assert (status, out.splitlines()[0]) == (0, "1 threads would be adopted as v1 (1 of desk)")
    assert "the folder was built as v1" in err
    status, out, err = type_("adopt", *shared, "--as", "v1")
    assert (status, out.splitlines()) == (0, ["1 threads adopted as v1 (1 of desk)", "of these wait: 1 (interrupt)"])
    assert "changeover serve" in err
    status, out, _ = type_("thread", "t1", *shared, "-o", "json")
    assert (status, json.loads(out)["version"]) == (0, "v1")
    status, out, _ = type_("adopt", *shared, "--as", "v1", "-o", "json")
    assert (status, json.loads(out)["adopted"]) == (0, 0)


def test_nothing_but_refused_threads_is_status_6(type_: Any, desk: tuple[str, str], project: Any) -> None:
    project({"desk.py": DESK.replace("log", "lines")})
    status, out, err = type_("adopt", "--project", desk[0], "--database", desk[1], "--as", "v1")
    assert status == 6
    assert "1 refused, and left as they are" in out
    assert "'log'" in out
    assert "a step of migration may drop them" in err


async def test_a_database_in_use_is_left_alone(type_: Any, desk: tuple[str, str]) -> None:
    async with GraphVersionManager.open(*desk):
        typed = ("adopt", "--project", desk[0], "--database", desk[1], "--as", "v1")
        status, _, err = await asyncio.to_thread(type_, *typed)
    assert status == 2
    assert "another changeover process uses" in err


def test_a_version_that_is_not_the_first_of_the_folder_is_not_found(type_: Any, desk: tuple[str, str]) -> None:
    status, _, err = type_("adopt", "--project", desk[0], "--database", desk[1], "--as", "v7")
    assert status == 4
    assert "adopt as v1" in err
