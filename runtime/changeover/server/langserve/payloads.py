"""Bodies of LangServe's routes, and what becomes of the config that a `RemoteRunnable` sends along.

Both clients send the whole config of the call they stand in, in Python's spelling or in JavaScript's. What is not
honoured is refused, with two exceptions: what LangGraph wrote into the config for the node that the client runs in
describes the caller's graph and is dropped, and a recursion limit of 25 is what a client sends where nobody chose one,
so that the graph's own stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field

from changeover.errors import InvalidRequest
from changeover.server.langgraph.objects import Json, JsonObject
from changeover.server.langgraph.payloads import OF_A_CALLING_GRAPH, Strict, check_thread_id

UNCHOSEN_RECURSION_LIMIT = 25
BATCH_LIMIT = 1_000

_CHECKPOINT = frozenset({"checkpoint_id", "checkpoint_ns", "checkpoint_map"})

EventsVersion = Literal["v1", "v2"]


def _either(snake: str, camel: str) -> Any:
    return Field(default=None, validation_alias=AliasChoices(snake, camel))


class Config(Strict):
    """A `RunnableConfig` as it travels: without callbacks, in the spelling of either language."""

    tags: list[str] | None = None
    metadata: JsonObject | None = None
    configurable: JsonObject | None = None
    run_name: str | None = _either("run_name", "runName")
    recursion_limit: Annotated[int, Field(ge=1, le=100_000)] | None = _either("recursion_limit", "recursionLimit")
    max_concurrency: Annotated[int, Field(ge=1, le=10_000)] | None = _either("max_concurrency", "maxConcurrency")
    return_exceptions: Literal[False] | None = _either("return_exceptions", "returnExceptions")

    def settings(self) -> Settings:
        configurable = self._configurable()
        thread = configurable.pop("thread_id", None)
        if thread is not None and not isinstance(thread, str):
            raise InvalidRequest("config.configurable.thread_id: it must be text")
        if thread is not None:
            check_thread_id(thread)
        given: dict[str, Any] = {
            "tags": self.tags,
            "run_name": self.run_name,
            "recursion_limit": None if self.recursion_limit == UNCHOSEN_RECURSION_LIMIT else self.recursion_limit,
            "max_concurrency": self.max_concurrency,
            "configurable": configurable,
        }
        config = {key: value for key, value in given.items() if value}
        return Settings(config, self.metadata or {}, thread)

    def _configurable(self) -> dict[str, Any]:
        given = dict(self.configurable or {})
        if any(key.startswith(OF_A_CALLING_GRAPH) for key in given):  # the caller is a node of a graph of its own
            given = {key: item for key, item in given.items() if not (key.startswith("__") or key in _CHECKPOINT)}
        for key, item in given.items():
            if key.startswith("__") or (key in _CHECKPOINT and item not in (None, "")):
                raise InvalidRequest(f"config.configurable.{key[:100]}: it is set by the server")
        return {key: item for key, item in given.items() if key not in _CHECKPOINT}


@dataclass(frozen=True)
class Settings:
    """What a config asks of a run."""

    config: Mapping[str, Any]
    metadata: Mapping[str, Any]
    thread_id: str | None


class _Body(Strict):
    kwargs: Any = None

    def check_kwargs(self, allowed: Sequence[str] = ()) -> dict[str, Any]:
        """Keyword arguments of the call: those of a graph do not travel, so that there must be none."""
        given = self.kwargs if isinstance(self.kwargs, list) else [self.kwargs]
        for item in given:
            for key in _names(item):
                if key not in allowed:
                    raise InvalidRequest(f"kwargs.{key[:100]}: this server does not support it", code="unsupported")
        return dict(self.kwargs) if isinstance(self.kwargs, dict) else {}


def _names(kwargs: Any) -> Iterator[str]:
    if kwargs is None:
        return
    if not isinstance(kwargs, dict):
        raise InvalidRequest("kwargs: it must be an object")
    yield from (key for key, value in kwargs.items() if value is not None)


class InvokeBody(_Body):
    """The body of `invoke` and `stream`."""

    input: Json
    config: Config | None = None

    def settings(self) -> Settings:
        return (self.config or Config()).settings()


class BatchBody(_Body):
    """The body of `batch`: one config for all inputs, or one for each."""

    inputs: Annotated[list[Json], Field(max_length=BATCH_LIMIT)]
    config: Config | list[Config] | None = None

    def settings(self) -> list[Settings]:
        if isinstance(self.config, list) and self.config:
            if len(self.config) != len(self.inputs):
                raise InvalidRequest(f"config: there are {len(self.config)} for {len(self.inputs)} inputs")
            return [config.settings() for config in self.config]
        one = self.config if isinstance(self.config, Config) else Config()
        return [one.settings()] * len(self.inputs)

    @property
    def max_concurrency(self) -> int | None:
        first = self.config[0] if isinstance(self.config, list) and self.config else self.config
        return first.max_concurrency if isinstance(first, Config) else None


class LogBody(InvokeBody):
    """The body of `stream_log`. Patches are what both clients read, also the one that says `diff: false`."""

    diff: bool | None = None
    include_names: list[str] | None = None
    include_types: list[str] | None = None
    include_tags: list[str] | None = None
    exclude_names: list[str] | None = None
    exclude_types: list[str] | None = None
    exclude_tags: list[str] | None = None

    @property
    def filters(self) -> dict[str, list[str] | None]:
        names = ("include_names", "include_types", "include_tags", "exclude_names", "exclude_types", "exclude_tags")
        return {name: getattr(self, name) for name in names}


class EventsBody(LogBody):
    """The body of `stream_events`. The JavaScript client sends the version of the events among `kwargs`."""

    version: EventsVersion | None = None

    def wanted_version(self) -> EventsVersion:
        given = self.version or self.check_kwargs(("version",)).get("version") or "v2"
        if given not in ("v1", "v2"):
            raise InvalidRequest("version: it is 'v1' or 'v2'", code="unsupported")
        return given
