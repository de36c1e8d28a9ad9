"""Requests of the run protocol, checked: what is not honoured yet is refused in words, never ignored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from langgraph.types import Command, Send
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from changeover.errors import InvalidRequest
from changeover.runs.request import RunRequest
from changeover.server.problems import invalid
from changeover.store.records import ThreadId, VersionId

StreamMode = Literal[
    "values", "updates", "messages", "messages-tuple", "custom", "tasks", "checkpoints", "debug", "events"
]
Names = Literal["*"] | list[str]
Durability = Literal["sync", "async", "exit"]

_NOT_YET: dict[str, tuple[object, ...]] = {
    "checkpoint": (),
    "checkpoint_id": (),
    "webhook": (),
    "feedback_keys": ([],),
    "after_seconds": (0,),
    "stream_resumable": (False,),
    "strict_resume": (False,),
    "on_completion": ("delete",),
    "multitask_strategy": ("enqueue",),
    "langsmith_tracer": (),
}
"""Fields that are known and not honoured, with the values that ask for nothing."""
THREAD_ID = r"[A-Za-z0-9_.:@-]{1,255}"
_RESERVED_CONFIGURABLE = ("checkpoint_id", "checkpoint_ns", "checkpoint_map")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class SendBody(Strict):
    node: str
    input: Any = None


Goto = str | SendBody


class CommandBody(Strict):
    """What a client sends for a `Command`. An absent `resume` is not the answer null."""

    resume: Any = None
    goto: Goto | list[Goto] | None = None
    update: dict[str, Any] | list[Annotated[list[Any], Field(min_length=2, max_length=2)]] | None = None

    def command(self) -> Command[Any]:
        given: dict[str, Any] = {}
        if "resume" in self.model_fields_set:
            given["resume"] = self.resume
        if self.goto is not None:
            targets = self.goto if isinstance(self.goto, list) else [self.goto]
            given["goto"] = [Send(to.node, to.input) if isinstance(to, SendBody) else to for to in targets]
        if self.update is not None:
            pairs = [tuple(pair) for pair in self.update] if isinstance(self.update, list) else self.update
            given["update"] = pairs
        if not given:
            raise InvalidRequest("command: it is empty", hint="give resume, goto or update")
        return Command(**given)


class ConfigBody(Strict):
    tags: list[str] | None = None
    recursion_limit: Annotated[int, Field(ge=1, le=100_000)] | None = None
    max_concurrency: Annotated[int, Field(ge=1, le=10_000)] | None = None
    run_name: str | None = None
    metadata: dict[str, Any] | None = None
    configurable: dict[str, Any] | None = None

    def config(self, thread_id: str | None) -> dict[str, Any]:
        for key, value in (self.configurable or {}).items():
            if key.startswith("__") or (key in _RESERVED_CONFIGURABLE and value not in (None, "")):
                raise InvalidRequest(f"config.configurable.{key[:100]}: it is set by the server")
            if key == "thread_id" and value != thread_id:
                raise InvalidRequest("config.configurable.thread_id: it is not the thread of the path")
        return self.model_dump(exclude_none=True)


class RunBody(Strict):
    """The body of `/runs/wait` and `/runs/stream`."""

    assistant_id: str = Field(min_length=1, max_length=255)
    input: Any = None
    command: CommandBody | None = None
    config: ConfigBody | None = None
    context: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    stream_mode: StreamMode | list[StreamMode] | None = None
    stream_subgraphs: bool | None = None
    interrupt_before: Names | None = None
    interrupt_after: Names | None = None
    durability: Durability | None = None
    checkpoint_during: bool | None = None
    if_not_exists: Literal["create", "reject"] | None = None
    on_disconnect: Literal["cancel", "continue"] | None = None

    checkpoint: Any = None
    checkpoint_id: Any = None
    webhook: Any = None
    feedback_keys: Any = None
    after_seconds: Any = None
    stream_resumable: Any = None
    strict_resume: Any = None
    on_completion: Any = None
    multitask_strategy: Any = None
    langsmith_tracer: Any = None

    @property
    def modes(self) -> list[StreamMode]:
        given = self.stream_mode or ["values"]
        return [given] if isinstance(given, str) else given

    def request(self, graph: str, thread_id: str | None, version: str | None, modes: list[str]) -> RunRequest:
        """The run that is asked for."""
        if self.command is not None and self.input is not None:
            raise InvalidRequest("input and command: give one of them", hint="a command carries its own `update`")
        return RunRequest(
            graph,
            self.command.command() if self.command is not None else self.input,
            ThreadId(thread_id) if thread_id is not None else None,
            VersionId(version) if version is not None else None,
            stream_modes=modes,
            subgraphs=bool(self.stream_subgraphs),
            config=self.config.config(thread_id) if self.config is not None else {},
            context=self.context,
            metadata=self.metadata or {},
            interrupt_before=self.interrupt_before,
            interrupt_after=self.interrupt_after,
            durability=self._durability(),
            create_thread=self.if_not_exists == "create",
        )

    def _durability(self) -> Durability | None:
        if self.durability is None and self.checkpoint_during is not None:  # its older name
            return "async" if self.checkpoint_during else "exit"
        return self.durability


def thread_id_of(path_params: Mapping[str, Any]) -> str | None:
    """The thread of the path, which ends up in headers and rows."""
    given = path_params.get("thread_id")
    if given is None:
        return None
    if re.fullmatch(THREAD_ID, given) is None:
        raise InvalidRequest("thread_id: 1 to 255 letters, digits or any of _ . : @ -", code="bad-thread-id")
    return str(given)


def run_body(data: bytes) -> RunBody:
    """The body of a run, or `InvalidRequest` that names what is wrong with it."""
    try:
        body = RunBody.model_validate_json(data)
    except ValidationError as error:
        raise invalid(list(error.errors(include_url=False, include_input=False, include_context=False))) from None
    for name in body.model_fields_set & _NOT_YET.keys():
        value = getattr(body, name)
        if value is not None and value not in _NOT_YET[name]:
            allowed = _NOT_YET[name]
            hint = f"leave it out, or send {allowed[0]!r}" if allowed else "leave it out"
            raise InvalidRequest(f"{name}: this server does not support it yet", code="unsupported", hint=hint)
    if "events" in body.modes:
        raise InvalidRequest("stream_mode: 'events' is not supported yet", code="unsupported", hint="use another mode")
    return body
