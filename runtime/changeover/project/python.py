"""A static look at the project's Python: what a module defines, without running any of it.

Does not import, resolve third-party packages or judge style. Where a module is open (a star import, `__getattr__`)
every name is taken to exist; saying so wrongly is left to the build.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from changeover.project.imports import ImportMap
from changeover.project.problems import Problem

Kind = Literal["function", "async function", "class", "module", "imported", "value"]
MAX_FOLLOWED = 5  # imports from project module to project module


@dataclass(frozen=True, slots=True)
class Name:
    """A name at the top level of a module; `origin` is `module:attr` for what is imported from elsewhere."""

    kind: Kind
    line: int
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Module:
    """The outline of one Python file."""

    path: str
    names: Mapping[str, Name] = field(default_factory=dict)
    open: bool = False
    problem: Problem | None = None


class PythonFiles:
    """The Python of one version; a file is parsed once, when it is first asked for."""

    def __init__(self, files: Mapping[str, bytes], import_roots: Sequence[str] = ()) -> None:
        self._files = files
        self._modules: dict[str, Module] = {}
        self.imports = ImportMap(files, import_roots)
        self.paths = tuple(path for path in files if path.endswith(".py"))
        folders = {path.split("/", 1)[0] for path in files if "/" in path}
        self.roots = frozenset(folders | self.imports.roots | {"graphs"})

    def path_of(self, module: str) -> str | None:
        """The file of a dotted module name; a package without `__init__.py` is its folder, ending in `/`."""
        if module in self.imports.packages and module not in self.imports.modules:
            return f"{module.replace('.', '/')}/"
        return self.imports.modules.get(module)

    def module(self, path: str) -> Module:
        if path not in self._modules:
            self._modules[path] = outline(path, self._files.get(path, b""), self._package(path))
        return self._modules[path]

    def find(self, module: str, attribute: str) -> Name | None:
        """The definition that `module:attribute` leads to, followed through imports within the project."""
        name: Name | None = None
        for _ in range(MAX_FOLLOWED):
            path = self.path_of(module)
            found = self.module(path).names.get(attribute) if path else None
            if found is None:
                return name
            name = found
            if name.kind != "imported":
                return name
            module, _, attribute = name.origin.partition(":")
        return name

    def submodules(self, module: str) -> Iterator[str]:
        """Names of the modules and packages directly inside a package."""
        prefix = f"{module}." if module else ""
        for name in self.imports.modules:
            if name.startswith(prefix):
                yield name[len(prefix) :].split(".", 1)[0]

    def _package(self, path: str) -> str:
        """The package that a file's relative imports are seen from."""
        if path not in self.imports.own_names:
            return ""
        name = self.imports.name_of(path)
        return name if path.endswith("__init__.py") else name.rpartition(".")[0]


def outline(path: str, source: bytes, package: str) -> Module:
    """What a file defines at its top level; a file that is not Python has a problem instead."""
    try:
        tree = ast.parse(source, filename=path)
    except SyntaxError as error:
        return Module(path, open=True, problem=_syntax(path, error))
    except (ValueError, RecursionError, MemoryError) as error:
        return Module(path, open=True, problem=Problem("import", f"not Python: {error}", path))
    names: dict[str, Name] = {}
    for statement in _top_level(tree.body):
        for name, what in _defined(statement, package):
            names[name] = what
    return Module(path, names, "__getattr__" in names or "*" in names)


def _syntax(path: str, error: SyntaxError) -> Problem:
    text = (error.text or "").split("\n")[0].rstrip("\r")
    line, column = error.lineno or 0, max(error.offset or 0, 1 if error.lineno else 0)
    width = (error.end_offset or 0) - column if error.end_lineno == line else 1
    return Problem("import", f"not Python: {error.msg}", path, line, column, text=text[:300], width=max(width, 1))


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported, inside `if`, `try`, `with` and loops too."""
    for statement in body:
        yield statement
        for branch in ("body", "orelse", "finalbody", "handlers", "cases"):
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                break
            for part in getattr(statement, branch, ()):
                yield from _top_level(part.body if not isinstance(part, ast.stmt) else [part])


def _defined(statement: ast.stmt, package: str) -> Iterator[tuple[str, Name]]:
    line = statement.lineno
    match statement:
        case ast.AsyncFunctionDef(name=name):
            yield name, Name("async function", line)
        case ast.FunctionDef(name=name, decorator_list=decorators):
            yield name, Name("value" if decorators else "function", line)
        case ast.ClassDef(name=name):
            yield name, Name("class", line)
        case ast.Import(names=aliases):
            for alias in aliases:
                bound = alias.asname or alias.name.split(".")[0]
                yield bound, Name("module", line, alias.name if alias.asname else bound)
        case ast.ImportFrom(names=aliases):
            source = _absolute(statement, package)
            for alias in aliases:
                yield alias.asname or alias.name, Name("imported", line, f"{source}:{alias.name}")
        case _:
            for name in _assigned(statement):
                yield name, Name("value", line)


def _absolute(statement: ast.ImportFrom, package: str) -> str:
    if not statement.level:
        return statement.module or ""
    parts = package.split(".")[: len(package.split(".")) - statement.level + 1] if package else []
    return ".".join([*parts, *([statement.module] if statement.module else [])])


def _assigned(statement: ast.stmt) -> Iterator[str]:
    """Names a statement binds by assignment, `for`, `with ... as` or `:=`; not those inside functions it holds."""
    match statement:
        case ast.Assign(targets=targets):
            roots: list[ast.expr] = list(targets)
        case ast.AnnAssign(target=target) | ast.AugAssign(target=target) | ast.For(target=target):
            roots = [target]
        case ast.With(items=items):
            roots = [item.optional_vars for item in items if item.optional_vars]
        case _:
            return
    for root in roots:
        for part in ast.walk(root):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                yield part.id
