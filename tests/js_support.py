"""JavaScript clients under node: `npm ci` once for all workers, then a script as a process that answers in JSON."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

FOLDER = Path(__file__).resolve().parent / "js"
INSTALL_TIMEOUT_S = 100.0
SCRIPT_TIMEOUT_S = 60.0

Script = Callable[..., Awaitable[Any]]


@pytest.fixture(scope="session")
def javascript() -> Script:
    """`await javascript("runs.mjs", url, "scenario", ...)`: what a script of tests/js printed last, read as JSON."""
    node = _program("node")
    _install(_program("npm"))

    async def run(script: str, *arguments: str, timeout_s: float = SCRIPT_TIMEOUT_S) -> Any:
        process = await asyncio.create_subprocess_exec(
            node,
            str(FOLDER / script),
            *arguments,
            cwd=FOLDER,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), timeout_s)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        said = f"{script} {' '.join(arguments)} ended with {process.returncode}\n{out.decode()}\n{err.decode()}"
        assert process.returncode == 0, said
        return json.loads(out.decode().strip().splitlines()[-1])

    return run


def installed_javascript() -> Path:
    """The folder of the packages of tests/js, installed."""
    _program("node")
    _install(_program("npm"))
    return FOLDER / "node_modules"


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        assert "CI" not in os.environ, f"{name} is not installed: the JavaScript clients cannot be tested"
        pytest.skip(f"{name} is not installed")
    return found


def _install(npm: str) -> None:
    """The packages of the lock file, whoever of the workers comes first."""
    lock_file = (FOLDER / "package-lock.json").read_bytes() + (FOLDER / "package.json").read_bytes()
    wanted = hashlib.sha256(lock_file).hexdigest()
    done = FOLDER / "node_modules" / ".installed"
    with FileLock(FOLDER / ".install.lock", timeout=INSTALL_TIMEOUT_S):
        if done.is_file() and done.read_text() == wanted:
            return
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        installed = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
        assert installed.returncode == 0, installed.stderr
        done.write_text(wanted)
