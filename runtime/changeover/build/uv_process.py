"""One run of uv: ended with everything it started when nobody waits for it; its words, bounded and without secrets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uv

from changeover.build import leash
from changeover.secret_values import Secrets, secrets_in, without_addresses
from changeover.settings import environment

log = logging.getLogger(__name__)

OUTPUT_LIMIT_CHARS = 16_000
LINE_LIMIT_BYTES = 64_000
SAID_LIMIT_CHARS = 1_200
PROGRESS_LINES = 40


class UvMissing(Exception):
    """There is no uv; the message says where it was looked for."""


async def run(arguments: Sequence[str]) -> tuple[int, str]:
    """Run it to its end; it ends, with everything that it started, when nobody waits for it or this process dies."""
    try:
        command = [uv.find_uv_bin(), *arguments]
    except FileNotFoundError as error:
        raise UvMissing(f"uv is not installed beside changeover: {error}") from None
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", leash.__file__),
        *command,
        cwd=Path(sys.executable).anchor or "/",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stderr is not None
        said = await _read(process.stderr, secrets_in(environment()))
        return await process.wait(), said
    finally:
        if process.returncode is None:
            _kill(process.pid)
            await process.wait()


async def _read(stream: asyncio.StreamReader, secrets: Secrets) -> str:
    """The end of what it says, line by line without secrets; its first lines are logged as they come."""
    said, rest, lines = "", b"", 0
    while chunk := await stream.read(4096):
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > LINE_LIMIT_BYTES:
            whole, rest = [*whole, b"..."], b""
        for line in whole:
            text = _shown(line, secrets)
            said = f"{said}\n{text}"[-OUTPUT_LIMIT_CHARS:]
            lines += 1
            if lines <= PROGRESS_LINES:
                log.info("requirements_progress", extra={"said": text[:300]})
    return _reason(f"{said}\n{_shown(rest, secrets)}")


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGTERM)


def _reason(said: str) -> str:
    """From where it says what is wrong, on one line."""
    start = max(said.find("error:"), 0)
    return " ".join(said[start:].removeprefix("error:").split())[:SAID_LIMIT_CHARS]


def _shown(said: bytes, secrets: Secrets) -> str:
    return secrets.hidden(without_addresses(said.decode("utf-8", "replace")))
