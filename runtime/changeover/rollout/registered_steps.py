"""The steps of migration of a version that is made in code: read from a folder, or given as a list.

Where a version has no files, its functions are those of the process: `module:function` is imported as it stands.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
import types
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from changeover.build.step_code import FAILURES, Function, LoadedSteps, load_steps, wrong_function
from changeover.contracts.chain import Chain, chains_of
from changeover.contracts.steps import parts_json
from changeover.decorator import arguments_of
from changeover.errors import InvalidRequest, ProjectError
from changeover.project.document import Document
from changeover.project.load import Project
from changeover.project.migration_code import meaning
from changeover.project.migration_models import MigrationArguments, StepParts
from changeover.project.migrations import FOLDER, SUFFIXES, Migration, MigrationReader, functions_of

Steps = tuple[dict[str, Chain], LoadedSteps]
_WANTED = "give a dict as in YAML, a function marked with @migration, a pair (up, down), or a module with up and down"


class ProcessCode:
    """The process as the place where steps find their functions."""

    def __init__(self, folder: Path) -> None:
        self.package = f"_registered_{sha256(str(folder).encode()).hexdigest()[:20]}"
        self.folder = folder

    def resolve(self, ref: str) -> Any:
        module, _, attribute = ref.partition(":")
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found

    def prepare(self, module: types.ModuleType) -> None:
        """Nothing is to be done: its imports are those of the process."""


def registered_steps(migrations: object, graphs: Sequence[str]) -> Steps:
    """The chains and their code. Blocking. Raises `InvalidRequest`, and `ProjectError` for what files have wrong."""
    if migrations is None:
        return {}, LoadedSteps()
    if isinstance(migrations, str | Path):
        return _from_folder(Path(migrations))
    if isinstance(migrations, list | tuple):
        return _from_list(migrations, graphs)
    raise InvalidRequest(f"migrations is a {type(migrations).__name__}", hint="give a folder or a list of steps")


def _from_folder(folder: Path) -> Steps:
    if not folder.is_dir():
        raise InvalidRequest(f"there is no folder {folder}", hint="give the folder that holds the steps")
    taken = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name.endswith(SUFFIXES)]
    files = {FOLDER + path.name: path.read_bytes() for path in taken}
    documents: dict[str, Document] = {}
    reader = MigrationReader(files, documents)
    found = reader.read()
    if any(problem.severity == "error" for problem in reader.problems):
        raise ProjectError(sorted(reader.problems, key=lambda problem: problem.sort_key))
    project = Project(files=files, migrations=found, documents=documents)
    return chains_of(found), load_steps(project, ProcessCode(folder.resolve().parent))


def _from_list(given: Sequence[object], graphs: Sequence[str]) -> Steps:
    code = ProcessCode(Path())
    numbers: dict[str, int] = {}
    migrations: list[Migration] = []
    ups: dict[tuple[str, int], Function] = {}
    downs: dict[tuple[str, int], Function] = {}
    functions: dict[str, Function] = {}
    for index, each in enumerate(given):
        what = f"step {index + 1} of migrations"
        step, up, down = _step(each, graphs, what)
        number = step.number or numbers.get(step.graph, 0) + 1
        if number <= numbers.get(step.graph, 0):
            hint = "steps are given in their order, each with a higher number"
            raise InvalidRequest(f"{what}: {number} is not above the number of the step before", hint=hint)
        numbers[step.graph] = number
        migrations.append(replace(step, number=number))
        if up is not None:
            ups[step.graph, number] = up
        if down is not None:
            downs[step.graph, number] = down
        for _, ref in functions_of(step.parts):
            functions[ref] = _function(code, ref, what)
    chains = {graph: tuple(replace(step, floor=1) for step in chain) for graph, chain in chains_of(migrations).items()}
    return chains, LoadedSteps(ups, downs, functions)


def _step(given: object, graphs: Sequence[str], what: str) -> tuple[Migration, Function | None, Function | None]:
    """One step as it was given; a number of 0 is to be found."""
    if isinstance(given, Mapping):
        return _declared(given, graphs, what), None, None
    if isinstance(given, types.ModuleType):
        pair: tuple[Any, Any] = (getattr(given, "up", None), getattr(given, "down", None))
        name = given.__name__.rpartition(".")[2]
    else:
        is_pair = isinstance(given, tuple) and len(given) == 2
        pair = (given[0], given[1]) if isinstance(given, tuple) and is_pair else (given, None)
        name = getattr(pair[0], "__name__", "up")
    up, down = pair
    arguments = arguments_of(up)
    if arguments is None:
        raise InvalidRequest(f"{what} is a {type(given).__name__} that is no step", hint=_WANTED)
    for function in (up, down):
        if function is not None and (wrong := wrong_function(function)):
            raise InvalidRequest(f"{what}: {getattr(function, '__name__', function)!r} {wrong}", hint=_WANTED)
    found = _arguments(arguments, graphs, what)
    parts, subgraph = _parts(found, what), found.subgraph or ""
    code = _meaning(given if isinstance(given, types.ModuleType) else up)
    return Migration("", 0, name, found.graph, parts, subgraph, True, down is not None, code), up, down


def _declared(given: Mapping[Any, Any], graphs: Sequence[str], what: str) -> Migration:
    data = dict(given)
    number, name = data.pop("number", 0), data.pop("name", "step")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0 or not isinstance(name, str):
        raise InvalidRequest(f"{what}: 'number' is a whole number from 1 on and 'name' a text", hint=_WANTED)
    found = _arguments(data, graphs, what)
    if found.subgraph is not None:
        raise InvalidRequest(f"{what}: 'subgraph' is for functions", hint="write keys as node/key")
    return Migration("", number, name, found.graph, _parts(found, what))


def _arguments(data: Mapping[str, Any], graphs: Sequence[str], what: str) -> MigrationArguments:
    if "graph" not in data and len(graphs) == 1:
        data = {**data, "graph": graphs[0]}
    try:
        return MigrationArguments.model_validate(dict(data))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise InvalidRequest(f"{what}: '{place}': {first['msg']}", hint="the keys are those of a YAML step") from None


def _parts(found: MigrationArguments, what: str) -> StepParts:
    parts = StepParts(**{name: getattr(found, name) for name in StepParts.model_fields})
    try:
        parts_json(parts)
    except PydanticSerializationError as error:
        hint = "write text, numbers, true or false, lists and dicts"
        raise InvalidRequest(f"{what}: a value of 'set' cannot be stored: {error}", hint=hint) from None
    return parts


def _meaning(given: Any) -> str:
    """What the code of a step does, as text: from its source where there is one, else from what it was compiled to."""
    try:
        return meaning(ast.parse(textwrap.dedent(inspect.getsource(given))))
    except (OSError, TypeError, SyntaxError, ValueError, RecursionError):
        code = getattr(given, "__code__", None)
        if code is None:
            return repr(getattr(given, "__qualname__", type(given).__qualname__))
        return f"{code.co_code.hex()} {code.co_names} {[each for each in code.co_consts if not _is_code(each)]}"


def _is_code(value: object) -> bool:
    return isinstance(value, types.CodeType)


def _function(code: ProcessCode, ref: str, what: str) -> Function:
    try:
        found = code.resolve(ref)
    except FAILURES as error:
        raise InvalidRequest(f"{what}: cannot load '{ref}': {type(error).__name__}: {error}") from None
    if wrong := wrong_function(found):
        raise InvalidRequest(f"{what}: '{ref}' {wrong}")
    function: Function = found
    return function
