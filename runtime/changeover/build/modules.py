"""Isolated imports: each tree of project code as modules of its own, side by side with the others.

A tree is the Python and data of a snapshot, named by the digest of its bytes. Its modules are really in
`sys.modules`, under a private package that is unique to the tree (`_changeover_1a2b….graphs.types`),
because pickle, typing and pydantic look there. Versions with the same code share a tree.

How an import stays inside: relative imports resolve by `__package__`, which is the private one. Absolute
ones, wherever in the code they stand and whenever they run, go through the `__import__` that a module finds
in its `__builtins__`: ours, bound to the tree. `importlib` as the project sees it resolves names the same way.

Where a project has several import roots, a file can be reached by several names (`desk.graph`, `src.desk.graph`). It is
one module all the same: the other names are aliases of its own.

What it does not isolate: third-party packages, which all versions of a process share, and code that
reads `sys.modules` by a logical name.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import shutil
import sys
import threading
import traceback
import types
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from changeover.build.environments import Environment
from changeover.errors import Unavailable
from changeover.project.imports import ImportMap

PREFIX = "_changeover_"
NOT_CODE = ("prompts/", "migrations/", "observed/")
TOP_LEVEL_CONFIGURATION = ("agents", "tools", "changeover", "langgraph")


def code_files(files: Mapping[str, bytes], folders: Sequence[str] = ()) -> dict[str, bytes]:
    """The part of a snapshot that takes part when project Python runs: code, and data it may read.

    `folders` belong to it whatever they are called, `` is the whole project.
    """
    return {path: data for path, data in files.items() if _is_code(path, folders)}


def _is_code(path: str, folders: Sequence[str]) -> bool:
    pure = PurePosixPath(path)
    if path.startswith(NOT_CODE) and not any(not folder or path.startswith(f"{folder}/") for folder in folders):
        return False
    if pure.suffix in (".yaml", ".yml", ".json"):
        is_graph = len(pure.parts) == 2 and pure.parts[0] == "graphs" and pure.suffix != ".json"
        is_configuration = len(pure.parts) == 1 and pure.stem in TOP_LEVEL_CONFIGURATION
        return not (is_graph or is_configuration)
    return path != "requirements.txt"


def code_digest(files: Mapping[str, bytes], import_roots: Sequence[str] = ()) -> str:
    """SHA-256 over the code files, names and bytes, and where modules are looked for."""
    digest = hashlib.sha256()
    if import_roots:
        digest.update(f"roots:{list(import_roots)!r}".encode())
    for path in sorted(files):
        data = files[path]
        digest.update(f"{len(path.encode())}:{path}:{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()


class CodeTree:
    """One tree of project code. Opened and closed by `CodeTrees`; `uses` is counted there."""

    def __init__(
        self, digest: str, files: Mapping[str, bytes], folder: Path, import_roots: Sequence[str] = (), key: str = ""
    ) -> None:
        self.digest = digest
        self.key = key or digest
        self.package = f"{PREFIX}{self.key[:20]}"
        self.files = files
        self.folder = folder
        self.environment: Environment | None = None
        self.uses = 0
        self._map = ImportMap(files, import_roots)
        self._shadowed: dict[str, bool] = {}
        self._importlib = _ProjectImportlib(self)
        self._builtins = {**vars(builtins), "__import__": self._import}

    # --- names -----------------------------------------------------------------------------------

    def owns(self, module: str) -> bool:
        """Whether a logical name (`graphs.types`) belongs to the project.

        As in Python, a mere folder does not hide an installed package of its name, only adds to it.
        """
        root = module.partition(".")[0]
        if root not in self._map.roots:
            return False
        if self._map.is_solid(root) or not self._is_installed(root):
            return True
        return module != root and (module in self._map.modules or module in self._map.packages)

    def _is_installed(self, root: str) -> bool:
        if root not in self._shadowed:
            spec = importlib.machinery.PathFinder.find_spec(root)
            self._shadowed[root] = spec is not None and spec.loader is not None and spec.origin is not None
        return self._shadowed[root]

    def name_of(self, path: str) -> str:
        """The module name of one of the tree's files."""
        return self._map.name_of(path)

    def logical_name(self, module: str) -> str | None:
        """`graphs.types` for this tree's private module name; None for any other module."""
        if not module.startswith(PREFIX):
            return None
        package, _, name = module.partition(".")
        return name if package == self.package else None

    def import_module(self, module: str) -> types.ModuleType:
        """The tree's module of a logical name, imported if it was not yet."""
        return importlib.import_module(f"{self.package}.{module}")

    def resolve(self, ref: str) -> Any:
        """What `package.module:attribute` names: in the tree if the project has such a module, else installed."""
        module_name, _, attribute = ref.partition(":")
        found: Any = self.import_module(module_name) if self.owns(module_name) else importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found

    def project_path(self, filename: str) -> str | None:
        """`graphs/orders.py` for a file of this tree on disk, None for any other."""
        try:
            return PurePosixPath(Path(filename).relative_to(self.folder)).as_posix()
        except ValueError:
            return None

    def place_of(self, error: BaseException) -> str | None:
        """The innermost line of the project that an error came through, as `graphs/orders.py:12 in refund`."""
        for frame in reversed(list(traceback.walk_tb(error.__traceback__))):
            path = self.project_path(frame[0].f_code.co_filename)
            if path is not None:
                return f"{path}:{frame[1]} in {frame[0].f_code.co_name}"
        return None

    # --- import machinery ------------------------------------------------------------------------

    def spec(self, fullname: str) -> importlib.machinery.ModuleSpec | None:
        name = fullname.removeprefix(self.package).removeprefix(".")
        if not name:
            return _namespace(fullname, self.folder)
        path = self._map.modules.get(name)
        if path is None:
            folders = [self.folder / folder for folder in self._map.folders_of(name)]
            return _namespace(fullname, *folders) if name in self._map.packages else None
        own = self._map.name_of(path)
        location = str(self.folder / path)
        return importlib.util.spec_from_file_location(
            fullname,
            location,
            loader=_Loader(self, path) if own == name else _Alias(f"{self.package}.{own}"),
            submodule_search_locations=[str(Path(location).parent)] if path.endswith("__init__.py") else None,
        )

    def prepare(self, module: types.ModuleType) -> None:
        module.__dict__["__builtins__"] = self._builtins

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> types.ModuleType:
        if level == 0 and self.owns(name):
            found = builtins.__import__(f"{self.package}.{name}", globals, locals, fromlist or (), 0)
            return found if fromlist else sys.modules[f"{self.package}.{name.partition('.')[0]}"]
        found = builtins.__import__(name, globals, locals, fromlist or (), level)
        if level == 0 and name == "importlib" and found is importlib:
            return self._importlib
        return found

    def forget(self) -> None:
        """Take every module of the tree out of the process."""
        own = [name for name in sys.modules if name == self.package or name.startswith(f"{self.package}.")]
        for name in own:
            del sys.modules[name]
        for path in self._map.modules.values():
            linecache.cache.pop(str(self.folder / path), None)
        sys.path_importer_cache.pop(str(self.folder), None)


class CodeTrees(importlib.abc.MetaPathFinder):
    """The trees of a process, by digest, and the one finder that serves them.

    Invariant: a tree's modules are importable exactly while it has uses.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._trees: dict[str, CodeTree] = {}
        self._by_package: dict[str, CodeTree] = {}
        self._lock = threading.Lock()

    def acquire(
        self,
        files: Mapping[str, bytes],
        import_roots: Sequence[str] = (),
        folders: Sequence[str] = (),
        variant: str = "",
        environment: Environment | None = None,
    ) -> CodeTree:
        """The tree of these files, with one more use. Blocking: writes the tree to disk the first time.

        `variant` says what else its modules depend on when they are imported, such as the values of variables. The
        tree uses the `environment` as long as it has uses itself.
        """
        code = code_files(files, folders)
        digest = code_digest(code, import_roots)
        variant = f"{variant}:{environment.digest}" if environment else variant
        key = hashlib.sha256(f"{digest}:{variant}".encode()).hexdigest() if variant else digest
        with self._lock:
            tree = self._trees.get(key)
            if tree is None:
                tree = self._open(CodeTree(digest, code, self._folder / key[:20], import_roots, key))
                if environment is not None:
                    environment.take()
                    tree.environment = environment
            tree.uses += 1
            return tree

    def use_all(self) -> list[CodeTree]:
        """One more use of every tree there is."""
        with self._lock:
            for tree in self._trees.values():
                tree.uses += 1
            return list(self._trees.values())

    def use(self, tree: CodeTree) -> None:
        """One more use of a tree that has some. Raises `Unavailable` where it has none."""
        with self._lock:
            if not tree.uses:
                raise Unavailable("this code is not loaded any more", hint="build the version again")
            tree.uses += 1

    def release(self, tree: CodeTree) -> None:
        """One use less; the last one takes the modules out of the process and the files off the disk."""
        with self._lock:
            tree.uses -= 1
            if tree.uses:
                return
            del self._trees[tree.key]
            del self._by_package[tree.package]
            tree.forget()
            if tree.environment is not None:
                tree.environment.release()
            shutil.rmtree(tree.folder, ignore_errors=True)
            if not self._trees and self in sys.meta_path:
                sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(PREFIX):
            return None
        tree = self._by_package.get(fullname.partition(".")[0])
        return tree.spec(fullname) if tree else None

    def _open(self, tree: CodeTree) -> CodeTree:
        write_tree(tree.folder, tree.files)
        self._trees[tree.key] = tree
        self._by_package[tree.package] = tree
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        return tree


class _Loader(importlib.abc.Loader):
    """Runs a module from the tree's own bytes; the file on disk is there for `__file__` and tracebacks."""

    def __init__(self, tree: CodeTree, path: str) -> None:
        self._tree = tree
        self._path = path

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        self._tree.prepare(module)
        source = self._tree.files[self._path]
        filename = str(self._tree.folder / self._path)
        try:
            exec(compile(source, filename, "exec", dont_inherit=True), module.__dict__)
        except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:  # an error of the module, no wish of ours
            said = f"the module wants to end the process: {type(error).__name__}: {error}".rstrip(": ")
            raise ImportError(said).with_traceback(error.__traceback__) from None

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self._tree.files[self._path])

    def get_filename(self, fullname: str) -> str:
        return str(self._tree.folder / self._path)

    def get_data(self, path: str) -> bytes:
        """For `pkgutil.get_data`: the tree's bytes of a file next to the module."""
        return self._tree.files[Path(path).relative_to(self._tree.folder).as_posix()]

    def is_package(self, fullname: str) -> bool:
        return self._path.endswith("__init__.py")


class _Alias(importlib.abc.Loader):
    """Another name of a module of the tree: the same module."""

    def __init__(self, fullname: str) -> None:
        self._fullname = fullname
        self._spec: importlib.machinery.ModuleSpec | None = None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = importlib.import_module(self._fullname)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has put that of the alias there


class _ProjectImportlib(types.ModuleType):
    """`importlib` as the project's modules see it: names of the project lead into its own tree."""

    def __init__(self, tree: CodeTree) -> None:
        super().__init__("importlib", importlib.__doc__)
        self.__dict__["_tree"] = tree

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib, name)

    def import_module(self, name: str, package: str | None = None) -> types.ModuleType:
        tree: CodeTree = self.__dict__["_tree"]
        if not name.startswith(".") and tree.owns(name):
            return tree.import_module(name)
        if name.startswith(".") and package is not None and tree.owns(package):
            package = f"{tree.package}.{package}"
        return importlib.import_module(name, package)


def write_tree(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make `folder` hold exactly these files: complete under its name, or not there at all."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for path, data in files.items():
        target = partial / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _namespace(fullname: str, *folders: Path) -> importlib.machinery.ModuleSpec:
    spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
    spec.submodule_search_locations = [str(folder) for folder in folders]
    return spec
