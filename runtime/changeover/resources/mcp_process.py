"""The process of an MCP server that is spoken to over its standard input and output.

Owns the process, its group and its pipes. What it says is not logged, and bounded: `mcp_messages`.

Invariant: when `server_process` is left, also by a cancellation, no process of the server's group is left.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import IO, Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage

from changeover.resources.mcp_messages import Lines, message_of

LEAVE_S = 2.0  # for a server to go by itself when its input has ended, and again when it is asked to
LOOK_S = 0.02
LAST_WORDS_S = 0.5
CHUNK_BYTES = 1 << 18
LINE_LIMIT_BYTES = 4_000  # of what it says on its error output

Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]


@asynccontextmanager
async def server_process(
    connection: Mapping[str, Any],
    environment: Mapping[str, str],
    said: Callable[[str], None],
    ended: Callable[[str], None],
) -> AsyncIterator[Streams]:
    """The streams of a session. `said` gets each line of its error output; `ended`, why there will be no more."""
    encoding, errors = connection.get("encoding", "utf-8"), connection.get("encoding_error_handler", "strict")
    inward, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, outward = anyio.create_memory_object_stream[SessionMessage](0)
    async with inward, read, write, outward, _pipe() as (output, output_end), _pipe() as (complaints, error_end):
        process = await asyncio.create_subprocess_exec(
            connection["command"],
            *connection.get("args", []),
            stdin=PIPE,
            stdout=output_end,
            stderr=error_end,
            env={**get_default_environment(), **environment},
            cwd=connection.get("cwd"),
            start_new_session=True,
        )
        output_end.close()
        error_end.close()
        listening = asyncio.create_task(_listen(complaints, said), name="changeover-mcp-errors")
        work = [
            asyncio.create_task(_read(output, Lines(encoding, errors), inward, listening, ended)),
            asyncio.create_task(_write(process, outward, encoding, errors)),
        ]
        try:
            yield read, write
        finally:
            try:
                await _end(process)
                await asyncio.wait({listening}, timeout=LAST_WORDS_S)
            finally:
                _signal(process, signal.SIGKILL)
                await _within(LEAVE_S, lambda: process.returncode is not None)
                for task in (listening, *work):
                    task.cancel()
                await asyncio.gather(listening, *work, return_exceptions=True)


@asynccontextmanager
async def _pipe() -> AsyncIterator[tuple[asyncio.StreamReader, IO[bytes]]]:
    """What is written to the second is read from the first; the second is for a process to have."""
    reading, writing = os.pipe()
    reader = asyncio.StreamReader(limit=LINE_LIMIT_BYTES)
    with os.fdopen(writing, "wb", buffering=0) as target, os.fdopen(reading, "rb", buffering=0) as source:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), source
        )
        try:
            yield reader, target
        finally:
            transport.close()


async def _read(
    output: asyncio.StreamReader,
    lines: Lines,
    inward: MemoryObjectSendStream[SessionMessage | Exception],
    listening: asyncio.Task[None],
    ended: Callable[[str], None],
) -> None:
    reason = "the server's process ended"
    try:
        while content := await output.read(CHUNK_BYTES):
            for line in lines.fed(content):
                if line.text.strip() and (message := message_of(line)) is not None:
                    await inward.send(message)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):  # nobody reads any more
        return
    except UnicodeDecodeError as error:
        reason = f"what it says is not {error.encoding}"
    await asyncio.wait({listening}, timeout=LAST_WORDS_S)
    ended(reason)
    await inward.aclose()


async def _write(
    process: Process, outward: MemoryObjectReceiveStream[SessionMessage], encoding: str, errors: str
) -> None:
    assert process.stdin is not None
    with suppress(OSError):  # it is gone, which its output says
        async for message in outward:
            text = message.message.model_dump_json(by_alias=True, exclude_none=True)
            process.stdin.write(f"{text}\n".encode(encoding, errors))
            await process.stdin.drain()


async def _listen(complaints: asyncio.StreamReader, said: Callable[[str], None]) -> None:
    while True:
        try:
            line = await complaints.readline()
        except ValueError:  # longer than any line should be
            continue
        if not line:
            return
        said(line.decode("utf-8", "replace").rstrip())


async def _end(process: Process) -> None:
    """Its input ends, then it is asked to go, then it is made to; what it has started goes with it."""
    assert process.stdin is not None
    process.stdin.close()
    if not await _within(LEAVE_S, lambda: process.returncode is not None) or _signal(process, 0):
        _signal(process, signal.SIGTERM)
        await _within(LEAVE_S, lambda: process.returncode is not None and not _signal(process, 0))


async def _within(limit_s: float, is_so: Callable[[], bool]) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            while not is_so():  # noqa: ASYNC110 - nobody tells when a group is empty
                await asyncio.sleep(LOOK_S)
    return is_so()


def _signal(process: Process, number: int) -> bool:
    """Whether there was anybody to get it in the process's group."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
