"""Requests of the run protocol, checked: what is not honoured is refused in words, never ignored."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from changeover.errors import InvalidRequest
from changeover.server.langgraph.objects import Json, JsonObject
from changeover.server.problems import invalid
from changeover.store.records.run import MultitaskStrategy

StreamMode = Literal[
    "values", "updates", "messages", "messages-tuple", "custom", "tasks", "checkpoints", "debug", "events", "tools"
]
Names = Literal["*"] | list[str]
Durability = Literal["sync", "async", "exit"]
FeedbackKey = Annotated[str, Field(min_length=1, max_length=255)]
OnCompletion = Literal["delete", "keep"]
OnDisconnect = Literal["cancel", "continue"]

MAX_DELAY_S = 366 * 24 * 3600.0
_NOT_HONOURED: dict[str, str] = {
    "langsmith_tracer": "set LANGSMITH_PROJECT in the environment of the server",
}
"""Fields that clients know and this server does not honour, with what to do instead."""
THREAD_ID = r"[A-Za-z0-9_.:@-]{1,255}"
_RESERVED_CONFIGURABLE = ("checkpoint_ns", "checkpoint_map")
OF_A_CALLING_GRAPH = ("__pregel_", "__changeover_")
"""Keys that `RemoteGraph` sends along as a node: they describe the run that it is a part of. They are dropped."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class SendBody(Strict):
    node: str
    input: Json = None


Goto = str | SendBody


class CommandBody(Strict):
    """What a client sends for a `Command`. An absent `resume` is not the answer null."""

    resume: Json = None
    goto: Goto | list[Goto] | None = None
    update: JsonObject | list[Annotated[list[Json], Field(min_length=2, max_length=2)]] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set & {"resume", "goto", "update"}:
            raise ValueError("it is empty: give resume, goto or update")
        return self


class ConfigBody(Strict):
    tags: list[str] | None = None
    recursion_limit: Annotated[int, Field(ge=1, le=100_000)] | None = None
    max_concurrency: Annotated[int, Field(ge=1, le=10_000)] | None = None
    run_name: str | None = None
    metadata: JsonObject | None = None
    configurable: JsonObject | None = None

    @field_validator("configurable")
    @classmethod
    def _is_the_callers(cls, given: dict[str, Any] | None) -> dict[str, Any] | None:
        if given is None:
            return None
        kept = {key: value for key, value in given.items() if not key.startswith(OF_A_CALLING_GRAPH)}
        for key, value in kept.items():
            if key.startswith("__") or (key in _RESERVED_CONFIGURABLE and value not in (None, "")):
                raise ValueError(f"{key[:100]} is set by the server")
        return kept


class CheckpointBody(Strict):
    """A checkpoint as `threads.get_state` gives it: where a run goes on from."""

    thread_id: str | None = None
    checkpoint_ns: str | None = None
    checkpoint_id: str | None = None
    checkpoint_map: JsonObject | None = None


class RunBody(Strict):
    """The body of a run, however it is waited for."""

    assistant_id: str = Field(min_length=1, max_length=255)
    input: Json = None
    command: CommandBody | None = None
    config: ConfigBody | None = None
    context: JsonObject | None = None
    metadata: JsonObject | None = None
    checkpoint: CheckpointBody | None = None
    checkpoint_id: str | None = None
    stream_mode: StreamMode | list[StreamMode] | None = None
    stream_subgraphs: bool | None = None
    stream_resumable: bool | None = None
    interrupt_before: Names | None = None
    interrupt_after: Names | None = None
    feedback_keys: Annotated[list[FeedbackKey], Field(max_length=50)] | None = None
    webhook: Annotated[str, Field(max_length=2_000)] | None = None
    multitask_strategy: MultitaskStrategy | None = None
    if_not_exists: Literal["create", "reject"] | None = None
    on_disconnect: OnDisconnect | None = None
    on_completion: OnCompletion | None = None
    after_seconds: Annotated[float, Field(ge=0, le=MAX_DELAY_S, strict=False)] | None = None
    durability: Durability | None = None
    checkpoint_during: bool | None = None
    strict_resume: bool | None = None
    langsmith_tracer: Any = None

    @model_validator(mode="after")
    def _is_clear(self) -> Self:
        if self.command is not None and self.input is not None:
            raise ValueError("input and command: give one of them; a command carries its own update")
        for name, instead in _NOT_HONOURED.items():
            if getattr(self, name) is not None:
                given = {"name": name, "instead": instead}
                raise PydanticCustomError("unsupported", "{name}: this server does not support it; {instead}", given)
        return self

    def kwargs(self, thread_id: str | None) -> dict[str, Any]:
        """The request as JSON, in the form that `runs.kwargs` reads."""
        kept = self.model_dump(include=_KWARGS, exclude_unset=True, exclude_none=True)
        if "input" in self.model_fields_set:
            kept["input"] = self.input
        if self.command is not None:
            kept["command"] = self.command.model_dump(exclude_unset=True)
        if self.config is not None:
            kept["config"] = self.config.model_dump(exclude_none=True)
            self._check_thread(kept["config"], thread_id)
        if self.durability is None and self.checkpoint_during is not None:  # its older name
            kept["durability"] = "async" if self.checkpoint_during else "exit"
        if checkpoint := self._checkpoint(kept.get("config", {}), thread_id):
            kept["checkpoint"] = checkpoint
        return kept

    def _checkpoint(self, config: dict[str, Any], thread_id: str | None) -> dict[str, Any] | None:
        """Where the run goes on from, whichever way that was said."""
        given = self.checkpoint.model_dump(exclude_none=True) if self.checkpoint else {}
        if given.pop("thread_id", thread_id) != thread_id:
            raise InvalidRequest("checkpoint.thread_id: it is not the thread of the path")
        id_ = self.checkpoint_id or config.get("configurable", {}).pop("checkpoint_id", None)
        if id_ is not None and given.setdefault("checkpoint_id", id_) != id_:
            raise InvalidRequest("checkpoint and checkpoint_id: they name different checkpoints")
        if not given.get("checkpoint_id"):
            return None
        if thread_id is None:
            raise InvalidRequest("checkpoint: a run without a thread has none", hint="name the thread in the path")
        return given

    def _check_thread(self, config: dict[str, Any], thread_id: str | None) -> None:
        named = config.get("configurable", {}).get("thread_id", thread_id)
        if named != thread_id:
            raise InvalidRequest("config.configurable.thread_id: it is not the thread of the path")


_KWARGS = {
    "context",
    "stream_mode",
    "stream_subgraphs",
    "stream_resumable",
    "interrupt_before",
    "interrupt_after",
    "feedback_keys",
    "webhook",
    "on_disconnect",
    "on_completion",
    "after_seconds",
    "durability",
    "strict_resume",
}


def check_thread_id(given: str) -> str:
    """A thread's id, which ends up in headers and rows."""
    if re.fullmatch(THREAD_ID, given) is None:
        raise InvalidRequest("thread_id: 1 to 255 letters, digits or any of _ . : @ -", code="bad-thread-id")
    return given


def run_body(data: bytes) -> RunBody:
    """The body of a run, or `InvalidRequest` that names what is wrong with it."""
    return parsed(RunBody, data)


Body = TypeVar("Body", bound=BaseModel)


def parsed(model: type[Body], data: bytes) -> Body:
    """JSON as a model, or `InvalidRequest` that names what is wrong with it."""
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise invalid(list(error.errors(include_url=False, include_input=False, include_context=False))) from None
