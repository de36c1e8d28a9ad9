"""A process that is killed has counted what it committed; whoever goes on with its run counts that run once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from usage_desks import READ, used
from usage_victim import graph

from changeover import GraphVersionManager

VICTIM = Path(__file__).with_name("usage_victim.py")
Eventually = Callable[..., Any]


def killed_in_a_run(folder: Path, database: str) -> None:
    with subprocess.Popen(
        [sys.executable, str(VICTIM), str(folder), database],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        text=True,
    ) as victim:
        assert victim.stdout is not None
        try:
            said = victim.stdout.readline()
        finally:
            victim.kill()
    assert said == "ready\n"


async def test_what_was_committed_stays_and_a_run_that_goes_on_counts_once(
    folder: Path, tmp_path: Path, eventually: Eventually
) -> None:
    database = f"sqlite:///{tmp_path}/usage.db"
    await asyncio.to_thread(killed_in_a_run, folder, database)

    async def runs() -> int:
        return int((await used(manager, "one"))["totals"]["runs"])

    async def has_ended() -> bool:
        return await runs() == 2

    async with GraphVersionManager.open(folder, database) as manager:
        before = (await used(manager, "one"))["totals"]
        assert (before["runs"], before["model_calls"], before["tokens_in"]) == (1, 2, 2 * READ)
        await manager.register("one", {"desk": graph(None)})
        await manager.work()
        await eventually(has_ended)
        after = (await used(manager, "one"))["totals"]
    # the second node ran again; the calls that died with the process were told to nobody
    assert (after["runs"], after["errors"], after["model_calls"], after["tokens_in"]) == (2, 0, 3, 3 * READ)
