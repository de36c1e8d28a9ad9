"""Chat models by name, shared by all who ask for the same configuration.

Owns the way from a name or a provider string to a client: values from the environment are put in, `demo:rules` is built
in, everything else goes to langchain's `init_chat_model`. It does not close clients and does not count their uses.

Invariants: the same resolved configuration gives the same object, and with it one rate limit; a resolved value (it may
be a secret) is kept nowhere but in the client itself, the pool's keys are keyed hashes in memory only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain.chat_models import init_chat_model
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.rate_limiters import InMemoryRateLimiter

from changeover.errors import ProjectError
from changeover.project.environment import MissingVariable, resolve
from changeover.project.models import ModelSpec, RateLimit
from changeover.project.providers import DEMO_MODEL, wrong_with
from changeover.resources.demo import DemoRules
from changeover.resources.diagnosis import Diagnosis, Place
from changeover.resources.fallbacks import ModelWithFallbacks
from changeover.resources.keys import with_key
from changeover.resources.need import Key, Keys
from changeover.resources.resource import Resource

if TYPE_CHECKING:
    from changeover.project.load import Project

_CHECK_S = (0.005, 0.1)  # how often a request that has to wait looks again: at least and at most


class ModelPool:
    """Clients by a keyed hash of their resolved configuration. Safe to use from several threads; opens each once."""

    def __init__(self, keys: Keys | None = None) -> None:
        self._keys = keys or Keys()
        self._lock = threading.Lock()
        self._opening: dict[Key, threading.Lock] = {}
        self._models: dict[Key, BaseChatModel] = {}
        self._keys_of: dict[int, Key] = {}  # by the client's identity

    def get(self, configuration: Mapping[str, Any], open_model: Callable[[], BaseChatModel]) -> BaseChatModel:
        """The client of `configuration`, made by `open_model` when it is the first to be asked for."""
        key = self._keys.of("model", configuration)
        with self._lock:
            opening = self._opening.setdefault(key, threading.Lock())
        with opening:
            model = self._models.get(key)
            if model is None:
                model = self._models[key] = open_model()
                self._keys_of[id(model)] = key
            return model

    def key_of(self, model: BaseChatModel) -> Key:
        """The key of a client that `get` gave."""
        return self._keys_of[id(model)]

    def keep_only(self, keys: Collection[Key]) -> None:
        """Forget the others: whoever has such a client goes on with it, who asks for it next gets a new one.

        Not for while anybody is between `get` and the use of its key.
        """
        with self._lock:
            for key in self._models.keys() - keys:
                self._keys_of.pop(id(self._models.pop(key)), None)
                self._opening.pop(key, None)

    def __len__(self) -> int:
        return len(self._models)


class ModelClient(Resource):
    """A client of `ModelPool`, for as long as versions use it; there is nothing to open or to close."""


def build_model(
    name_or_provider: str, project: Project, env: Mapping[str, str], pool: ModelPool, place: Place = ("models",)
) -> BaseChatModel:
    """The model of that name or provider string; with its fallbacks behind it, where it has some."""
    models = model_chain(name_or_provider, project, env, pool, place)
    return ModelWithFallbacks.of(models) if len(models) > 1 else models[0]


def model_chain(
    name_or_provider: str, project: Project, env: Mapping[str, str], pool: ModelPool, place: Place = ("models",)
) -> list[BaseChatModel]:
    """The model and the models to fall back to, in order. Raises `ProjectError`.

    An agent needs them one by one: `create_agent` binds tools to a chat model, not to a chain of them. `place` is where
    the name or string stands, for problems of a string that has no name in `models`.
    """
    bench = _Bench(project, env, pool, place)
    name = str(bench.resolved(name_or_provider, Diagnosis(project, name_or_provider, {}, env, None, place)))
    if name not in project.models:
        return [bench.open(ModelSpec(model=name), None)]
    spec = project.models[name]
    return [bench.open(spec, name), *(bench.fallback(name, other) for other in spec.fallbacks)]


@dataclass(frozen=True)
class _Bench:
    """Where the clients of one version are opened."""

    project: Project
    env: Mapping[str, str]
    pool: ModelPool
    place: Place

    def open(self, spec: ModelSpec, name: str | None) -> BaseChatModel:
        written = Diagnosis(self.project, spec.model, spec.params, self.env, name, self.place)
        model = str(self.resolved(spec.model, written))
        given = dict(self.resolved(spec.params, written))
        if wrong := wrong_with(model, given):
            message, hint = wrong if model == spec.model else ("its value names no model", "")
            raise ProjectError([written.problem("unknown-model", message, "model", hint=hint)])
        params = with_key(model, given, self.env)
        limit = spec.rate_limit
        try:
            return self.pool.get(
                {"model": model, "params": params, "rate_limit": limit and limit.model_dump()},
                lambda: _client(model, params, limit),
            )
        except Exception as error:  # a provider's package may raise anything
            # what it raised may hold a key, and a traceback shows its cause
            raise ProjectError(written.problems(error)) from None

    def fallback(self, name: str, other: str) -> BaseChatModel:
        if other not in self.project.models:
            message = f"model '{name}': fallback '{other}' is not in models"
            raise ProjectError([self.project.problem("unknown-model", message, "models", name, "fallbacks")])
        return self.open(self.project.models[other], other)

    def resolved(self, value: Any, written: Diagnosis) -> Any:
        try:
            return resolve(value, self.env)
        except MissingVariable as missing:
            problem = written.problem("env-missing", str(missing), hint="set it, or write a default")
            raise ProjectError([problem]) from None


def _client(model: str, params: dict[str, Any], limit: RateLimit | None) -> BaseChatModel:
    if limit is not None:
        params = {**params, "rate_limiter": _limiter(limit)}
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
