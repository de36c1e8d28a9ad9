"""A held session with an MCP server, over stdio or HTTP.

Owns the session's life inside a task of its own (its scopes must be left by the task that entered them), what the
server says about its tools, and calls with a deadline. That it is opened again when it went down is its keeper's.

Invariants: a call ends at its deadline, or at once when the session goes down; after `close` no process, socket or task
of it is left; no value of the project's environment is in what it says.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

import anyio
import httpx
from langchain_mcp_adapters.sessions import create_session
from mcp import ClientSession, McpError, types

from changeover.errors import ChangeoverError
from changeover.resources.drift import Drift, drift_of, observed
from changeover.resources.keeper import said
from changeover.resources.mcp_http import BoundedClient
from changeover.resources.mcp_process import server_process
from changeover.resources.resource import Resource, ResourceDown

log = logging.getLogger(__name__)

T = TypeVar("T")
CALL_TIMEOUT_S = 60.0
CHECK_EVERY_S = 15.0
LIST_TIMEOUT_S = 30.0
LIST_EVERY_S = 1.0  # a server that says all the time that its tools are others is asked no more often
CLOSE_S = 8.0
CUT_OFF_S = 5.0  # for what was cut off to come to its end
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
    check_timeout_s = LIST_TIMEOUT_S
    close_timeout_s = CLOSE_S + 2 * CUT_OFF_S

    def __init__(
        self,
        connection: Mapping[str, Any],
        call_timeout_s: float = CALL_TIMEOUT_S,
        hidden: Callable[[str], str] = str,
    ) -> None:
        super().__init__()
        self._hidden = hidden
        self._calls = 0  # under way
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
            await asyncio.wait({task}, timeout=CLOSE_S)
        finally:
            task.cancel()
            await asyncio.wait({task}, timeout=CUT_OFF_S)

    @property
    def is_busy(self) -> bool:
        return self._calls > 0

    async def check(self) -> None:
        session, gone = self._session, self._gone
        if session is None or gone is None or gone.done():
            raise ResourceDown("the session is not open")
        try:
            if self._has_tools:
                self._heed(await _before(gone, _tools_of(session)))  # servers need not say when their tools change
            else:
                await _before(gone, session.send_ping())
        except _Gone as error:
            raise ResourceDown(str(error)) from None

    async def handle(self, error: Exception) -> bool:
        """A server that answers, if with an error, is there, and its tools may work."""
        return _is_answer(error)

    def expect(self, tools: Mapping[str, Any]) -> None:
        """These tools, by name, are what the version was made from that serves."""
        self._expected, self._drift = tools, None
        if self._session is not None:  # else it is compared once its server has said something
            self._heed(self.tools)

    async def call_tool(self, name: str, arguments: dict[str, Any], **options: Any) -> types.CallToolResult:
        """Call a tool of the server. Raises `CallFailed`; what the tool says is wrong is its answer."""
        session, gone = self._session, self._gone
        if session is None or gone is None or gone.done():
            raise CallFailed("the session is not open", undelivered=True)
        timeout = timedelta(seconds=self._call_timeout_s)
        self._calls += 1
        try:
            return await _before(gone, session.call_tool(name, arguments, timeout, **options))
        except _Gone as error:
            raise self._call_failed(f"the connection was lost: {error}", undelivered=_is_refused(str(error))) from None
        except McpError as error:
            raise self._failed(error) from error
        except (anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            self._down("the connection is closed")
            raise CallFailed("the connection is closed", undelivered=True) from error
        except Exception as error:  # the SDK's, of what the server answered
            raise self._call_failed(f"its answer cannot be used: {said(error)}") from error
        finally:
            self._calls -= 1

    def details(self) -> dict[str, Any]:
        return {
            "transport": self._connection.get("transport"),
            "server": self.server or None,
            "tools": [tool.name for tool in self.tools],
            "drift": self._drift.to_json() if self._drift else None,
        }

    # --- inside ----------------------------------------------------------------------------------

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
        return self._call_failed(error.error.message)

    def _call_failed(self, message: str, *, undelivered: bool = False) -> CallFailed:
        return CallFailed(self._hidden(message), undelivered=undelivered)

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
        over = asyncio.ensure_future(self._over.wait())
        try:
            while True:
                await _before(over, self._stale.wait())
                self._stale.clear()
                await self._ask_again(session, over)
                await _before(over, asyncio.sleep(LIST_EVERY_S))
        except _Gone:
            return
        finally:
            over.cancel()

    async def _ask_again(self, session: ClientSession, over: asyncio.Future[Any]) -> None:
        """What goes wrong is left to the next look at it: the session may be as good as before."""
        try:
            async with asyncio.timeout(LIST_TIMEOUT_S):
                self._heed(await _before(over, _tools_of(session)))
        except (TimeoutError, ValueError, McpError) as error:
            if isinstance(error, McpError) and not _is_answer(error):
                raise
            log.warning("mcp_tools_not_listed", extra={"server": self.server, "reason": self._hidden(said(error))})

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
            options = {
                **self._connection,
                "session_kwargs": {"message_handler": self._heard},
                "httpx_client_factory": BoundedClient,
            }
            async with create_session(options) as session:  # type: ignore[arg-type]
                yield session
            return
        environment = _environment(self._connection.get("env"))
        async with (
            server_process(self._connection, environment, self._on_word, self._on_end) as (read, write),
            ClientSession(read, write, message_handler=self._heard) as session,
        ):
            yield session

    def _on_word(self, line: str) -> None:
        text = self._hidden(line)[:LINE_LIMIT_CHARS]
        self._stderr.append(text)
        log.debug("mcp_server_said", extra={"line": text})

    def _on_end(self, reason: str) -> None:
        if not self._over.is_set() and self._session is not None:
            self._down(self._explained(EOFError(reason)))

    async def _heard(self, message: Any) -> None:
        root = getattr(message, "root", None)
        if isinstance(root, types.ToolListChangedNotification):
            self._stale.set()


class _Gone(Exception):
    """What was waited for came to nothing."""


async def _before(end: asyncio.Future[Any], work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives, unless `end` is there first: `_Gone`, with what that says."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, end}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise _Gone(str(end.result()))
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


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


def _is_answer(error: Exception) -> bool:
    """Whether it is an error that the server itself has answered with."""
    ours = (types.CONNECTION_CLOSED, httpx.codes.REQUEST_TIMEOUT, SESSION_TERMINATED)
    return isinstance(error, McpError) and error.error.code not in ours


def _is_refused(reason: str) -> bool:
    return reason.startswith(("ConnectError", "ConnectTimeout"))


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
