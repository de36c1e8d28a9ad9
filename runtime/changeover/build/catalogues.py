"""The agents and tools of each version, from what is stored of it: nothing is loaded or opened for them."""

from __future__ import annotations

import asyncio

from changeover.build.catalogue import Catalogue, Contracts, Json, of_code
from changeover.store.records.version import Version
from changeover.store.versions import Versions


class Catalogues:
    def __init__(self, versions: Versions) -> None:
        self._versions = versions

    async def agents(self, id_: str) -> list[Json]:
        return (await self._told(id_))[0]

    async def tools(self, id_: str) -> list[Json]:
        return (await self._told(id_))[1]

    async def _told(self, id_: str) -> tuple[list[Json], list[Json]]:
        version = await self._versions.get(id_)
        contracts = await self._contracts(version)
        if version.registered:
            return of_code({name: (of.description, of.threads) for name, of in version.graphs.items()}, contracts)
        files = await self._versions.files(version.id)

        def told() -> tuple[list[Json], list[Json]]:
            catalogue = Catalogue(files, contracts, renders=version.status != "rejected")
            return catalogue.agents(), catalogue.tools()

        return await asyncio.to_thread(told)

    async def _contracts(self, version: Version) -> Contracts:
        found = await self._versions.contracts({entry.digest for entry in version.graphs.values()})
        return {name: found[entry.digest][1] for name, entry in version.graphs.items() if entry.digest in found}
