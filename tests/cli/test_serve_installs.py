"""`serve` offers to install what a model needs: at a terminal, and with a yes only."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "runtime"
FILES = {
    "agents.yaml": """
        models:
          big: {model: 'groq:llama-3.3', fallbacks: [demo]}
          demo: {model: 'demo:rules'}
          unused: {model: 'cohere:command-r'}
        agents: {desk: {model: big}, aside: {model: 'ollama:llama3.1'}}
    """
}
QUESTION = "run `pip install 'changeover[groq]'` now? [y/N] "
PIP = "import sys, pathlib; pathlib.Path('installed').write_text(' '.join(sys.argv[1:]))"


class Terminal:
    """The command at a terminal of its own."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.shown = ""
        self._end, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "changeover.cli", "serve", "--port", "0", "--no-watch"],
            cwd=folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(folder / "first"), str(SOURCES))), **environment},
            start_new_session=True,
        )
        os.close(theirs)

    def until(self, text: str) -> None:
        ends = time.monotonic() + 30
        while text not in self.shown:
            assert time.monotonic() < ends, self.shown
            if select.select([self._end], [], [], 0.1)[0]:
                self.shown += os.read(self._end, 4096).decode().replace("\r\n", "\n")

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._end)


@pytest.fixture
def folder(project: Any) -> Path:
    """A project whose Python has a pip that only notes what it was asked for."""
    made: Path = project({**FILES, "first/pip/__init__.py": "", "first/pip/__main__.py": PIP})
    return made


@pytest.fixture
def terminal(folder: Path) -> Iterator[Terminal]:
    opened = Terminal(folder)
    yield opened
    opened.close()


def test_only_a_yes_installs_and_the_build_says_the_command_for_the_rest(terminal: Terminal, folder: Path) -> None:
    terminal.until(QUESTION)
    terminal.type("\n")
    terminal.until(QUESTION.replace("groq", "ollama"))
    terminal.type("y\n")
    terminal.until("langchain-ollama was not installed")  # that pip does nothing
    terminal.until("model 'big': needs langchain-groq, which is not installed")
    terminal.until("pip install 'changeover[groq]'\n")
    assert (folder / "installed").read_text() == "install changeover[ollama]"
    assert terminal.shown.count("[y/N]") == 2
    assert "cohere" not in terminal.shown


def test_without_a_terminal_nobody_is_asked(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder / "first"), str(SOURCES)))}
    process = subprocess.Popen(
        [sys.executable, "-m", "changeover.cli", "serve", "--port", "0", "--no-watch"],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    told = ""
    try:
        process.stdin.write("y\n")
        process.stdin.flush()
        for line in process.stdout:
            told += line
            if "changeover[groq]" in line:
                break
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    assert "[y/N]" not in told
    assert not (folder / "installed").exists()
