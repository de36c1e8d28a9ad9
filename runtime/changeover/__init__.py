"""Versions for LangGraph agents, switched without dropping a run.

Importing this package loads neither a web framework nor a database driver; the names below are loaded
when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from changeover.build.context import GraphContext as GraphContext
    from changeover.decorator import migration as migration
    from changeover.errors import ChangeoverError as ChangeoverError
    from changeover.errors import ProjectError as ProjectError
    from changeover.hooks import ServiceHooks as ServiceHooks
    from changeover.hooks import Switching as Switching
    from changeover.manager import GraphVersionManager as GraphVersionManager
    from changeover.plugin import Plugin as Plugin
    from changeover.server.app import create_app as create_app

__version__ = "0.1.0"

_PLACES = {
    "GraphVersionManager": "changeover.manager",
    "create_app": "changeover.server.app",
    "ChangeoverError": "changeover.errors",
    "ProjectError": "changeover.errors",
    "ServiceHooks": "changeover.hooks",
    "Switching": "changeover.hooks",
    "migration": "changeover.decorator",
    "GraphContext": "changeover.build.context",
    "Plugin": "changeover.plugin",
}
__all__ = [
    "ChangeoverError",
    "GraphContext",
    "GraphVersionManager",
    "Plugin",
    "ProjectError",
    "ServiceHooks",
    "Switching",
    "__version__",
    "create_app",
    "migration",
]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'changeover' has no attribute '{name}'")
