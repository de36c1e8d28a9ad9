"""One of several processes that serve on one socket; started by `workers`, never by hand.

It gets a listening socket and a channel to its parent by their descriptors. It waits for its order before it opens
anything, so that workers can be started side by side and open the database one after the other. It stops in an orderly
way at SIGTERM or SIGINT, and when its parent is gone; then it is gone itself within `ALONE_S`, whatever hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
from typing import Any

from changeover.errors import ChangeoverError
from changeover.manager import GraphVersionManager
from changeover.server.channel import MESSAGE_LIMIT_BYTES, Message, Order
from changeover.server.logging import configure
from changeover.server.serve import END_WAIT_S, end_by_force, loop_factory, serve_on, signals

ALONE_S = END_WAIT_S + 15


def main() -> int:
    channel, listener = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    for inherited in (channel, listener):
        inherited.set_inheritable(False)  # what project code starts must hold neither the port nor the channel
    with listener, asyncio.Runner(loop_factory=loop_factory()) as runner:
        status = runner.run(_work(channel, listener))
        force = end_by_force(status)
    force.cancel()
    return status


async def _work(channel: socket.socket, listener: socket.socket) -> int:
    stop = asyncio.Event()
    reader, writer = await asyncio.open_connection(sock=channel, limit=MESSAGE_LIMIT_BYTES)
    ordered: asyncio.Future[Order] = asyncio.get_running_loop().create_future()
    with signals(stop):
        listening = asyncio.create_task(_listen(reader, ordered, stop), name="changeover-parent")
        stopping = asyncio.create_task(stop.wait())
        try:
            awaited: list[asyncio.Future[Any]] = [ordered, stopping]
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            return 0 if stop.is_set() else await _serve(ordered.result(), listener, writer, stop)
        finally:
            for task in (listening, stopping):
                task.cancel()
            await asyncio.gather(listening, stopping, return_exceptions=True)
            writer.close()


async def _listen(reader: asyncio.StreamReader, ordered: asyncio.Future[Order], stop: asyncio.Event) -> None:
    """Take the order, then wait for the parent's end."""
    with contextlib.suppress(OSError):
        if line := await reader.readline():
            ordered.set_result(Order.decode(line))
            await reader.read()
    end = threading.Timer(ALONE_S, os._exit, (1,))
    end.daemon = True
    end.start()
    stop.set()


async def _serve(order: Order, listener: socket.socket, writer: asyncio.StreamWriter, stop: asyncio.Event) -> int:
    configure(order.settings.log)
    manager = GraphVersionManager(order.project, order.settings)
    manager.is_worker = True

    def tell(message: Message) -> None:
        if not writer.is_closing():
            writer.write(message.encode())

    def say(text: str) -> None:
        if not stop.is_set():  # that all stop is the parent's word
            tell(Message("said", text, serving=manager.routing is not None))

    try:
        async with manager:
            tell(Message("opened"))
            status = await serve_on(manager, listener, say, stop)
    except ChangeoverError as error:
        tell(Message("failed", error.message, status=error.exit_status))
        return error.exit_status
    if status:
        tell(Message("failed", status=status))
    return status


if __name__ == "__main__":
    sys.exit(main())
