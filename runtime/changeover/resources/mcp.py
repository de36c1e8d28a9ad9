"""A held session with an MCP server, over stdio or HTTP.

Owns the session's life inside a task of its own (its scopes must be left by the task that entered them), what the
server says about its tools, and calls with a deadline. That it is opened again when it went down is its keeper's.

Invariants: a call ends at its deadline, or at once when the session goes down; after `close` no process, socket or task
of it is left.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, TextIO

import anyio
import httpx
from langchain_mcp_adapters.sessions import create_session
from mcp import ClientSession, McpError, StdioServerParameters, types
from mcp.client.stdio import stdio_client

from changeover.errors import ChangeoverError
from changeover.resources.drift import Drift, drift_of, observed
from changeover.resources.keeper import said
from changeover.resources.resource import Resource, ResourceDown

log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 60.0
CHECK_EVERY_S = 15.0
MAX_TOOLS = 2_000
MAX_PAGES = 100
LAST_LINES = 5
LINE_LIMIT_CHARS = 500
SESSION_TERMINATED = 32600  # what the SDK says where the server does not know the session any more


class CallFailed(ChangeoverError):
    """A call that has no answer. `undelivered`: the server did not begin it, so that it may be made again."""

    default_code = "mcp-call-failed"

    def __init__(self, message: str, *, undelivered: bool = False) -> None:
        super().__init__(message)
        self.undelivered = undelivered


class McpSession(Resource):
    """One session. `connection` is one of langchain-mcp-adapters'; `tools` what the server said last.

    What it says other than what the newest version was made from is a drift: it is noticed, never followed.
    """

    check_every_s = CHECK_EVERY_S
    close_timeout_s = 15.0

    def __init__(self, connection: Mapping[str, Any], call_timeout_s: float = CALL_TIMEOUT_S) -> None:
        super().__init__()
        self.tools: list[types.Tool] = []
        self.server: str = ""
        self._expected: Mapping[str, Any] | None = None
        self._drift: Drift | None = None
        self._stale = asyncio.Event()  # the server said that its tools are others now
        self._connection = dict(connection)
        self._call_timeout_s = call_timeout_s
        self._has_tools = True
        self._session: ClientSession | None = None
        self._gone: asyncio.Future[str] | None = None  # why the session went down
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stderr: deque[str] = deque(maxlen=LAST_LINES)

    async def open(self) -> None:
        self._over = asyncio.Event()
        self._gone = asyncio.get_running_loop().create_future()
        self._stderr.clear()
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._hold(ready, self._gone), name="changeover-mcp")
        await ready

    async def close(self) -> None:
        self._over.set()
        task, self._task = self._task, None
        if task is None:
            return
        if self._session is None:  # it is not open yet: nothing there waits for `_over`
            task.cancel()
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            raise

    async def check(self) -> None:
        session = self._live()
        if self._has_tools:
            self._heed(await _tools_of(session))  # servers need not say when their tools change
        else:
            await session.send_ping()

    def expect(self, tools: Mapping[str, Any]) -> None:
        """These tools, by name, are what the newest version was made from."""
        self._expected, self._drift = tools, None
        self._heed(self.tools)

    async def call_tool(self, name: str, arguments: dict[str, Any], **options: Any) -> types.CallToolResult:
        """Call a tool of the server. Raises `CallFailed`, `ResourceDown`; what the tool says is wrong is its answer."""
        session, gone = self._live(), self._gone
        assert gone is not None
        timeout = timedelta(seconds=self._call_timeout_s)
        call = asyncio.create_task(session.call_tool(name, arguments, timeout, **options))
        both: set[asyncio.Future[Any]] = {call, gone}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            raise
        if not call.done():
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            raise CallFailed(f"the connection was lost: {gone.result()}", undelivered=_is_refused(gone.result()))
        try:
            return call.result()
        except McpError as error:
            raise self._failed(error) from error
        except (anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            self._down("the connection is closed")
            raise CallFailed("the connection is closed", undelivered=True) from error

    def details(self) -> dict[str, Any]:
        return {
            "transport": self._connection.get("transport"),
            "server": self.server or None,
            "tools": [tool.name for tool in self.tools],
            "drift": self._drift.to_json() if self._drift else None,
        }

    # --- inside ----------------------------------------------------------------------------------

    def _live(self) -> ClientSession:
        if self._session is None or self._gone is None or self._gone.done():
            raise ResourceDown("the session is not open")
        return self._session

    def _failed(self, error: McpError) -> CallFailed:
        """An error of the protocol, not of the tool."""
        if error.error.code == SESSION_TERMINATED and "terminated" in error.error.message.lower():
            self._down("the server does not know the session any more")
            return CallFailed("the server does not know the session any more", undelivered=True)
        if error.error.code == types.CONNECTION_CLOSED:
            self._down("the connection was closed")
            return CallFailed("the connection was closed while the call was under way")
        if error.error.code == httpx.codes.REQUEST_TIMEOUT:
            return CallFailed(f"it did not answer within {self._call_timeout_s:g} s")
        return CallFailed(error.error.message)

    def _down(self, reason: str) -> None:
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(reason)
            self.lost(reason)

    async def _hold(self, ready: asyncio.Future[None], gone: asyncio.Future[str]) -> None:
        """The session from its begin to its end, in one task."""
        try:
            async with self._opened() as session:
                answer = await session.initialize()
                self.server = f"{answer.serverInfo.name} {answer.serverInfo.version}"
                self._has_tools = answer.capabilities.tools is not None
                self._heed(await _tools_of(session) if self._has_tools else [])
                self._session = session
                _settle(ready, None)
                await self._follow(session)
        except (Exception, BaseExceptionGroup) as error:  # root of a task: a library's
            reason = self._explained(error)
            if not ready.done():
                _settle(ready, RuntimeError(reason))
            elif not self._over.is_set():
                self._down(reason)
        finally:
            self._session = None
            if not gone.done():
                gone.set_result("the session was closed")
            if not ready.done():
                _settle(ready, RuntimeError("the session was closed"))

    async def _follow(self, session: ClientSession) -> None:
        """Until it is over; ask again whenever the server says that its tools have changed."""
        over = asyncio.create_task(self._over.wait())
        try:
            while not self._over.is_set():
                stale = asyncio.create_task(self._stale.wait())
                await asyncio.wait({over, stale}, return_when=asyncio.FIRST_COMPLETED)
                stale.cancel()
                if self._stale.is_set() and not self._over.is_set():
                    self._stale.clear()
                    self._heed(await _tools_of(session))
        finally:
            over.cancel()

    def _heed(self, tools: list[types.Tool]) -> None:
        self.tools = tools
        if self._expected is None:
            return
        drift = drift_of(self._expected, observed(tools))
        is_news, self._drift = drift != self._drift, drift
        if drift is not None and is_news:
            self.notice("resource_drifted", drift.to_json())

    def _explained(self, error: BaseException) -> str:
        lines = [line for line in self._stderr if line.strip()]
        return f"{said(error)}; its last words: {lines[-1]}" if lines else said(error)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[ClientSession]:
        if self._connection["transport"] != "stdio":
            options = {**self._connection, "session_kwargs": {"message_handler": self._heard}}
            async with create_session(options) as session:  # type: ignore[arg-type]
                yield session
            return
        async with AsyncExitStack() as stack:
            errors = await stack.enter_async_context(self._error_output())
            parameters = StdioServerParameters(
                command=self._connection["command"],
                args=self._connection.get("args", []),
                env=_environment(self._connection.get("env")),
                cwd=self._connection.get("cwd"),
                encoding=self._connection.get("encoding", "utf-8"),
                encoding_error_handler=self._connection.get("encoding_error_handler", "strict"),
            )
            read, write = await stack.enter_async_context(stdio_client(parameters, errors))
            session = ClientSession(_Until(read, self._on_end), write, message_handler=self._heard)  # type: ignore[arg-type]
            yield await stack.enter_async_context(session)

    @asynccontextmanager
    async def _error_output(self) -> AsyncIterator[TextIO]:
        """Where a server's process writes its errors: to our log, line by line; the last ones are kept."""
        reading, writing = os.pipe()
        reader = asyncio.StreamReader(limit=LINE_LIMIT_CHARS * 8)
        with os.fdopen(reading, "rb", buffering=0) as source:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), source
            )
            listening = asyncio.create_task(self._listen(reader), name="changeover-mcp-errors")
            try:
                with os.fdopen(writing, "w") as target:
                    yield target
            finally:
                with suppress(TimeoutError):  # a child of the server may hold the other end
                    async with asyncio.timeout(0.5):
                        await asyncio.shield(listening)
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
                transport.close()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await reader.readline()
            except ValueError:  # longer than any line should be
                continue
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip()[:LINE_LIMIT_CHARS]
            self._stderr.append(text)
            log.debug("mcp_server_said", extra={"line": text})

    def _on_end(self) -> None:
        if not self._over.is_set() and self._session is not None:
            self._down(self._explained(EOFError("the server's process ended")))

    async def _heard(self, message: Any) -> None:
        root = getattr(message, "root", None)
        if isinstance(root, types.ToolListChangedNotification):
            self._stale.set()


class _Until:
    """A stream of messages that says when it has come to its end."""

    def __init__(self, stream: Any, ended: Any) -> None:
        self._stream = stream
        self._ended = ended

    async def __aenter__(self) -> _Until:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stream.__aexit__(*error)

    def __aiter__(self) -> _Until:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._stream.__anext__()
        except StopAsyncIteration:
            self._ended()
            raise


async def _tools_of(session: ClientSession) -> list[types.Tool]:
    """All tools, by name. Raises `ValueError` where there are more than anybody could use."""
    found: list[types.Tool] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await session.list_tools(params=types.PaginatedRequestParams(cursor=cursor))
        found += page.tools
        cursor = page.nextCursor
        if len(found) > MAX_TOOLS:
            raise ValueError(f"it lists more than {MAX_TOOLS:,} tools")
        if not cursor:
            return sorted(found, key=lambda tool: tool.name)
    raise ValueError(f"its list of tools has more than {MAX_PAGES} pages")


def _environment(given: Mapping[str, str] | None) -> dict[str, str]:
    """The environment of a server's process: the SDK's few variables, the project's, and our Python found first."""
    own = os.path.dirname(sys.executable)
    return {"PATH": os.pathsep.join([own, os.environ.get("PATH", os.defpath)]), **(given or {})}


def _is_refused(reason: str) -> bool:
    return reason.startswith(("ConnectError", "ConnectTimeout"))


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
