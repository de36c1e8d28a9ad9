"""Other processes of this machine: where their ids mean something, and whether they are alive."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def is_alive(pid: int) -> bool:
    """Whether there is a process of this id. What cannot be told counts as alive."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def host() -> str:
    """Where a process id means the same process: the host, since it started, and its space of process ids."""
    parts = [socket.gethostname()]
    for source in (Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")):
        try:
            parts.append(os.readlink(source) if source.is_symlink() else source.read_text().strip())
        except OSError:
            continue
    return " ".join(parts)
