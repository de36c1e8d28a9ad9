"""Which file a dotted module name means, where a project has several import roots.

Owns the map between names and paths. A file can be reached by several names (`src/desk/graph.py` is `desk.graph` and
`src.desk.graph`); one of them is its own, seen from the innermost root that is no package itself, so that its relative
imports work and it is one module, whichever name imports it. Nothing is imported here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

PROJECT_ROOT = ""


class ImportMap:
    """The modules of a set of files. `roots` are folders in the order in which they are searched."""

    def __init__(self, files: Iterable[str], roots: Sequence[str] = ()) -> None:
        found = set(files)
        self._paths = [path for path in found if path.endswith(".py")]
        self.import_roots = tuple(dict.fromkeys((*roots, PROJECT_ROOT)))
        self.modules: dict[str, str] = {}
        for root in self.import_roots:
            self.modules = {**_modules(self._paths, root), **self.modules}
        self.packages = _packages(self.modules)
        self.roots = frozenset(name.partition(".")[0] for name in (*self.modules, *self.packages))
        self.own_names = self._names(found)

    def name_of(self, path: str) -> str:
        """The file's own module name."""
        return self.own_names[path]

    def is_solid(self, root: str) -> bool:
        """Whether a top-level name is a module or a package with an `__init__.py`, no mere folder."""
        return root in self.modules

    def folders_of(self, package: str) -> list[str]:
        """Where the modules of a package without `__init__.py` may lie."""
        inner = package.replace(".", "/")
        return [f"{root}/{inner}" if root else inner for root in self.import_roots]

    def _names(self, files: set[str]) -> dict[str, str]:
        inward = sorted(self.import_roots, key=lambda root: (not _is_package(root, files), len(root)), reverse=True)
        names: dict[str, str] = {}
        for path in self._paths:
            reachable = (name for root in inward if (name := _name(path, root)) and self.modules.get(name) == path)
            own = next(reachable, None)
            if own is not None:
                names[path] = own
        return names


def _modules(paths: Iterable[str], root: str) -> dict[str, str]:
    modules: dict[str, str] = {}
    for path in paths:
        name = _name(path, root)
        if name and (name not in modules or path.endswith("/__init__.py")):
            modules[name] = path
    return modules


def _name(path: str, root: str) -> str:
    """`graphs.orders` for `graphs/orders.py`, packages by their `__init__.py`; empty for what is not below the root."""
    if root and not path.startswith(f"{root}/"):
        return ""
    parts = PurePosixPath(path[len(root) + 1 :] if root else path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _packages(modules: Iterable[str]) -> frozenset[str]:
    """Folders that hold modules somewhere below: namespace packages where they have no `__init__.py`."""
    names: set[str] = set()
    for module in modules:
        parts = module.split(".")
        names.update(".".join(parts[:end]) for end in range(1, len(parts)))
    return frozenset(names)


def _is_package(root: str, files: set[str]) -> bool:
    return bool(root) and f"{root}/__init__.py" in files
