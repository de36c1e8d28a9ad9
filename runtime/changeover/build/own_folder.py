"""A folder of one process, for files that live as long as it does: the code of the versions that it has loaded.

Several processes may serve one project, and each drops versions at its own time. What a process that died left behind
is removed by the next that starts beside it.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

FOLDER = "processes"


class OwnFolder:
    """`<state>/processes/<pid>-<random>`, from its making to `close`. Blocking."""

    def __init__(self, state: Path) -> None:
        beside = state / FOLDER
        for other in beside.glob("*-*") if beside.is_dir() else ():
            if not _is_alive(other.name.partition("-")[0]):
                shutil.rmtree(other, ignore_errors=True)
        self.path = beside / f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self.path.mkdir(parents=True)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _is_alive(pid: str) -> bool:
    """What cannot be told counts as alive: a folder too many harms nobody."""
    if not pid.isascii() or not pid.isdigit():
        return True
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
