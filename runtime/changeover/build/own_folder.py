"""A folder of one process, for files that live as long as it does: the code of the versions that it has loaded.

Several processes may serve one project, and each drops versions at its own time. What a process that died left behind
is removed by the next that starts beside it.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from changeover.processes import is_alive

FOLDER = "processes"


class OwnFolder:
    """`<state>/processes/<pid>-<random>`, from its making to `close`. Blocking."""

    def __init__(self, state: Path) -> None:
        beside = state / FOLDER
        for other in beside.glob("*-*") if beside.is_dir() else ():
            if _is_dead(other.name.partition("-")[0]):
                shutil.rmtree(other, ignore_errors=True)
        self.path = beside / f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self.path.mkdir(parents=True)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _is_dead(pid: str) -> bool:
    return pid.isascii() and pid.isdigit() and not is_alive(int(pid))
