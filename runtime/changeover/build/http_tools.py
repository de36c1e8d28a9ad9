"""Tools of the kind `http` as langchain tools, and what tools of the kinds `http` and `openapi` need live.

Owns the way from a model's arguments to a call and back: what a model is told of a tool, and that whatever goes wrong
with a call is an answer that the model reads, so that the agent goes on. Connections are `resources.http`'s.

Invariant: no value of the environment is in a tool; it is in what the tool finds live when it is called.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, ToolException
from pydantic import PrivateAttr

from changeover.build.surroundings import Surroundings
from changeover.errors import ProjectError
from changeover.login import logins_in
from changeover.project.environment import MissingVariable, references, resolve
from changeover.project.http_tools import (
    Options,
    base_of,
    call_of,
    header_faults,
    options,
    url_fault,
    whole_url,
    written,
)
from changeover.project.load import Project
from changeover.project.models import ToolSpec
from changeover.project.operations import BadArguments, Operation
from changeover.project.problems import Problem
from changeover.resources.http import Call, HttpClient, HttpConfig
from changeover.resources.http_answers import HttpFailure
from changeover.resources.need import Need
from changeover.resources.pool import Handle
from changeover.resources.resource import ResourceDown
from changeover.secret_values import Secrets

if TYPE_CHECKING:
    from changeover.build.parts import Parts

WAIT_S = 5.0  # for connections that are being opened just when they are needed


def http_need(name: str, project: Project, around: Surroundings) -> Need:
    """The connections that the tool `name` needs. Raises `ProjectError`."""
    spec = project.tools[name]
    config = _Reading(name, spec, project, around.environment).config()
    return Need(
        kind="http",
        name=name,
        key=around.keys.of("http", [config.base.pieces, config.headers, config.private, sorted(config.secrets.values)]),
        make=lambda: HttpClient(config),
        problem=lambda reason: project.problem("http", f"tool '{name}': {reason}", "tools", name, on_key=True),
        secrets=around.secrets(_texts(spec)),
    )


def http_tool(name: str, spec: ToolSpec, handle: Handle, parts: Parts) -> BaseTool:
    """The tool `name`, of the kind `http`. Raises `ProjectError`."""
    assert spec.http is not None
    operation, faults = call_of(spec.http, spec)
    if faults:
        problems = [
            parts.problem("tool-schema", f"tool '{name}': {each.message}", "tools", name, "args", *each.path)
            for each in faults
        ]
        raise ProjectError(problems)
    return HttpTool.of(name, spec.description, operation, options(spec.http)[0], handle)


class HttpTool(BaseTool):
    """Calls one operation. Its arguments are checked against their schema, which `args_schema` alone does not do."""

    handle_tool_error: bool = True
    _operation: Operation = PrivateAttr()
    _options: Options = PrivateAttr()
    _handle: Handle = PrivateAttr()

    @classmethod
    def of(cls, name: str, description: str, operation: Operation, options: Options, handle: Handle) -> HttpTool:
        tool = cls(name=name, description=description, args_schema=operation.schema)
        tool._operation = operation
        tool._options = options
        tool._handle = handle
        return tool

    def _to_args_and_kwargs(
        self, tool_input: str | dict[str, Any], tool_call_id: str | None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The checked arguments as one: their names are the project's, and may be those of Python's parameters."""
        if not isinstance(tool_input, dict):
            raise ToolException(f"{self.name} takes its arguments by name")
        try:
            return (self._operation.values(tool_input), tool_call_id), {}
        except BadArguments as error:
            raise ToolException(f"wrong arguments: {error}") from None

    def _run(self, values: dict[str, Any], call_id: str | None, config: RunnableConfig) -> str:
        with self._told():
            return cast("HttpClient", self._handle.live()).answer_now(self._call(values, call_id, config))

    async def _arun(self, values: dict[str, Any], call_id: str | None, config: RunnableConfig) -> str:
        with self._told():
            client = cast("HttpClient", await self._handle.ready(WAIT_S))
            return await client.answer(self._call(values, call_id, config))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong is told to the model."""
        try:
            yield
        except (BadArguments, HttpFailure, ResourceDown) as error:
            raise ToolException(f"{self.name} failed: {error}") from None

    def _call(self, values: dict[str, Any], call_id: str | None, config: RunnableConfig) -> Call:
        return Call(self._operation, self._options, values, self._key(values, call_id, config))

    def _key(self, values: dict[str, Any], call_id: str | None, config: RunnableConfig) -> str:
        """The same for the same call of the same conversation, also when its step is done again."""
        if call_id is None:
            return ""
        place = config.get("configurable", {})
        thread = [str(place.get(key, "")) for key in ("thread_id", "checkpoint_ns")]
        text = json.dumps([self.name, call_id, thread, values], sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class _Reading:
    """The configuration of a client from what is written and the environment."""

    def __init__(self, name: str, spec: ToolSpec, project: Project, env: Mapping[str, str]) -> None:
        self._name = name
        self._spec = spec
        self._project = project
        self._env = env
        self._inside = (name, "http") if spec.http else (name,)

    def config(self) -> HttpConfig:
        given = written(self._spec)
        try:
            base = base_of(self._spec, self._project).resolved(self._env)
            whole = whole_url(self._spec, self._project).resolved(self._env)
            headers = tuple((name, resolve(value, self._env).strip()) for name, value in given.headers.items())
            wrong = header_faults(given.headers, self._env)
        except MissingVariable as missing:
            raise ProjectError([self._problem(str(missing), *self._inside, code="env-missing")]) from None
        if fault := url_fault(whole, whole=self._spec.http is not None, private=given.private):
            key = "url" if self._spec.http else "base_url" if self._spec.base_url is not None else "openapi"
            raise ProjectError([self._problem(f"its URL {fault}", *self._inside, key)])
        if wrong:
            raise ProjectError(
                [self._problem(f"header '{name}' {text}", *self._inside, "headers", name) for name, text in wrong]
            )
        return HttpConfig(base, headers, given.private, self._secrets(str(base.pieces[0])))

    def _secrets(self, start: str) -> Secrets:
        """What no answer may show. `start` is the URL's, which may have a login that is put together of values."""
        written, *_ = texts = _texts(self._spec)
        values = {self._env[name].strip() for name in references(texts) if self._env.get(name)}
        made = (login.secrets for login in logins_in(start) if login.written not in written)
        return Secrets(frozenset(value for value in values if not _is_only_server(value)).union(*made))

    def _problem(self, text: str, *place: str | int, code: str = "tool-schema") -> Problem:
        return self._project.problem(code, f"tool '{self._name}': {text}", "tools", *place)


def _texts(spec: ToolSpec) -> list[str]:
    """What of a tool's entry may refer to the environment."""
    return [spec.http.url if spec.http else spec.base_url or "", *written(spec).headers.values()]


def _is_only_server(value: str) -> bool:
    """The host of the server alone is no secret, and stands in the links of many an answer."""
    parsed = urlsplit(value)
    is_server = parsed.scheme in ("http", "https") and parsed.netloc and "@" not in parsed.netloc
    return bool(is_server and parsed.path in ("", "/") and not parsed.query)
