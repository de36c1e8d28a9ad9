"""The middleware that langchain brings, under the names it has in agents.yaml.

Found by looking: `HumanInTheLoopMiddleware` is `human_in_the_loop`, and what langchain adds tomorrow works. Langchain
is imported when the names are first wanted, which takes most of a second.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def provided_middleware() -> dict[str, Any]:
    """Langchain's `AgentMiddleware` classes by name."""
    import langchain.agents.middleware as provided

    base = provided.AgentMiddleware
    classes = [value for value in vars(provided).values() if inspect.isclass(value) and issubclass(value, base)]
    found = [cls for cls in classes if cls is not base and not cls.__name__.startswith("_")]
    return {snake_case(cls.__name__): cls for cls in sorted(found, key=lambda cls: cls.__name__)}


def provided_class(name: str, middleware: Any) -> Any:
    """The class `name` that langchain brings for the arguments of a middleware; None where there is none."""
    for module in provided_modules(middleware):
        found = getattr(importlib.import_module(module), name, None)
        if inspect.isclass(found):
            return found
    return None


def provided_classes(middleware: Any) -> list[str]:
    """The names that `provided_class` is most likely asked for."""
    modules = [importlib.import_module(module) for module in provided_modules(middleware)]
    return sorted({name for module in modules for name in getattr(module, "__all__", _own_classes(module))})


def provided_modules(middleware: Any) -> tuple[str, str]:
    """Where the classes of a middleware's arguments are looked for, in this order."""
    return middleware.__module__, "langchain.agents.middleware"


def _own_classes(module: Any) -> list[str]:
    classes = [value for value in vars(module).values() if inspect.isclass(value)]
    return [cls.__name__ for cls in classes if cls.__module__ == module.__name__ and not cls.__name__.startswith("_")]


def snake_case(class_name: str) -> str:
    return _WORD_START.sub("_", class_name.removesuffix("Middleware")).lower()
