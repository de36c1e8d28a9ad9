"""`Plugin`: what a plugin of changeover.yaml may say of its life.

At the bottom of the layers: it imports nothing of the project and does nothing. A class that has some of these hooks
and is no `Plugin` is as good.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Plugin:
    """Something that lives as long as versions use it. Every hook may be a plain or an async function.

    A plain hook runs in a thread of its own, an async one in the server's event loop, all async ones of one plugin in
    one task; never two at a time. Each has a deadline (`deadline`, `health.timeout`). The class is called without
    arguments.

    `project_folder` is where the version's code and data lie, set before `on_load`: for reading; it goes when the
    plugin does. A class that is no `Plugin` is given it too.
    """

    project_folder: Path

    def on_load(self) -> Any:
        """First, once for an instance."""

    def on_init(self, config: Mapping[str, Any]) -> Any:
        """Then, once, with its `config`, in which the environment's values are put in."""

    def on_start(self) -> Any:
        """Open what must be open to serve. Called again, on the same instance, after `on_stop`, when it restarts."""

    def on_stop(self) -> Any:
        """Let go of all that `on_start` opened. Called once after each `on_start`, also after one that failed or was
        given up: some of it may not be there."""

    def on_error(self, exception: Exception) -> Any:
        """What another hook raised, or a `TimeoutError`. Return True if it is handled and the plugin can go on."""
        return False

    def health_check(self) -> Any:
        """Raise, or return False, if it is not well. A dict is shown to people as its details."""
        return None
