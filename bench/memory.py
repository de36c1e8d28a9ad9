"""What versions cost in memory, and what building and dropping them leaves behind.

1,000 versions known of which 50 are loaded, in a process of their own, so that nothing else is weighed. Each is an
edit of a prompt, a tool and a node of a small project: nothing is shared between any two of them.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from langgraph.graph.state import CompiledStateGraph

from bench import projects, servers
from bench.numbered import numbered
from bench.table import Row
from changeover import GraphVersionManager

KNOWN, LOADED = 1000, 50
WARM_UP = 20  # versions until caches of libraries have filled


@dataclass(frozen=True)
class Held:
    """What the process holds. Memory in KiB."""

    rss_kib: int
    modules: int
    threads: int
    handles: int
    tasks: int
    graphs: int
    objects: int

    @classmethod
    def now(cls) -> Held:
        gc.collect()
        objects = gc.get_objects()
        return cls(
            rss_kib=int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024,
            modules=sum(name.startswith("_changeover_") for name in sys.modules),
            threads=threading.active_count(),
            handles=len(os.listdir("/proc/self/fd")),
            tasks=len(asyncio.all_tasks()),
            graphs=sum(isinstance(found, CompiledStateGraph) for found in objects),
            objects=len(objects),
        )


async def measure(quick: bool) -> list[Row]:
    known = KNOWN // 10 if quick else KNOWN
    paths = os.pathsep.join([str(servers.ROOT / "runtime"), str(servers.ROOT)])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.memory", str(known)),
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
    )
    out, _ = await process.communicate()
    if process.returncode:
        raise AssertionError("the measured process failed")
    found = {name: Held(**values) for name, values in json.loads(out).items()}
    return rows(found, known)


def rows(found: dict[str, Held], known: int) -> list[Row]:
    start, loaded, all_known, dropped = (found[name] for name in ("start", "loaded", "known", "dropped"))
    per_loaded = (loaded.rss_kib - start.rss_kib) / LOADED
    per_known = (all_known.rss_kib - loaded.rss_kib) / (known - LOADED)
    numbers = {name: asdict(held) for name, held in found.items()}
    left = {
        name: getattr(dropped, name) - getattr(start, name)
        for name in ("modules", "threads", "handles", "tasks", "graphs")
    }
    return [
        Row("memory of a loaded version", f"{per_loaded:.0f} KiB", numbers=numbers),
        Row(f"memory of a known version that is not loaded ({known} known, {LOADED} loaded)", f"{per_known:.1f} KiB"),
        Row(
            f"left after {known} builds, all dropped",
            ", ".join(f"{count} {name}" for name, count in left.items()),
            compared=f"{dropped.rss_kib - start.rss_kib:+d} KiB, {dropped.objects - start.objects:+d} objects",
            target="nothing",
            met=all(count <= 0 for count in left.values()),
        ),
    ]


async def weigh(folder: Path, known: int) -> dict[str, Held]:
    """Build version after version, each compiled and made current; keep 50 loaded; at the end drop all but one."""
    async with GraphVersionManager.open(folder, keep_loaded=LOADED) as manager:

        async def build(number: int) -> None:
            projects.write(folder, numbered(number))
            version = await manager.build()
            await manager.switch(version)
            await manager.invoke("numbered", {"text": "hello"})

        async def drop_all() -> None:
            for version in list(manager.loader.loaded):
                manager.loader.unload(version.id)

        for number in range(WARM_UP):
            await build(number)
        await drop_all()
        found = {"start": Held.now()}
        for number in range(WARM_UP, known + WARM_UP):
            await build(number)
            if number == WARM_UP + LOADED - 1:
                found["loaded"] = Held.now()
        assert len(manager.loader.loaded) == LOADED
        found["known"] = Held.now()
        await drop_all()
        found["dropped"] = Held.now()
        return found


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = projects.write(Path(name) / "project", numbered(0))
        found = asyncio.run(weigh(folder, int(sys.argv[1])))
    json.dump({name: asdict(held) for name, held in found.items()}, sys.stdout)


if __name__ == "__main__":
    main()
