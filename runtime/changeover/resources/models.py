"""Chat models by name, shared by all who ask for the same configuration.

Owns the way from a name or a provider string to a client: values from the environment are put in, `demo:rules` is built
in, everything else goes to langchain's `init_chat_model`. It does not close clients and does not count their uses.

Invariants: the same resolved configuration gives the same object; a resolved value (it may be a secret) is kept nowhere
but in the client itself, the pool's keys are keyed hashes in memory only.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from langchain.chat_models import init_chat_model
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.runnables import Runnable

from changeover.errors import ProjectError
from changeover.project.environment import MissingVariable, resolve
from changeover.project.models import ModelSpec
from changeover.project.problems import Problem
from changeover.resources.demo import DemoRules
from changeover.resources.need import Key, Keys
from changeover.resources.resource import Resource

if TYPE_CHECKING:
    from changeover.project.load import Project

DEMO_MODEL = "demo:rules"
KEY_VARIABLES = {
    "anthropic": "ANTHROPIC_API_KEY",
    "google_genai": "GOOGLE_API_KEY",
    "groq": "GROQ_API_KEY",
    "mistralai": "MISTRAL_API_KEY",
    "openai": "OPENAI_API_KEY",
}
"""Where a provider's key is looked for if `params` has none: also in `.env`, which the providers do not read."""
_EXTRAS = {
    "anthropic": "anthropic",
    "azure_openai": "openai",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "google_genai": "google",
    "groq": "groq",
    "mistralai": "mistral",
    "ollama": "ollama",
    "openai": "openai",
}
_PIP = re.compile(r"pip install [-\w]+")
_KEY_WORDS = re.compile(r"\b[A-Z][A-Z0-9_]*(?:KEY|TOKEN|SECRET|CREDENTIALS)\b|api[ _-]?key|credentials", re.IGNORECASE)
_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b")


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
    name_or_provider: str, project: Project, env: Mapping[str, str], pool: ModelPool
) -> BaseChatModel | Runnable[Any, Any]:
    """The model of that name or provider string; with its fallbacks behind it, where it has some."""
    first, *rest = model_chain(name_or_provider, project, env, pool)
    return first.with_fallbacks(rest) if rest else first


def model_chain(
    name_or_provider: str, project: Project, env: Mapping[str, str], pool: ModelPool
) -> list[BaseChatModel]:
    """The model and the models to fall back to, in order. Raises `ProjectError`.

    An agent needs them one by one: `create_agent` binds tools to a chat model, not to a chain of them.
    """
    name = str(_resolved(name_or_provider, None, project, env))
    spec = project.models.get(name)
    if spec is None:
        return [_open(ModelSpec(model=name), None, project, env, pool)]
    models = [_open(spec, name, project, env, pool)]
    for fallback in spec.fallbacks:
        if fallback not in project.models:
            problem = _problem(
                project, "unknown-model", f"model '{name}': fallback '{fallback}' is not in models", name
            )
            raise ProjectError([problem])
        models.append(_open(project.models[fallback], fallback, project, env, pool))
    return models


def _open(
    spec: ModelSpec, name: str | None, project: Project, env: Mapping[str, str], pool: ModelPool
) -> BaseChatModel:
    model = str(_resolved(spec.model, name, project, env))
    params = _with_key(model, dict(_resolved(spec.params, name, project, env)), env)
    try:
        return pool.get({"model": model, "params": params}, lambda: _client(model, params))
    except Exception as error:  # a provider's package may raise anything
        raise ProjectError([_diagnosis(error, model, name, project)]) from error


def _resolved(value: Any, name: str | None, project: Project, env: Mapping[str, str]) -> Any:
    try:
        return resolve(value, env)
    except MissingVariable as missing:
        problem = _problem(
            project, "env-missing", f"model '{name or value}': {missing}", name, "set it, or write a default"
        )
        raise ProjectError([problem]) from None


def key_variable(model: str) -> str | None:
    """The variable that holds the key of `provider:model`."""
    return KEY_VARIABLES.get(model.partition(":")[0])


def _with_key(model: str, params: dict[str, Any], env: Mapping[str, str]) -> dict[str, Any]:
    """The parameters with the provider's key, unless they name one, or another server that must not see it."""
    variable = key_variable(model)
    if variable is None or not env.get(variable) or "base_url" in params:
        return params
    return {"api_key": env[variable], **params}


def _client(model: str, params: dict[str, Any]) -> BaseChatModel:
    if model == DEMO_MODEL:
        return DemoRules(**params)
    client: BaseChatModel = init_chat_model(model, **params)
    return client


def _diagnosis(error: Exception, model: str, name: str | None, project: Project) -> Problem:
    """What a person has to do about a client that cannot be made. Values of the environment stay out of it."""
    title = f"model '{name or model}'"
    provider = model.partition(":")[0] if ":" in model else ""
    if isinstance(error, ImportError):
        message = f"{title}: the package for '{model}' is not installed"
        return _problem(project, "provider-missing", message, name, _how_to_install(provider, error))
    text = _first_line(error)
    if model != DEMO_MODEL and _KEY_WORDS.search(str(error)):
        variable = next((found for found in _VARIABLE.findall(str(error)) if _KEY_WORDS.search(found)), None)
        hint = f"set {variable or 'the key'} in the environment or in .env"
        return _problem(project, "env-missing", f"{title}: '{model}' has no key", name, hint)
    return _problem(project, "model", f"{title}: {text}", name, "see params in agents.yaml")


def _how_to_install(provider: str, error: ImportError) -> str:
    if provider in _EXTRAS:
        return f"pip install 'changeover[{_EXTRAS[provider]}]'"
    found = _PIP.search(str(error))
    return found[0] if found else "install the provider's langchain package"


def _first_line(error: Exception) -> str:
    errors = getattr(error, "errors", None)
    if callable(errors):  # pydantic quotes the input, which may hold a secret
        return "; ".join(f"{'.'.join(str(step) for step in found['loc'])}: {found['msg']}" for found in errors())
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}" if text else type(error).__name__


def _problem(project: Project, code: str, message: str, name: str | None, hint: str = "") -> Problem:
    return project.problem(code, message, "models", *([name] if name else []), hint=hint)
