"""Running the server: a socket of our own, a clear word when that cannot be had, an orderly end.

Order of a start: socket, database, HTTP (alive, not ready), first version, following the folder. Order of an end: no
new connections and not ready, running requests and runs end within a time, the manager closes. A second signal
changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from changeover.errors import OperatorError
from changeover.manager import GraphVersionManager
from changeover.processes import is_alive
from changeover.server.app import create_app
from changeover.server.opening import FolderService
from changeover.server.security import is_loopback
from changeover.server.tasks import guard_tasks
from changeover.settings import Settings

log = logging.getLogger(__name__)

SERVER_FILE = "server.json"
OWN_SERVER_FILE = "server-{}.json"  # with the id of the process: several may serve a folder on one Postgres
END_WAIT_S = 28  # until all is cut off: who runs containers often kills after 30
THREADS_WAIT_S = 1.5  # after everything is closed, for nodes that were cut off and block their threads
RUNS_WAIT_S = 25  # for runs to come to a boundary or to end; the requests that wait for them end with them
BACKLOG = 2048
SIGNALS = (signal.SIGTERM, signal.SIGINT)

Announce = Callable[[str], None]


def run(manager: GraphVersionManager, announce: Announce = print) -> int:
    """Serve until a signal comes, in an event loop of its own. Returns the exit status."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        status = runner.run(serve(manager, announce))
        force = end_by_force(status)
    force.cancel()
    return status


def end_by_force(status: int) -> threading.Timer:
    """End the process if it does not end by itself: nothing else stops a thread that a node blocks."""
    timer = threading.Timer(THREADS_WAIT_S, _end, (status,))
    timer.daemon = True
    timer.start()
    return timer


def _end(status: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


async def serve(manager: GraphVersionManager, announce: Announce = print, stop: asyncio.Event | None = None) -> int:
    """Serve the manager's folder with its settings until a signal comes or `stop` is set. Returns the exit status.

    Raises `OperatorError` (`token-required`, `port-in-use`, `bad-host`, `database-in-use`) before anything is served.
    A folder that cannot be built is announced; it is served nevertheless if it is followed, so that a save mends it.
    """
    stop = stop or asyncio.Event()
    with contextlib.closing(bind(manager.settings)) as listener, signals(stop):
        async with (
            manager,
            server_file(manager.settings.state_folder(manager.project), url_of(manager.settings, listener)),
        ):
            return await serve_on(manager, listener, announce, stop)


async def serve_on(
    manager: GraphVersionManager, listener: socket.socket, announce: Announce, stop: asyncio.Event
) -> int:
    """Serve an open manager on a socket until `stop` is set. Returns the exit status."""
    guard_tasks(asyncio.get_running_loop())
    url = url_of(manager.settings, listener)
    service = FolderService(manager)
    try:
        async with _serving(create_app(manager), listener, stop):
            return await _until_stopped(manager, service, url, announce, stop)
    finally:
        await service.close()


async def _until_stopped(
    manager: GraphVersionManager, service: FolderService, url: str, announce: Announce, stop: asyncio.Event
) -> int:
    opening = asyncio.create_task(service.open(), name="changeover-first-version")
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            return 0
        failed = await opening
        # Some hundred thousand objects of the libraries stay until the end. Taken out of the collector's sight, its
        # longest pause is a few milliseconds instead of seventy.
        gc.collect()
        gc.freeze()
    finally:
        for task in (opening, stopping):
            task.cancel()
        await asyncio.gather(opening, stopping, return_exceptions=True)
    if failed is not None:
        announce(failed.message)
        if not manager.watching:
            return failed.exit_status
        announce(f"Nothing is served yet: save a fix and it will be, at {url}")
    elif manager.routing is not None:
        announce(f"Serving {manager.routing.current} of {manager.project} at {url}")
        for note in [*manager.notes, *(problem.render() for problem in await manager.folder.unsupported())]:
            announce(note)
    await stop.wait()
    announce("Stopping: running answers end first")
    return 0


def bind(settings: Settings) -> socket.socket:
    """A listening socket. Raises `OperatorError` that says what is in the way."""
    host, port = settings.host, settings.port
    if settings.token is None and not is_loopback(host):
        raise OperatorError(
            f"'{host}' can be reached from outside, and no token is set",
            code="token-required",
            hint="set CHANGEOVER_TOKEN or --token, or serve on 127.0.0.1",
        )
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise OperatorError(f"'{host}' is not an address of this machine: {error}", code="bad-host") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)  # here, so that of two servers that start at once only one gets past this line
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from None
    listener.setblocking(False)
    return listener


def url_of(settings: Settings, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{port}"


def _cannot_listen(host: str, port: int, error: OSError) -> OperatorError:
    if error.errno == errno.EADDRINUSE:
        return OperatorError(
            f"port {port} on {host} is in use", code="port-in-use", hint="stop what uses it, or give another --port"
        )
    if error.errno == errno.EACCES:
        return OperatorError(f"port {port} needs rights that this user has not", code="port-denied", hint="use 2024")
    return OperatorError(f"cannot listen on {host}:{port}: {error.strerror}", code="bad-host")


class _Server(uvicorn.Server):
    """Uvicorn's server without its own signals: ours are the same while the manager closes."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def _serving(app: FastAPI, listener: socket.socket, stop: asyncio.Event) -> AsyncIterator[None]:
    """HTTP from here on; at the end no new connections, and those that are open end within a time."""
    manager: GraphVersionManager = app.state.manager
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=END_WAIT_S,
        ws="websockets-sansio",
        ws_max_size=manager.settings.limit_body_bytes,
        ws_per_message_deflate=False,  # events are small and many: packing them costs more than it saves
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve([listener]), name="changeover-http")
    task.add_done_callback(lambda _: stop.set())
    try:
        yield
    finally:
        app.state.stopping.set()
        manager.stop_runs()  # now, so that requests which wait for runs end with them
        server.should_exit = True
        ending = asyncio.create_task(manager.end_runs(RUNS_WAIT_S), name="changeover-end-of-runs")
        await task
        await ending


@contextlib.asynccontextmanager
async def server_file(folder: Path, url: str) -> AsyncIterator[None]:
    """Tells the command line where the servers of this folder are: the newest, and each in a file of its own."""
    text = json.dumps({"url": url, "pid": os.getpid()})
    newest, own = folder / SERVER_FILE, folder / OWN_SERVER_FILE.format(os.getpid())
    try:
        for path in (own, newest):
            await asyncio.to_thread(_write, path, text)
    except OSError as error:
        raise OperatorError(f"cannot write {path}: {error.strerror}", code="disk", hint="look at the disk") from error
    try:
        yield
    finally:
        await asyncio.to_thread(_remove, newest, own, text)


def _remove(newest: Path, own: Path, text: str) -> None:
    own.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        if newest.read_text(encoding="utf-8") == text:  # else another server of this folder came after this one
            newest.unlink(missing_ok=True)
    for path in own.parent.glob(OWN_SERVER_FILE.format("*")):
        with contextlib.suppress(OSError, ValueError):
            if not is_alive(int(path.stem.rpartition("-")[2])):
                path.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    """At once or not at all: a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


@contextlib.contextmanager
def signals(stop: asyncio.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set `stop`, as often as they come, until everything has ended."""
    loop = asyncio.get_running_loop()
    caught = []
    for number in SIGNALS:
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not on Windows, not in a thread
            loop.add_signal_handler(number, stop.set)
            caught.append(number)
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
