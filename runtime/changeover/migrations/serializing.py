"""Saved values on their way between two versions whose Python lies under different private names.

What is written names a class as the project does, whichever of the two versions the object is of, and by its new name
where a step renames it; what is read is of the newer version.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from changeover.checkpoints.serializer import LogicalSerializer, ModuleNames


class BothTrees:
    """The names of two trees as one; None for one made in code. `classes`: `module:Class`, old to new."""

    def __init__(self, older: ModuleNames | None, newer: ModuleNames | None, classes: Mapping[str, str]) -> None:
        self._older = older
        self._newer = newer
        self._classes = classes
        self._renamed = {name.partition(":")[0] for name in classes}

    def logical_name(self, module: str) -> str | None:
        for tree in (self._newer, self._older):
            if tree is not None and (name := tree.logical_name(module)) is not None:
                return name
        return module if module in self._renamed else None

    def saved_name(self, module: str, qualified_name: str) -> tuple[str, str]:
        """The name to write for a class, by its logical one."""
        new = self._classes.get(f"{module}:{qualified_name}")
        if new is None:
            return module, qualified_name
        module, _, qualified_name = new.partition(":")
        return module, qualified_name

    def owns(self, module: str) -> bool:
        return self._newer is not None and self._newer.owns(module)

    def import_module(self, module: str) -> Any:
        return importlib.import_module(module) if self._newer is None else self._newer.import_module(module)


def moving_serializer(
    older: ModuleNames | None, newer: ModuleNames | None, classes: Mapping[str, str]
) -> LogicalSerializer:
    """Writes objects of either version, reads those of the newer one. A class that is gone there is an error."""
    names = BothTrees(older, newer, classes)
    return LogicalSerializer(names, names.saved_name)
