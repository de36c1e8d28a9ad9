"""What `requirements: check` says is missing, and the lines of requirements.txt that are not taken."""

from __future__ import annotations

import importlib.metadata
import os
import time
from pathlib import Path
from typing import Any

import pytest
from wheels import Shelf, desk, lazy

from changeover import GraphVersionManager
from changeover.errors import ProjectError
from changeover.project.problems import Problem

SPEAK = "def speak(state):\n    return {'said': 'spoken'}\n"
PYDANTIC = importlib.metadata.version("pydantic")


async def _problems(folder: Path, **settings: Any) -> list[Problem]:
    async with GraphVersionManager.open(folder, **settings) as manager:
        with pytest.raises(ProjectError) as refused:
            await manager.build()
    return list(refused.value.problems)


async def test_what_is_missing_is_named_with_the_command_that_adds_it(project: Any) -> None:
    lines = [
        "# needs",
        f"pydantic=={PYDANTIC}",
        "  inst-absent[fast]>=2 ; python_version > '3'  # why",
        "never; os_name == 'x'",
        "pydantic<2",
    ]
    absent, other = await _problems(project(desk(SPEAK, "\n".join(lines))))
    assert (absent.code, absent.path, absent.line, absent.column) == ("requirement-missing", "requirements.txt", 3, 3)
    assert "pip install 'inst-absent[fast]>=2'" in absent.hint
    assert (other.code, other.line, other.column) == ("requirement-conflict", 5, 1)
    assert f"is installed as {PYDANTIC}" in other.message


async def test_a_version_is_built_where_requirements_are_off_or_there(project: Any) -> None:
    folder = project(desk(SPEAK, "inst_absent\n"))
    async with GraphVersionManager.open(folder, requirements="off") as manager:
        await manager.serve_folder()
    project({"changeover.yaml": "requirements: off\n"})
    async with GraphVersionManager.open(folder) as manager:
        await manager.build()
    project({"changeover.yaml": "", "requirements.txt": f"pydantic=={PYDANTIC}\n"})
    async with GraphVersionManager.open(folder) as manager:
        assert (await manager.build()).problems == ()


async def test_a_stored_version_goes_on_where_a_package_has_gone(project: Any) -> None:
    folder = project(desk(SPEAK, "inst_absent\n"))
    async with GraphVersionManager.open(folder, requirements="off") as manager:
        await manager.serve_folder()
    async with GraphVersionManager.open(folder) as manager:
        await manager.serve_folder()
        assert (await manager.invoke("desk", {}))["said"] == "spoken"


NOT_TAKEN = [
    ("-r more.txt", "requirement-option", "option '-r' is not taken"),
    ("--index-url https://packages.example/simple", "requirement-option", "option '--index-url' is not taken"),
    ("-e .", "requirement-option", "option '-e' is not taken"),
    ("./folder", "requirement-option", "a folder or an address is not taken"),
    ("inst @ https://packages.example/inst.whl", "requirement-option", "has an address"),
    ("inst == ", "requirement-syntax", "names no package"),
    ("inst==1.0 --hash=sha256:abc", "requirement-syntax", "not an algorithm and its whole digest"),
    ("inst==1.0 --global-option=x", "requirement-option", "only '--hash' is taken"),
    ("--extra-index-url https://me:s3cr3t@packages.example/", "secret-literal", "a password written out"),
]


async def test_each_line_that_is_not_taken_has_its_place(shelf: Shelf, project: Any) -> None:
    lines = "".join(f"pydantic\n  {line}  # a remark\n" for line, _, _ in NOT_TAKEN)
    found = await _problems(project(desk(SPEAK, lines)), requirements="install")
    places = [(problem.path, problem.line, problem.column) for problem in found]
    assert places == [("requirements.txt", 2 * number, 3) for number in range(1, len(NOT_TAKEN) + 1)]
    for problem, (_, code, said) in zip(found, NOT_TAKEN, strict=True):
        assert problem.code == code
        assert said in problem.message
        assert "s3cr3t" not in str(problem.to_json())
    assert not shelf.cache.exists()


async def test_old_environments_go_when_another_is_made_and_used_ones_stay(shelf: Shelf, project: Any) -> None:
    for name in ("inst_old", "inst_used", "inst_new"):
        shelf.add(name, "1.0")
    folder = project(desk(lazy("inst_old"), "inst_old\n"))
    environments = folder / ".changeover/environments"

    def marks() -> set[Path]:
        return set(environments.glob("*/changeover-environment.json"))

    async with GraphVersionManager.open(folder, requirements="install") as manager:
        await manager.build()
    (old,) = marks()
    (environments / "0123.45.partial").mkdir()
    project(desk(lazy("inst_used"), "inst_used\n"))
    async with GraphVersionManager.open(folder, requirements="install") as manager:
        await manager.build()
        (used,) = marks() - {old}
        long_ago = time.time() - 31 * 86400
        for path in (old, used, environments / "0123.45.partial"):
            os.utime(path, (long_ago, long_ago))
        project(desk(lazy("inst_new"), "inst_new\n"))
        async with GraphVersionManager.open(folder, "sqlite:///.changeover/other.db", requirements="install") as other:
            await other.build()
    assert not old.parent.exists()
    assert used in marks()
    assert len(marks()) == 2
    assert list(environments.glob("*.partial")) == []
