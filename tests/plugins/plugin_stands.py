"""A project with plugins, and what is live of it: real files, real imports, a real pool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

from changeover.build.modules import CodeTree, CodeTrees
from changeover.build.needs import needs_of
from changeover.build.parts import Parts
from changeover.build.plugins import plugins_of
from changeover.build.surroundings import Surroundings
from changeover.project.load import load
from changeover.project.prompts import Prompts
from changeover.resources.keeper import Keeper
from changeover.resources.models import ModelPool
from changeover.resources.need import Need
from changeover.resources.pool import ResourcePool, User
from changeover.resources.reconciling import Name

PLUGIN = """
plugins:
  kb: {class: graphs.kb:Kb, config: {path: data/kb}}
"""
QUICK = """
plugins:
  kb: {class: graphs.kb:Kb, deadline: 400ms, health: {every: 50ms, timeout: 400ms}}
"""


class Stand:
    """Versions, made one after the other, and the pool that they share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trees = CodeTrees(folder / "trees")
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.pool = ResourcePool(self._tell)
        self.uses: list[CodeTree] = []

    async def _tell(self, event: str, data: dict[str, Any]) -> None:
        self.told.append((event, data))

    def version(self, files: Mapping[str, str], env: Mapping[str, str] | None = None) -> Version:
        return Version(self, {path: dedent(text).encode() for path, text in files.items()}, env or {})

    async def open(self, files: Mapping[str, str], env: Mapping[str, str] | None = None) -> Version:
        """A version with all that it needs. Raises `ProjectError` where that does not open."""
        version = self.version(files, env)
        await version.open()
        return version

    async def close(self) -> None:
        await self.pool.close()
        for tree in self.uses:
            self.trees.release(tree)
        self.uses.clear()


class Version:
    def __init__(self, stand: Stand, files: Mapping[str, bytes], env: Mapping[str, str]) -> None:
        self._stand = stand
        self.user = User("v1")
        loaded = load(files)
        wrong = [each for each in loaded.problems if each.severity == "error" and each.code != "no-agents"]
        assert not [problem.render() for problem in wrong]
        self.project = loaded.project
        self.tree = stand.trees.acquire(files)
        stand.uses.append(self.tree)
        around = Surroundings(env, stand.folder, stand.pool.keys)
        self.needs: dict[Name, Need] = needs_of(self.project, around, self.tree, stand.trees)
        self.plugins = plugins_of(self.project, self.tree, self.needs, stand.pool.handle)
        prompts, models = Prompts(self.project.prompts), ModelPool(stand.pool.keys)
        self.parts = Parts(self.project, self.tree, env, prompts, models, plugins=self.plugins)

    async def open(self) -> None:
        try:
            await self._stand.pool.take(self.user, self.needs.values(), demand=True)
        except BaseException:
            self.let_go()
            raise

    def let_go(self) -> None:
        """Nothing uses the version any more."""
        self._stand.pool.give_back(self.user)
        self._stand.uses.remove(self.tree)
        self._stand.trees.release(self.tree)

    def keeper(self, name: str = "kb") -> Keeper:
        found = self._stand.pool.keeper(self.needs["plugin", name].key)
        assert found is not None
        return found

    def status(self, name: str = "kb") -> str:
        return self.keeper(name).status

    def details(self, name: str = "kb") -> dict[str, Any]:
        return self._stand.pool.one(f"plugin:{name}")["details"]

    def module(self, name: str = "graphs.kb") -> Any:
        """A module of the version, as its own code sees it."""
        return self.tree.import_module(name)
