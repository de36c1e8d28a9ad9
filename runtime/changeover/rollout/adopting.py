"""Takes over the threads that plain LangGraph wrote as threads of a version, which may be the first there is.

How each is checked and taken over: `migrations.adopting`.
"""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver

from changeover.build.loader import Loader
from changeover.errors import NotFound
from changeover.migrations.adopting import Adoption, Progress, adopt
from changeover.rollout.folder import ProjectFolder
from changeover.store.opening import Store


class Adopting:
    def __init__(self, store: Store, saver: BaseCheckpointSaver[Any], loader: Loader, folder: ProjectFolder) -> None:
        self._store = store
        self._saver = saver
        self._loader = loader
        self._folder = folder

    async def adopt(
        self, as_: str, graph: str | None, *, dry_run: bool = False, progress: Progress | None = None
    ) -> Adoption:
        """Every thread that has no row; those of one graph. If there is no version yet the folder is built."""
        found = await self._adopted_as(as_, dry_run)
        return await adopt(self._loader, self._store.database, self._saver, found, graph, progress)

    async def _adopted_as(self, id_: str, dry_run: bool) -> Adoption:
        if any(version.status != "rejected" for version in await self._store.versions.list()):
            return Adoption((await self._store.versions.get(id_)).id, dry_run)
        built = await self._folder.build("built to adopt threads")
        if built.id != id_:
            raise NotFound(
                f"there is no version '{id_[:255]}': the folder was built as {built.id}",
                code="unknown-version",
                hint=f"adopt as {built.id}",
            )
        return Adoption(built.id, dry_run, built=True)
