"""What projects have at the end of this process's `sys.path`: which environments, and when one may leave it.

Changes the path and nothing else; who uses an environment is counted elsewhere.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path

from changeover.build.installing import Place
from changeover.project.installed import is_environment


def enter(folder: Path) -> None:
    sys.path.append(str(folder))
    importlib.invalidate_caches()


def on_path() -> list[Place]:
    """What projects have on the path of this process, those of other managers included."""
    folders = dict.fromkeys(entry for entry in sys.path if is_environment(entry))
    return [place for folder in folders if (place := Place.read(Path(folder))) is not None]


def held() -> dict[str, str]:
    return {name: release for place in on_path() for name, release in place.packages.items()}


def leave(folder: Path) -> bool:
    """Take one place of the folder off the path. False where it has to stay: its modules are in the process."""
    entry = str(folder)
    places = [index for index, other in enumerate(sys.path) if other == entry]
    if len(places) == 1 and _is_imported(entry):
        return False
    for index in places[-1:]:
        del sys.path[index]
    if len(places) <= 1:
        sys.path_importer_cache.pop(entry, None)
        importlib.invalidate_caches()
    return True


def _is_imported(entry: str) -> bool:
    """Whether a module, or a part of a namespace, comes from the folder."""
    inside = f"{entry}{os.sep}"
    return any(
        place.startswith(inside)
        for module in list(sys.modules.values())
        if isinstance(module, types.ModuleType)
        for place in _places_of(module)
    )


def _places_of(module: types.ModuleType) -> Iterator[str]:
    known = vars(module)
    for name in ("__file__", "__cached__"):
        if isinstance(known.get(name), str):
            yield known[name]
    for place in list(known.get("__path__") or ()):
        if isinstance(place, str):
            yield place
