"""What requirements.txt asks for is installed for its version, and a process has one release of a package."""

from __future__ import annotations

import importlib.metadata
import site
import sys
from pathlib import Path
from typing import Any

import pytest
from wheels import Shelf, desk, lazy

from changeover import GraphVersionManager
from changeover.errors import Conflict, ProjectError

INSTALL: dict[str, Any] = {"requirements": "install"}


def _site_packages() -> list[str]:
    return sorted(str(path) for folder in site.getsitepackages() for path in Path(folder).iterdir())


def _environments(folder: Path) -> list[Path]:
    return sorted(mark.parent for mark in (folder / ".changeover/environments").glob("*/changeover-environment.json"))


async def _said(manager: GraphVersionManager, version: Any = None) -> Any:
    return (await manager.invoke("desk", {}, version=version))["said"]


async def test_a_node_imports_what_was_installed_and_the_server_stays_as_it_was(shelf: Shelf, project: Any) -> None:
    shelf.add("inst_top", "1.2", requires=["inst_below>=1", "pydantic>=2"])
    shelf.add("inst_below", "1.0")
    folder = project(desk(lazy("inst_top", "inst_below"), "inst-top>=1  # what speaks\n"))
    before = _site_packages()
    async with GraphVersionManager.open(folder, **INSTALL) as manager:
        await manager.serve_folder()
        assert await _said(manager) == "1.2 1.0"
    assert _site_packages() == before
    (environment,) = _environments(folder)
    assert not list(environment.glob("pydantic*"))
    assert not [entry for entry in environment.parent.iterdir() if "partial" in entry.name]


async def test_an_environment_serves_every_version_that_asks_for_the_same(shelf: Shelf, project: Any) -> None:
    wheel = shelf.add("inst_once", "1.0")
    folder = project(desk(lazy("inst_once"), "inst_once==1.0\n"))
    async with GraphVersionManager.open(folder, **INSTALL) as manager:
        await manager.serve_folder()
    wheel.unlink()
    project({"graphs/code.py": lazy("inst_once") + "# edited\n", "requirements.txt": "# the same\nInst.Once == 1.0\n"})
    async with GraphVersionManager.open(folder, **INSTALL) as manager:
        assert await _said(manager, "v1") == "1.0"  # rebuilt after a restart
        version = await manager.build()
        assert await _said(manager, version.id) == "1.0"
    assert len(_environments(folder)) == 1


async def test_an_environment_that_is_gone_is_made_again(shelf: Shelf, project: Any) -> None:
    import shutil

    shelf.add("inst_again", "1.0")
    folder = project(desk(lazy("inst_again"), "inst_again\n"))
    async with GraphVersionManager.open(folder, **INSTALL) as manager:
        await manager.serve_folder()
    shutil.rmtree(folder / ".changeover/environments")
    async with GraphVersionManager.open(folder, **INSTALL) as manager:
        await manager.serve_folder()
        assert await _said(manager) == "1.0"


async def test_a_second_release_is_refused_and_the_first_goes_on_importing(shelf: Shelf, project: Any) -> None:
    package = {"inst_two/__init__.py": "RELEASE = '{0}'\n", "inst_two/late.py": "RELEASE = '{0} late'\n"}
    for release in ("1.0", "2.0"):
        shelf.add("inst_two", release, {path: text.format(release) for path, text in package.items()})
        shelf.add("inst_over", release, requires=[f"inst_two=={release}"])
    folder = project(desk(lazy("inst_two"), "inst_two==1.0\n"))
    async with GraphVersionManager.open(folder, **INSTALL) as manager:
        await manager.serve_folder()
        path = list(sys.path)
        project({"requirements.txt": "pydantic\n  inst_over==2.0\n", "graphs/code.py": lazy("inst_two.late")})
        with pytest.raises(ProjectError) as refused:
            await manager.build()
        (problem,) = refused.value.problems
        assert (problem.code, problem.path, problem.line, problem.column) == (
            "requirement-conflict",
            "requirements.txt",
            2,
            3,
        )
        assert "inst-two 2.0" in problem.message
        assert "v1 in this process has inst-two 1.0" in problem.message
        assert "process of its own" in problem.hint
        assert sys.path == path
        assert await _said(manager) == "1.0"
        assert importlib.metadata.version("inst_two") == "1.0"
        project({"requirements.txt": "inst_two==1.0\n"})
        version = await manager.build()
        assert await _said(manager, version.id) == "1.0 late"
    # as the hint says: a process that does not serve the first builds the second
    for name in [name for name in sys.modules if name.startswith("inst_two")]:
        del sys.modules[name]
    sys.path[:] = [entry for entry in sys.path if str(folder) not in entry]
    project({"requirements.txt": "inst_over==2.0\n"})
    async with GraphVersionManager.open(folder, **INSTALL) as manager:
        await manager.switch(await manager.build())
        assert await _said(manager) == "2.0 late"


async def test_two_environments_may_have_one_release_and_share_a_namespace(shelf: Shelf, project: Any) -> None:
    shelf.add("inst_shared", "1.0")
    shelf.add("inst_shared", "1.1")
    shelf.add("inst_one", "1.0", {"inst_names/one.py": "RELEASE = 'one'\n"}, ["inst_shared"])
    shelf.add("inst_other", "1.0", {"inst_names/other.py": "RELEASE = 'other'\n"}, ["inst_shared"])
    newest = shelf.wheels / "inst_shared-1.1-py3-none-any.whl"
    kept = newest.read_bytes()
    newest.unlink()
    folder = project(desk(lazy("inst_names.one", "inst_shared"), "inst_one\n"))
    async with GraphVersionManager.open(folder, **INSTALL) as manager:
        first = await manager.serve_folder()
        assert await _said(manager) == "one 1.0"
        newest.write_bytes(kept)  # a release came out; what the process has is preferred
        project({"requirements.txt": "inst_other\n", "graphs/code.py": lazy("inst_names.other", "inst_shared")})
        second = await manager.build()
        assert await _said(manager, second.id) == "other 1.0"
        assert await _said(manager, first.id) == "one 1.0"
    assert len(_environments(folder)) == 2


async def test_an_environment_nobody_imported_from_leaves_the_path_with_its_last_version(
    shelf: Shelf, project: Any
) -> None:
    for release in ("1.0", "2.0"):
        shelf.add("inst_leaves", release)
    folder = project(desk(lazy("inst_leaves"), "inst_leaves==1.0\n"))
    async with GraphVersionManager.open(folder, **INSTALL) as manager:
        first = await manager.build()
        assert manager.loader.unload(first.id)
        assert str(folder) not in " ".join(sys.path)
        project({"requirements.txt": "inst_leaves==2.0\n"})
        second = await manager.build()
        assert await _said(manager, second.id) == "2.0"
        assert manager.loader.unload(second.id)
        assert str(folder) in " ".join(sys.path)  # imported from: it stays
        project({"requirements.txt": "inst_leaves==1.0\n"})
        with pytest.raises(Conflict) as refused:
            await _said(manager, first.id)
    (problem,) = refused.value.extra["problems"]
    assert "what was imported before in this process has inst-leaves 2.0" in problem["message"]


async def test_what_contradicts_the_server_is_refused_before_anything_is_installed(shelf: Shelf, project: Any) -> None:
    folder = project(desk(lazy("inst_any"), "inst_any\npydantic<2\n"))
    async with GraphVersionManager.open(folder, **INSTALL) as manager:
        with pytest.raises(ProjectError) as refused:
            await manager.build()
    (problem,) = refused.value.problems
    assert (problem.code, problem.line) == ("requirement-conflict", 2)
    assert f"which has pydantic {importlib.metadata.version('pydantic')}" in problem.message
    assert not shelf.cache.exists()


@pytest.mark.parametrize(
    ("requires", "said"),
    [
        (["pydantic<2"], f"(the server has pydantic {importlib.metadata.version('pydantic')}, which stays)"),
        (["inst_nowhere"], "inst-nowhere was not found"),
    ],
)
async def test_what_uv_cannot_solve_is_a_problem_at_its_line(
    shelf: Shelf, project: Any, requires: list[str], said: str
) -> None:
    shelf.add("inst_bad", "1.0", requires=requires)
    folder = project(desk(lazy("inst_bad"), "# first\ninst_bad\n"))
    async with GraphVersionManager.open(folder, **INSTALL) as manager:
        with pytest.raises(ProjectError) as refused:
            await manager.build()
    (problem,) = refused.value.problems
    assert (problem.code, problem.line, problem.column) == ("requirement-install", 2, 1)
    assert said in problem.message
    assert _environments(folder) == []


async def test_a_module_that_the_server_has_from_another_package_is_refused(shelf: Shelf, project: Any) -> None:
    shelf.add("inst_yaml_fork", "1.0", {"yaml/__init__.py": "", "tests/__init__.py": ""})
    folder = project(desk(lazy("yaml"), "inst_yaml_fork\n"))
    async with GraphVersionManager.open(folder, **INSTALL) as manager:
        with pytest.raises(ProjectError, match="inst-yaml-fork brings a module 'yaml', and the server has another"):
            await manager.build()


async def test_requirements_that_changed_compile_the_graphs_anew(shelf: Shelf, project: Any) -> None:
    shelf.add("inst_maybe", "1.0")
    code = "try:\n    import inst_maybe\n    HAS = 'it is there'\nexcept ImportError:\n    HAS = 'it is not'\n"
    folder = project(desk(code + "def speak(state):\n    return {'said': HAS}\n", "\n"))
    async with GraphVersionManager.open(folder, **INSTALL) as manager:
        first = await manager.serve_folder()
        project({"requirements.txt": "inst_maybe\n"})
        second = await manager.build()
        assert await _said(manager, second.id) == "it is there"
        assert await _said(manager, first.id) == "it is not"


async def test_a_pth_file_is_not_run_and_a_reference_may_lead_into_a_package(shelf: Shelf, project: Any) -> None:
    files = {
        "inst_inner/__init__.py": "",
        "inst_inner/steps.py": "def speak(state):\n    return {'said': 'theirs'}\n",
        "inst_pth.pth": "import sys; sys.inst_pth_was_run = True\n",
    }
    shelf.add("inst_named_otherwise", "1.0", files)
    folder = project(desk("", "inst_named_otherwise\n"))
    yaml = (folder / "graphs/desk.yaml").read_text("utf-8").replace("graphs.code:speak", "inst_inner.steps:speak")
    project({"graphs/desk.yaml": yaml})
    async with GraphVersionManager.open(folder, **INSTALL) as manager:
        await manager.serve_folder()
        assert await _said(manager) == "theirs"
    assert not hasattr(sys, "inst_pth_was_run")


async def test_packages_of_a_langgraph_project_are_installed_too(shelf: Shelf, project: Any) -> None:
    shelf.add("inst_listed", "1.0")
    shelf.add("inst_in_folder", "1.0")
    code = (
        "from langgraph.graph import StateGraph\nimport inst_listed, inst_in_folder\n"
        "def speak(state: dict) -> dict:\n    return {'said': inst_listed.RELEASE + inst_in_folder.RELEASE}\n"
        "graph = StateGraph(dict).add_node('speak', speak).set_entry_point('speak').set_finish_point('speak')\n"
    )
    folder = project(
        {
            "langgraph.json": '{"graphs": {"desk": "./app/agent.py:graph"}, "dependencies": ["./app", "inst_listed"]}',
            "app/agent.py": code,
            "app/pyproject.toml": "[project]\nname = 'app'\ndependencies = ['inst-in-folder>=1']\n",
        }
    )
    async with GraphVersionManager.open(folder, **INSTALL) as manager:
        version = await manager.serve_folder()
        assert version.problems == ()
        assert await _said(manager) == "1.01.0"


async def test_a_folder_that_takes_no_environment_is_said_at_the_line(shelf: Shelf, project: Any) -> None:
    shelf.add("inst_nowhere_to_go", "1.0")
    folder = project({**desk(lazy("inst_nowhere_to_go"), "inst_nowhere_to_go\n"), ".changeover/environments": "a file"})
    async with GraphVersionManager.open(folder, **INSTALL) as manager:
        with pytest.raises(ProjectError) as refused:
            await manager.build()
    (problem,) = refused.value.problems
    assert (problem.code, problem.line) == ("requirement-install", 1)
    assert "environments" in problem.message
