"""The middleware that langchain brings, under the names it has in agents.yaml.

Found by looking: `HumanInTheLoopMiddleware` is `human_in_the_loop`, and what langchain adds tomorrow works. Langchain
is imported when the names are first wanted, which takes most of a second.
"""

from __future__ import annotations

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


def snake_case(class_name: str) -> str:
    return _WORD_START.sub("_", class_name.removesuffix("Middleware")).lower()
