"""The providers of chat models that langchain knows: which one a string names, and what installs it.

Owns names and packages, nothing else: it imports no provider and opens no client. Langchain's own table is looked at,
so that what it adds tomorrow works; langchain is imported when it is first wanted, which takes half a second.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import unicodedata
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from changeover.project.validate import shown, suggestion

DEMO_MODEL = "demo:rules"
EXAMPLE = "openai:gpt-5-mini"
MAX_MODEL_CHARS = 500
EXTRAS = {
    "langchain-anthropic": "anthropic",
    "langchain-aws": "aws",
    "langchain-google-genai": "google",
    "langchain-groq": "groq",
    "langchain-mistralai": "mistral",
    "langchain-ollama": "ollama",
    "langchain-openai": "openai",
}
"""Packages that an extra of ours installs."""
_PIP = re.compile(r"pip install (?:-[-\w]+ )*[\"']?(?P<package>[\w.-]+(?:\[[\w,-]+\])?)")


@dataclass(frozen=True)
class Provider:
    """A provider and the module that holds its client."""

    name: str
    module: str
    class_name: str

    @property
    def package(self) -> str:
        """What is installed to have it, as an index calls it."""
        return self.module.partition(".")[0].replace("_", "-")

    @property
    def command(self) -> str:
        """What a person types to install it."""
        return command_for(self.package)

    @property
    def is_installed(self) -> bool:
        try:
            return importlib.util.find_spec(self.module.partition(".")[0]) is not None
        except (ImportError, ValueError):
            return False


def missing_package(model: str, params: Mapping[str, Any] | None = None) -> Provider | None:
    """The provider of a model whose package is not installed."""
    found = provider(provider_of(model, params))
    return None if found is None or found.is_installed else found


def requirement_of(package: str) -> str:
    """What to ask an index for: an extra of ours where one brings the package."""
    extra = EXTRAS.get(package)
    return f"changeover[{extra}]" if extra else package


def command_for(package: str) -> str:
    return f"pip install {shlex.quote(requirement_of(package))}"


def install_command(said: str) -> str | None:
    """The command that installs what a library says is missing, if it says so."""
    found = _PIP.search(said)
    return command_for(found["package"]) if found else None


def provider(name: str | None) -> Provider | None:
    found = _table().get(name or "")
    return Provider(str(name), str(found[0]), str(found[1])) if found else None


def _table() -> Mapping[str, Any]:
    """Langchain's own, by the provider's name; empty where a later langchain keeps it elsewhere."""
    from langchain.chat_models import base

    table: Mapping[str, Any] = getattr(base, "_BUILTIN_PROVIDERS", {})
    return table


def provider_of(model: str, params: Mapping[str, Any] | None = None) -> str | None:
    """The name of the provider of `provider:model`, or that langchain infers from a name without one."""
    if model == DEMO_MODEL:
        return None
    named = (params or {}).get("model_provider")
    if isinstance(named, str) and named:
        return named.replace("-", "_").lower()
    prefix, colon, _ = model.partition(":")
    if colon and prefix in _table():
        return prefix
    return _inferred(model)


@lru_cache(maxsize=4096)  # every word of a project that may name a model is asked for, in every build
def _inferred(model: str) -> str | None:
    from langchain.chat_models import base

    infer = getattr(base, "_attempt_infer_model_provider", None)
    if infer is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: str | None = infer(model)
    return found


def wrong_with(model: str, params: Mapping[str, Any] | None = None) -> tuple[str, str] | None:
    """Why a string is no model, and a hint; None where nothing can be told before its client is built."""
    if not model.strip():
        return "the name of the model is empty", f"write provider:model, such as {EXAMPLE}"
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp") for letter in model):
        return "the name of the model holds a control character", "take it out"
    if model != model.strip():
        return f"model '{shown(model)}' has spaces around it", "take them out"
    if len(model) > MAX_MODEL_CHARS:
        return f"model '{shown(model)}' has {len(model)} characters, {MAX_MODEL_CHARS} at most are a name", ""
    prefix, _, name = model.partition(":")
    if prefix == "demo":
        return None if model == DEMO_MODEL else (f"there is no model '{shown(model)}'", f"write {DEMO_MODEL}")
    return _wrong_provider(model, prefix, name, params)


def _wrong_provider(model: str, prefix: str, name: str, params: Mapping[str, Any] | None) -> tuple[str, str] | None:
    known = _table()
    if not known:
        return None
    found = provider_of(model, params)
    if found is None:
        if prefix.strip() and ":" in model:
            return f"there is no provider '{shown(prefix)}'", _nearest(prefix, known)
        return f"model '{shown(model)}' does not say its provider", f"write provider:model, such as {EXAMPLE}"
    if found not in known:
        return f"there is no provider '{shown(found)}'", _nearest(found, known)
    if prefix == found and ":" in model and not name.strip():
        return f"model '{shown(model)}' names a provider and no model", f"write provider:model, such as {EXAMPLE}"
    if prefix == found and name != name.strip():
        return f"model '{shown(model)}' has spaces after its provider", "take them out"
    return None


def _nearest(wrong: str, known: Mapping[str, Any]) -> str:
    plain = wrong.replace("-", "_").lower()
    if plain in known:
        return f"did you mean '{plain}'?"
    return suggestion(plain, known) or f"write provider:model, such as {EXAMPLE}"
