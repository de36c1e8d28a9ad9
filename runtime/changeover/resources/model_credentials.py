"""Which variable holds the key of a provider, to whom a key is given, and what else a server is sent in confidence.

Invariant: a key that the environment holds for a provider goes to that provider's own server. A server that `params`
names gets the key that `params` names, or none: the providers' packages read the environment by themselves, and would
send it wherever they are pointed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import httpx

from changeover.login import Login
from changeover.project.providers import provider_of
from changeover.secret_values import Secrets

KEY_VARIABLES = {
    "anthropic": "ANTHROPIC_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "fireworks": "FIREWORKS_API_KEY",
    "google_genai": "GOOGLE_API_KEY",
    "groq": "GROQ_API_KEY",
    "mistralai": "MISTRAL_API_KEY",
    "openai": "OPENAI_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "perplexity": "PPLX_API_KEY",
    "together": "TOGETHER_API_KEY",
    "xai": "XAI_API_KEY",
}
"""Where a provider's key is looked for if `params` has none: also in `.env`, which the providers do not read."""
NO_KEY = "none"
"""What a server that asks for no key is sent."""
_SERVER = re.compile(r"(?:\w+_)?(?:base_url|api_base|api_url)|endpoint")
_KEY = re.compile(r"(?:\w+_)?api_key")
_SENT = {"default_headers", "default_query"}  # whole mappings, whose values may be secrets


def key_variable(model: str, params: Mapping[str, Any] | None = None) -> str | None:
    """The variable that holds the key of a model's provider."""
    provider = provider_of(model, params)
    return KEY_VARIABLES.get(provider) if provider else None


def with_key(model: str, params: Mapping[str, Any], env: Mapping[str, str]) -> dict[str, Any]:
    """The parameters with the key that the model's server may see."""
    variable = key_variable(model, params)
    if variable is None or any(is_key(name) for name in params):
        return dict(params)
    if any(is_server(name) and value for name, value in params.items()):
        return {"api_key": NO_KEY, **params}
    return {"api_key": env[variable], **params} if env.get(variable) else dict(params)


def is_server(name: str) -> bool:
    """Whether a parameter of that name says which server is asked."""
    return _SERVER.fullmatch(name) is not None


def is_key(name: str) -> bool:
    return _KEY.fullmatch(name) is not None


def is_secret(name: str) -> bool:
    """Whether a parameter of that name may hold what the server alone may see."""
    return is_key(name) or name in _SENT


def secrets_of(params: Mapping[str, Any]) -> Secrets:
    """What a server is sent and nobody else may see."""
    found: set[str] = set()
    for name, value in params.items():
        if is_key(name) and value != NO_KEY:
            found.add(str(value))
        elif is_server(name):
            url = _address(value)
            found.update(_login(url).secrets if url is not None and url.userinfo else ())
        elif name in _SENT and isinstance(value, Mapping):
            found.update(str(each) for each in value.values())
    return Secrets(frozenset(found))


def with_plain_address(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with name and password of an address in the header that they are sent in: addresses are logged."""
    found = dict(params)
    for name, value in params.items():
        url = _address(value) if is_server(name) else None
        if url is not None and url.userinfo:
            found[name] = str(url.copy_with(userinfo=b""))
            found["default_headers"] = {
                "Authorization": _login(url).authorization,
                **(params.get("default_headers") or {}),
            }
    return found


def _login(url: httpx.URL) -> Login:
    return Login(url.userinfo.decode("ascii"))


def _address(value: object) -> httpx.URL | None:
    """None where it is no address; whoever is to use it says what is wrong with it."""
    try:
        return httpx.URL(str(value))
    except (httpx.InvalidURL, ValueError):
        return None
