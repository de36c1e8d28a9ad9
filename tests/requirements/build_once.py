"""A process that builds a folder with what it requires installed: `build_once.py FOLDER DATABASE`."""

from __future__ import annotations

import asyncio
import sys

from changeover import GraphVersionManager


async def main(folder: str, database: str) -> None:
    async with GraphVersionManager.open(folder, database, requirements="install") as manager:
        version = await manager.build()
        print((await manager.invoke("desk", {}, version=version.id))["said"], flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
