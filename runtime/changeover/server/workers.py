"""Several processes that serve one project on one socket: started, replaced when they die, ended together.

The parent binds the socket, holds the lock of a SQLite database and writes `server.json`; it opens no database and
answers no request. Each worker is a fresh interpreter with a manager, an application and an HTTP server of its own.

Invariants: a worker never outlives its parent for long, however that ended (the end of the channel tells it); until the
first worker has opened the database no other opens it, so that its tables are made once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from changeover.database_address import is_postgres
from changeover.errors import InvalidRequest
from changeover.server.channel import MESSAGE_LIMIT_BYTES, Message, Order
from changeover.server.serve import END_WAIT_S, Announce, bind, server_file, signals, url_of
from changeover.settings import Settings
from changeover.store.opening import lock_file

log = logging.getLogger(__name__)

KILL_AFTER_S = END_WAIT_S + 15  # requests, then runs, have their time; who is not gone by then hangs
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
EARLY_S = 10.0  # a death so soon after the start is one of a row
EARLY_DEATHS = 5


@dataclass
class _Worker:
    """A place among the workers. `early` counts the deaths in a row that came right after a start."""

    number: int
    process: asyncio.subprocess.Process | None = None
    early: int = 0


class Workers:
    """`run` serves until a signal comes. `is_serving` once the first worker does."""

    def __init__(self, project: Path, settings: Settings, announce: Announce = print) -> None:
        if sys.platform == "win32":
            raise InvalidRequest(
                "several workers need a system that hands sockets down",
                code="unsupported",
                hint="leave --workers out; runs of one process work side by side",
            )
        self._project = project
        self._settings = settings
        self._announce = announce
        self._stop = asyncio.Event()
        self._opened = asyncio.Event()
        self._said: set[str] = set()
        self._speaker: int | None = None
        self._status = 0
        self._reason: str | None = None

    @property
    def is_serving(self) -> bool:
        return self._speaker is not None

    def run(self) -> int:
        """Serve in an event loop of its own. Returns the exit status."""
        with asyncio.Runner() as runner:
            return runner.run(self.serve())

    async def serve(self) -> int:
        """Serve until a signal comes or no worker stays alive. Raises `OperatorError` before anything is served."""
        with contextlib.ExitStack() as held:
            listener = held.enter_context(contextlib.closing(bind(self._settings)))
            held.enter_context(signals(self._stop))
            state = held.enter_context(_state(self._project, self._settings))
            async with server_file(state, url_of(self._settings, listener)):
                await self._supervise(listener)
        if self._reason is not None:
            self._announce(self._reason)
        return self._status

    def stop(self) -> None:
        self._stop.set()

    async def _supervise(self, listener: socket.socket) -> None:
        workers = [_Worker(number) for number in range(self._settings.workers)]
        tasks = [
            asyncio.create_task(self._keep_alive(worker, listener), name=f"changeover-worker-{worker.number}")
            for worker in workers
        ]
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        self._stop.set()
        if not self._status:
            self._announce("Stopping: running answers end first")
        listener.close()  # nobody waits in its queue for a worker that will not come
        _, hanging = await asyncio.wait(tasks, timeout=KILL_AFTER_S)
        if hanging:
            self._give_up(f"{len(hanging)} workers did not end within {KILL_AFTER_S:g} s and were killed")
        for worker in workers:
            if worker.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    worker.process.kill()
        for result in await asyncio.gather(*tasks, stopping, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _keep_alive(self, worker: _Worker, listener: socket.socket) -> None:
        """A process in this place until all stop, a new one whenever it dies."""
        pause_s = FIRST_PAUSE_S
        while not self._stop.is_set():
            began = time.monotonic()
            status = await self._live(worker, listener)
            if self._stop.is_set():
                return
            is_early = time.monotonic() - began < EARLY_S
            worker.early = worker.early + 1 if is_early else 0
            log.warning("worker_died", extra={"worker": worker.number, "status": status, "early": worker.early})
            if worker.early >= EARLY_DEATHS:
                self._give_up(
                    f"worker {worker.number} died {worker.early} times within {EARLY_S:g} s of its start (the last time"
                    f" {_described(status)}): all stop. What it logged says why"
                )
                return
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S) if is_early and worker.early > 1 else FIRST_PAUSE_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause_s)

    async def _live(self, worker: _Worker, listener: socket.socket) -> int:
        """The life of one process. Returns its exit status."""
        ours, theirs = socket.socketpair()
        with theirs:
            worker.process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "changeover.server.worker", str(theirs.fileno()), str(listener.fileno())),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), listener.fileno()),
                process_group=0,  # Ctrl+C is for the parent, which tells them
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=MESSAGE_LIMIT_BYTES)
        listening = asyncio.create_task(self._listen(worker, process.pid, reader))
        ordering = asyncio.create_task(self._order(worker, writer))
        ending = asyncio.create_task(self._end(process))
        try:
            status = await process.wait()
            with contextlib.suppress(TimeoutError, OSError):  # its last words
                await asyncio.wait_for(listening, 1.0)
            return status
        finally:
            worker.process = None
            for task in (listening, ordering, ending):
                task.cancel()
            await asyncio.gather(listening, ordering, ending, return_exceptions=True)
            writer.close()

    async def _order(self, worker: _Worker, writer: asyncio.StreamWriter) -> None:
        if worker.number > 0:
            await self._opened.wait()
        with contextlib.suppress(OSError):
            writer.write(Order(self._project, self._settings).encode())
            await writer.drain()

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        await self._stop.wait()
        with contextlib.suppress(ProcessLookupError):
            process.terminate()

    async def _listen(self, worker: _Worker, pid: int, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            message = Message.decode(line)
            if message.kind == "opened":
                log.info("worker_started", extra={"worker": worker.number, "pid": pid})
                self._opened.set()
            elif message.kind == "said":
                self._say(pid, message)
            elif not self.is_serving and message.status:  # what keeps the first from serving keeps all
                self._give_up(message.text or None, message.status)

    def _say(self, pid: int, message: Message) -> None:
        """Pass on what workers say until one of them serves, then what that one says about it; the same once."""
        if self._speaker not in (None, pid) or message.text in self._said:
            return
        self._said.add(message.text)
        if message.serving:
            self._speaker = pid
        self._announce(message.text)

    def _give_up(self, reason: str | None, status: int = 1) -> None:
        self._status = self._status or status
        self._reason = self._reason or reason
        self._stop.set()


def _described(status: int) -> str:
    return f"by signal {-status}" if status < 0 else f"with status {status}"


@contextlib.contextmanager
def _state(project: Path, settings: Settings) -> Iterator[Path]:
    """The folder of the server's files; a database file in it is locked against other servers."""
    folder = settings.state_folder(project)
    if is_postgres(settings.database):
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    lock = lock_file(settings.database_path(project))
    try:
        yield folder
    finally:
        lock.release()
