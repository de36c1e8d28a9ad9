"""One way to the server for all verbs: HTTP, to a running server or to one inside this process.

In this order: `--url`; the server that serves the project, which leaves its address next to the
database; else the project is opened here and the same application answers without a socket. A failure
is an error of `changeover.errors`, whichever way it came.
"""

from __future__ import annotations

import asyncio
import getpass
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from changeover.cli import output
from changeover.cli.finding import demand_project, running_server
from changeover.cli.options import Options
from changeover.errors import (
    ChangeoverError,
    Conflict,
    InvalidRequest,
    NotFound,
    OperatorError,
    PreconditionFailed,
    ProjectError,
    TimedOut,
    Unavailable,
)

if TYPE_CHECKING:
    import httpx

    from changeover.cli.sse import Event

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0
IN_PROCESS_URL = "http://localhost"
BINARY_TYPE = "application/octet-stream"
_KINDS: dict[int, type[ChangeoverError]] = {
    400: InvalidRequest,
    401: OperatorError,
    403: OperatorError,
    404: NotFound,
    409: Conflict,
    412: PreconditionFailed,
    413: InvalidRequest,
    422: InvalidRequest,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: TimedOut,
}
_DOCUMENT_MEMBERS = frozenset({"type", "title", "status", "detail", "instance", "code", "hint"})


class Client:
    """One server. Paths are those of the HTTP API; answers are JSON."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def get(self, path: str, **params: Any) -> Any:
        return (await self.send("GET", path, params=params)).json()

    async def post(self, path: str, body: Mapping[str, Any] | None = None, *, patient: bool = False) -> Any:
        """`patient` waits for as long as it takes: builds, drains and runs have deadlines of their own."""
        return (await self.send("POST", path, body=body or {}, patient=patient)).json()

    async def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        patient: bool = False,
    ) -> httpx.Response:
        request = self._request(method, path, params, body, headers, patient)
        with _network(self._http):
            response = await self._http.send(request)
        return _checked(response)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[Event]]]:
        """An answer that comes in pieces, and its events."""
        from changeover.cli.sse import events

        asked = {"accept": "text/event-stream", **(headers or {})}
        request = self._request(method, path, params, body, asked, patient=True)
        with _network(self._http):
            response = await self._http.send(request, stream=True)
            try:
                if response.is_error:
                    await response.aread()
                _checked(response)
                yield response, events(response.aiter_bytes())
            finally:
                await response.aclose()

    async def download(self, path: str) -> AsyncIterator[bytes]:
        """An answer that is no document, as it comes."""
        request = self._request("GET", path, None, None, None, patient=True)
        with _network(self._http):
            response = await self._http.send(request, stream=True)
            try:
                if response.is_error or response.headers.get("content-type") != BINARY_TYPE:
                    await response.aread()
                    raise error_of(response.status_code, _problem(response))
                async for chunk in response.aiter_bytes():
                    yield chunk
            finally:
                await response.aclose()

    def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
        patient: bool,
    ) -> httpx.Request:
        given = {name: value for name, value in (params or {}).items() if value is not None}
        timeout = {
            "connect": CONNECT_TIMEOUT_S,
            "read": None if patient else ANSWER_TIMEOUT_S,
            "write": 30.0,
            "pool": 5.0,
        }
        return self._http.build_request(
            method, path, params=given, json=body, headers=dict(headers or {}), extensions={"timeout": timeout}
        )


def ask(options: Options, work: Callable[[Client], Awaitable[T]], doing: str | None = None) -> T:
    """Connect, do the work, close. `doing` is what a person sees meanwhile."""

    async def whole() -> T:
        async with connect(options) as client:
            return await work(client)

    with output.progress(doing):
        return asyncio.run(whole())


@asynccontextmanager
async def connect(options: Options) -> AsyncIterator[Client]:
    """The server that `options` mean. Raises `Unavailable` where it cannot be reached."""
    import httpx

    url = options.url or running_server(options)
    async with AsyncExitStack() as stack:
        if url:
            token = options.token or os.environ.get("CHANGEOVER_TOKEN")
            http = httpx.AsyncClient(base_url=_checked_url(url), headers=_introduction(token))
        else:
            http = await _in_process(options, stack)
        await stack.enter_async_context(http)
        yield Client(http)


async def _in_process(options: Options, stack: AsyncExitStack) -> httpx.AsyncClient:
    import httpx

    demand_project(options)
    from changeover.cli.inprocess import InProcessTransport
    from changeover.manager import GraphVersionManager
    from changeover.server.app import create_app

    logging.getLogger("changeover").addHandler(logging.NullHandler())
    manager = GraphVersionManager.open(options.folder, options.database, token=options.token)
    await stack.enter_async_context(manager)
    return httpx.AsyncClient(
        transport=InProcessTransport(create_app(manager)),
        base_url=IN_PROCESS_URL,
        headers=_introduction(manager.settings.token),
    )


def _introduction(token: str | None) -> dict[str, str]:
    """Who asks: the token for the server, the name for its history."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in some containers
        name = "cli"
    said = {"changeover-actor": name.encode("ascii", "ignore").decode() or "cli"}
    return {**said, "authorization": f"Bearer {token}"} if token else said


def _checked_url(url: str) -> str:
    import httpx

    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidRequest(f"'{url}' is not the address of a server", hint="give one such as http://127.0.0.1:2024")
    return url.rstrip("/")


class _network:
    """What can go wrong on the way, as our errors."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._url = str(http.base_url).rstrip("/")

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        import httpx

        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            raise Unavailable(
                f"no server answers at {self._url}",
                code="unreachable",
                hint="start one with `changeover serve`, or name another with --url",
            ) from None
        if isinstance(error, httpx.TimeoutException):
            raise TimedOut(f"{self._url} did not answer in time", hint="the work goes on; look at `changeover status`")
        if isinstance(error, httpx.TransportError):
            raise Unavailable(
                f"the connection to {self._url} was lost: {error or type(error).__name__}",
                code="unreachable",
                hint="look whether the server still runs, then ask again",
            ) from None


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        if "json" not in response.headers.get("content-type", "json") and not _is_stream(response):
            raise Unavailable(f"{response.url} does not answer as changeover does", hint="check the address")
        return response
    raise error_of(response.status_code, _problem(response))


def _is_stream(response: httpx.Response) -> bool:
    return "text/event-stream" in str(response.headers.get("content-type", ""))


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        body = None
    return body if isinstance(body, dict) else {}


def error_of(status: int, problem: Mapping[str, Any]) -> ChangeoverError:
    """The error that a problem document (RFC 9457) tells of."""
    from changeover.project.problems import Problem

    code = problem.get("code")
    extra = {name: value for name, value in problem.items() if name not in _DOCUMENT_MEMBERS}
    if code == ProjectError.default_code:
        problems = [Problem.from_json(one) for one in extra.get("problems", [])]
        return ProjectError(problems, version=extra.get("version"))
    message = str(problem.get("detail") or problem.get("title") or f"the server answered with status {status}")
    hint = problem.get("hint")
    if status in (401, 403) and not hint:
        hint = "give the server's token with --token or CHANGEOVER_TOKEN"
    kind = _KINDS.get(status, ChangeoverError)
    extra = {name: value for name, value in extra.items() if name not in ("message", "self")}
    return kind(message, code=code if isinstance(code, str) else None, hint=hint, **extra)
