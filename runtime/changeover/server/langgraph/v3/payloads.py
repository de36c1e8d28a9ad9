"""What clients of this protocol send, checked."""

from __future__ import annotations

from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from changeover.server.langgraph.objects import Json, JsonObject
from changeover.server.langgraph.payloads import ConfigBody, Goto, Strict
from changeover.server.langgraph.v3.answers import Refused
from changeover.server.langgraph.v3.subscriptions import Filter
from changeover.store.records.run import MultitaskStrategy

Channel = Annotated[
    str,
    Field(
        pattern=r"^(values|updates|messages|tools|lifecycle|input|checkpoints|tasks|custom(:.+)?)$",
        max_length=255,
    ),
]
Namespace = Annotated[list[Annotated[str, Field(max_length=1_000)]], Field(max_length=64)]
Count = Annotated[int, Field(ge=0, le=2**53)]


class Wanted(Strict):
    """The body of `stream/events`, and what `subscription.subscribe` takes."""

    channels: Annotated[list[Channel], Field(min_length=1, max_length=100)]
    namespaces: Annotated[list[Namespace], Field(max_length=1_000)] | None = None
    depth: Count | None = None
    since: Count | None = None

    def filter(self) -> Filter:
        return Filter(frozenset(self.channels), tuple(map(tuple, self.namespaces or ())), self.depth)


class Command(BaseModel):
    """A command before its own parameters are looked at."""

    id: Annotated[int, Field(strict=True, ge=0, le=2**53)]
    method: Annotated[str, Field(strict=True, max_length=255)]
    params: Any = None


class _Run(Strict):
    config: ConfigBody | None = None
    metadata: JsonObject | None = None
    if_match: Annotated[str, Field(min_length=1, max_length=100)] | None = None  # as the header, which a socket has not


class RunStart(_Run):
    """`multitask_strategy` goes by two names: older clients know only the one in camel case."""

    assistant_id: str = Field(min_length=1, max_length=255)
    input: Json = None
    multitask_strategy: MultitaskStrategy | None = None
    multitaskStrategy: MultitaskStrategy | None = None
    langsmith_tracer: Any = None

    @property
    def strategy(self) -> MultitaskStrategy:
        return self.multitask_strategy or self.multitaskStrategy or "enqueue"

    @model_validator(mode="after")
    def _says_one_strategy(self) -> Self:
        if len({self.multitask_strategy, self.multitaskStrategy} - {None}) > 1:
            raise ValueError("multitask_strategy and multitaskStrategy differ")
        return self


class Response(Strict):
    interrupt_id: Annotated[str, Field(min_length=1, max_length=255)]
    namespace: Namespace = Field(default_factory=list)
    response: Json = None


class InputRespond(_Run):
    """One answer, or several to interrupts of the same checkpoint."""

    interrupt_id: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    namespace: Namespace = Field(default_factory=list)
    response: Json = None
    responses: Annotated[list[Response], Field(min_length=1, max_length=1_000)] | None = None
    update: JsonObject | None = None
    goto: Goto | list[Goto] | None = None
    strict_resume: bool | None = None  # answers to what nobody asked are always refused

    @property
    def answers(self) -> dict[str, Any]:
        """The answers by their interrupts."""
        if self.responses is not None:
            return {one.interrupt_id: one.response for one in self.responses}
        return {self.interrupt_id or "": self.response}

    @model_validator(mode="after")
    def _answers_something(self) -> Self:
        if (self.interrupt_id is None) == (self.responses is None):
            raise ValueError("give interrupt_id and response, or responses")
        return self


class Unsubscribe(Strict):
    subscription_id: str


class StateGet(Strict):
    namespace: Namespace = Field(default_factory=list)
    keys: list[str] | None = None


class ListCheckpoints(Strict):
    namespace: Namespace = Field(default_factory=list)
    limit: Annotated[int, Field(ge=1, le=1_000)] = 10
    before: Annotated[str, Field(min_length=1, max_length=255)] | None = None


class Fork(Strict):
    checkpoint_id: Annotated[str, Field(min_length=1, max_length=255)]
    input: Json = None
    config: ConfigBody | None = None


class GetTree(Strict):
    run_id: str | None = None


Params = TypeVar("Params", bound=BaseModel)


def params(model: type[Params], given: Any) -> Params:
    """The parameters of a command. Raises `Refused` that names what is wrong with them."""
    try:
        return model.model_validate({} if given is None else given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        at = ".".join(map(str, first["loc"])) or "params"
        raise Refused("invalid_argument", f"{at}: {first['msg']}") from None
