"""The real command: in this process where that is enough, as a process of its own where that is the point."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from changeover.cli.app import run

SOURCES = Path(__file__).resolve().parents[2] / "runtime"
OURS = ("CHANGEOVER_", "SUPPORT_MODEL")


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


Call = Callable[..., Ended]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`call("build", "-m", "x", typed="...")`: the command as typed, in this process."""

    def command(*arguments: str, typed: str | io.StringIO = "") -> Ended:
        monkeypatch.setattr(sys, "argv", ["changeover", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed) if isinstance(typed, str) else typed)
        capsys.readouterr()
        status = run()
        told = capsys.readouterr()
        return Ended(status, told.out, told.err)

    return command


@pytest.fixture
def start() -> Iterator[Start]:
    """`start("serve", cwd=folder)`: the command as a process; what is left at the end is stopped."""
    processes: list[subprocess.Popen[str]] = []

    def command(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        process = subprocess.Popen(
            [sys.executable, "-m", "changeover.cli", *arguments],
            cwd=cwd,
            env={**inherited, "PYTHONPATH": str(SOURCES), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield command
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()
