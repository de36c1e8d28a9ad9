"""Chat models by name, shared by all who ask for the same configuration.

Owns the way from a name or a provider string to a client: values from the environment are put in, `demo:rules` is built
in, everything else goes to langchain's `init_chat_model`. Who uses a client is counted by the pool of resources.

Invariants: the same resolved configuration gives the same object; a model of two versions has one rate limit; a
resolved value (it may be a secret) is kept nowhere but in the client itself, the pool's keys are keyed hashes in memory
only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

from langchain.chat_models import init_chat_model
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.rate_limiters import InMemoryRateLimiter

from changeover.errors import ProjectError
from changeover.project.environment import MissingVariable, resolve
from changeover.project.models import ModelSpec, RateLimit
from changeover.project.providers import DEMO_MODEL, missing_package, wrong_with
from changeover.resources.demo import DemoRules
from changeover.resources.model_connections import (
    Connections,
    for_openai,
    is_built_on_openai,
    line_of,
    takes_connections,
)
from changeover.resources.model_credentials import with_key
from changeover.resources.model_diagnosis import Diagnosis, Place
from changeover.resources.need import Key, Keys
from changeover.resources.resource import Resource

if TYPE_CHECKING:
    from changeover.project.load import Project

_CHECK_S = (0.005, 0.1)  # how often a request that has to wait looks again: at least and at most


OpenModel = Callable[[Connections | None], BaseChatModel]


class SharedModel(NamedTuple):
    """A client, how the project calls it, its key, and the connections that it shares with others."""

    name: str
    key: Key
    client: BaseChatModel
    connections: Connections | None


class ModelPool:
    """Clients by a keyed hash of their resolved configuration, for as long as anything has them.

    Safe to use from several threads; makes each once.
    """

    def __init__(self, keys: Keys | None = None) -> None:
        self._keys = keys or Keys()
        self._lock = threading.Lock()
        self._making: WeakValueDictionary[Key, threading.Lock] = WeakValueDictionary()
        self._models: WeakValueDictionary[Key, BaseChatModel] = WeakValueDictionary()
        self._used: WeakValueDictionary[Key, Connections] = WeakValueDictionary()  # by the key of a client
        self._connections: WeakValueDictionary[Key, Connections] = WeakValueDictionary()  # by what they lead to
        self._limiters: WeakValueDictionary[Key, InMemoryRateLimiter] = WeakValueDictionary()

    def get(
        self, name: str, configuration: Mapping[str, Any], make: OpenModel, line: Mapping[str, Any] | None = None
    ) -> SharedModel:
        """The client of `configuration`, made by `make` when it is the first to be asked for.

        Clients with the same `line` share connections.
        """
        key = self._keys.of("model", configuration)
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            model, connections = self._models.get(key), self._used.get(key)
            if model is None:
                connections = self._connected(line) if line is not None else None
                model = self._models[key] = make(connections)
                if connections is not None:
                    self._used[key] = connections
            return SharedModel(name, key, model, connections)

    def limiter(self, configuration: Mapping[str, Any], limit: RateLimit) -> InMemoryRateLimiter:
        """One for all clients of the same `configuration`, so that those of two versions do not send twice as much."""
        key = self._keys.of("model", {**configuration, "rate_limit": limit.model_dump()})
        with self._lock:
            found = self._limiters.get(key)
            if found is None:
                found = self._limiters[key] = _limiter(limit)
            return found

    async def close(self) -> None:
        """Close what is open still; a client that is asked after that connects anew."""
        with self._lock:
            left = list(self._connections.values())
        for connections in left:
            await connections.close()

    def __len__(self) -> int:
        return len(self._models)

    def _connected(self, line: Mapping[str, Any]) -> Connections:
        key = self._keys.of("model", {"line": line})
        with self._lock:
            found = self._connections.get(key)
            if found is None:
                found = self._connections[key] = Connections(line)
            return found


class ModelClient(Resource):
    """A client of `ModelPool` that versions use. With the last one on its connections these are closed."""

    def __init__(self, connections: Connections | None) -> None:
        super().__init__()
        self._connections = connections

    async def open(self) -> None:
        if self._connections is not None:
            self._connections.take()

    async def close(self) -> None:
        if self._connections is not None:
            await self._connections.give_back()


def model_chain(
    name_or_provider: str, project: Project, env: Mapping[str, str], pool: ModelPool, place: Place = ("models",)
) -> list[SharedModel]:
    """The model and the models to fall back to, in order. Raises `ProjectError`.

    An agent needs them one by one: `create_agent` binds tools to a chat model, not to a chain of them. `place` is where
    the name or string stands, for problems of a string that has no name in `models`.
    """
    bench = _Bench(project, env, pool, place)
    name = str(bench.resolved(name_or_provider, Diagnosis(project, name_or_provider, {}, env, None, place)))
    if name not in project.models:
        return [bench.open(ModelSpec(model=name), None)]
    return [bench.open(project.models[each], each) for each in _with_fallbacks(name, project)]


def _with_fallbacks(name: str, project: Project) -> list[str]:
    """The names in the order in which they are asked: behind each what it falls back to itself, and none twice."""
    found: list[str] = []
    left = [name]
    while left:
        name = left.pop(0)
        if name in found:
            continue
        found.append(name)
        fallbacks = project.models[name].fallbacks
        if unknown := next((other for other in fallbacks if other not in project.models), None):
            message = f"model '{name}': fallback '{unknown}' is not in models"
            raise ProjectError([project.problem("unknown-model", message, "models", name, "fallbacks")])
        left = [*fallbacks, *left]
    return found


@dataclass(frozen=True)
class _Bench:
    """Where the clients of one version are opened."""

    project: Project
    env: Mapping[str, str]
    pool: ModelPool
    place: Place

    def open(self, spec: ModelSpec, name: str | None) -> SharedModel:
        written = Diagnosis(self.project, spec.model, spec.params, self.env, name, self.place)
        model = str(self.resolved(spec.model, written))
        given = dict(self.resolved(spec.params, written))
        if wrong := wrong_with(model, given):
            message, hint = wrong if model == spec.model else ("its value names no model", "")
            raise ProjectError([written.problem("unknown-model", message, "model", hint=hint)])
        if missing := missing_package(model, given):
            raise ProjectError([written.not_installed(missing)])
        try:
            return self._shared(name or spec.model, model, with_key(model, given, self.env), spec.rate_limit)
        except Exception as error:  # a provider's package may raise anything
            # what it raised may hold a key, and a traceback shows its cause
            raise ProjectError(written.problems(error)) from None

    def _shared(self, name: str, model: str, params: Mapping[str, Any], limit: RateLimit | None) -> SharedModel:
        line = line_of(model, params)
        configuration = {"model": model, "params": params, "rate_limit": limit and limit.model_dump()}

        def make(connections: Connections | None) -> BaseChatModel:
            more = dict(connections.params) if connections else {}
            if limit is not None:
                more["rate_limiter"] = self.pool.limiter({"name": name, "model": model, **line}, limit)
            given = for_openai(params) if is_built_on_openai(model, params) else params
            return _client(model, {**given, **more})

        return self.pool.get(name, configuration, make, line if takes_connections(model, params) else None)

    def resolved(self, value: Any, written: Diagnosis) -> Any:
        try:
            return resolve(value, self.env)
        except MissingVariable as missing:
            problem = written.problem("env-missing", str(missing), hint="set it, or write a default")
            raise ProjectError([problem]) from None


def _client(model: str, params: Mapping[str, Any]) -> BaseChatModel:
    if model == DEMO_MODEL:
        return DemoRules(**params)
    client: BaseChatModel = init_chat_model(model, **params)
    return client


def _limiter(limit: RateLimit) -> InMemoryRateLimiter:
    """A bucket that is full at first: an edit that opens a client anew does not make its first callers wait."""
    least_s, most_s = _CHECK_S
    check_s = min(max(0.5 / limit.requests_per_second, least_s), most_s)
    limiter = InMemoryRateLimiter(
        requests_per_second=limit.requests_per_second, check_every_n_seconds=check_s, max_bucket_size=limit.burst
    )
    limiter.available_tokens = float(limit.burst)
    return limiter
