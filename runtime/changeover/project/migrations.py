"""The steps of migration in migrations/: one `Migration` for each file, and what is wrong with the files themselves.

Reads bytes that are already taken and runs nothing: of a Python step the decorator's literal arguments are read. Rules
that need the rest of the project (does the graph exist, where does a function lead) are in `check_migrations`.

Invariant: a file with an error yields no `Migration` or one with the wrong parts left out; a project with errors is
never built, so neither is ever a step of a chain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from changeover.project.document import Document, read
from changeover.project.migration_code import read_python
from changeover.project.migration_models import (
    BUILTINS,
    Conversion,
    FieldParts,
    MigrationArguments,
    MigrationFile,
    Pair,
    StepParts,
)
from changeover.project.problems import Problem
from changeover.project.validate import read_model, shown

FOLDER = "migrations/"
SUFFIXES = (".yaml", ".yml", ".json", ".py")
_FILE = re.compile(r"(?P<number>[0-9]{4,9})_(?P<name>[A-Za-z0-9_-]+)\.(?:yaml|yml|json|py)")
_NAMING = "name it NNNN_name.yaml or NNNN_name.py, such as 0002_notes.yaml"


@dataclass(frozen=True)
class Migration:
    """One file. `code` is the meaning of a Python step's way forward as text, empty for YAML."""

    path: str
    number: int
    name: str
    graph: str
    parts: StepParts
    subgraph: str = ""
    is_python: bool = False
    has_down: bool = False
    code: str = field(default="", repr=False)


@dataclass
class MigrationReader:
    """Reads the folder. `documents` is given each file's document by its path; `problems` collects what is wrong.

    `all_ours`: the folder is ours alone. Beside a langgraph.json it may as well belong to another tool.
    """

    files: Mapping[str, bytes]
    documents: dict[str, Document]
    all_ours: bool = True
    problems: list[Problem] = field(default_factory=list)

    def read(self) -> tuple[Migration, ...]:
        """The migrations, by number."""
        paths = [path for path in sorted(self.files) if self._is_ours(path)]
        numbers: dict[str, int] = {}
        for path in paths:
            named = _FILE.fullmatch(path.removeprefix(FOLDER))
            if named is None or int(named["number"]) == 0:
                message = f"'{shown(path.removeprefix(FOLDER))}' is not the name of a step"
                self.problems.append(Problem("migration-name", message, path, hint=_NAMING))
            else:
                numbers[path] = int(named["number"])
        self._gaps(numbers)
        migrations = [found for path, number in numbers.items() if (found := self._file(path, number))]
        self._twice(migrations)
        return tuple(sorted(migrations, key=lambda migration: (migration.number, migration.path)))

    def _is_ours(self, path: str) -> bool:
        name = path.removeprefix(FOLDER)
        if name == path or "/" in name or name.startswith((".", "__init__.")) or not name.endswith(SUFFIXES):
            return False
        return self.all_ours or (bool(_FILE.fullmatch(name)) and _speaks_of_us(name, self.files[path]))

    def _file(self, path: str, number: int) -> Migration | None:
        name = path.removeprefix(FOLDER).rpartition(".")[0].partition("_")[2]
        if path.endswith(".py"):
            return self._python(path, number, name)
        document = read(path, self.files[path])
        self.documents[path] = document
        self.problems.extend(document.problems)
        if not document.readable:
            return None
        if not isinstance(document.data, dict):
            message = "the file is empty" if document.data is None else "a step should be a mapping of keys to values"
            self.problems.append(document.problem("wrong-type", message, hint="it needs 'graph' and what changes"))
            return None
        found, problems = read_model(MigrationFile, document, (), document.data, "")
        self.problems += problems
        return Migration(path, number, name, found.graph, _parts_of(found))

    def _python(self, path: str, number: int, name: str) -> Migration | None:
        step = read_python(path, self.files[path])
        self.documents[path] = step.document
        self.problems += step.problems
        if step.arguments is None:
            return None
        found, problems = read_model(MigrationArguments, step.document, (), step.arguments, "@migration")
        self.problems += problems
        parts, subgraph = _parts_of(found), found.subgraph or ""
        return Migration(path, number, name, found.graph, parts, subgraph, True, step.has_down, step.code)

    def _gaps(self, numbers: Mapping[str, int]) -> None:
        present = sorted(set(numbers.values()))
        for before, after in pairwise(present):
            if after != before + 1:
                path = next(path for path, number in numbers.items() if number == after)
                missing = f"{before + 1:04}" if after == before + 2 else f"{before + 1:04} to {after - 1:04}"
                message = f"there is no step {missing} before this one"
                hint = f"number it {before + 1:04}, or bring the missing file back"
                self.problems.append(Problem("migration-gap", message, path, hint=hint))

    def _twice(self, migrations: list[Migration]) -> None:
        first: dict[tuple[str, int], str] = {}
        for migration in migrations:
            known = first.setdefault((migration.graph, migration.number), migration.path)
            if known != migration.path:
                message = f"{known} has the number {migration.number:04} for the graph '{shown(migration.graph)}' too"
                hint = "give the newer one the next free number"
                self.problems.append(Problem("migration-number", message, migration.path, hint=hint))


def functions_of(parts: StepParts) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each `module:function` that a step names, with its place in the parts: `("state", "convert", "x", "up")`."""
    for section, conversions in (
        ("state", parts.state.convert),
        ("sends", parts.sends.convert),
        ("store", parts.store.convert),
    ):
        for key, conversion in conversions.items():
            for way, ref in _refs(conversion):
                yield (section, "convert", key, *way), ref


def _refs(conversion: Conversion | FieldParts) -> Iterator[tuple[tuple[str, ...], str]]:
    named: dict[tuple[str, ...], str | None] = {}
    if isinstance(conversion, Pair):
        named = {("up",): conversion.up, ("down",): conversion.down}
    elif isinstance(conversion, str):
        named = {(): conversion}
    for way, ref in named.items():
        if ref is not None and ref not in BUILTINS:
            yield way, ref


def _parts_of(found: MigrationFile) -> StepParts:
    return StepParts(**{name: getattr(found, name) for name in StepParts.model_fields})


def _speaks_of_us(name: str, content: bytes) -> bool:
    return b"changeover" in content if name.endswith(".py") else b"graph" in content
