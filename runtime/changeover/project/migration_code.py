"""A Python step by its text: the literal arguments of `@migration`, whether it has a way back, and its meaning.

Runs nothing. The arguments become a `Document` whose values stand where they are written, so that what is wrong with
them is reported there, by the same rules as for YAML.
"""

from __future__ import annotations

import ast
import copy
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from changeover.project.document import Document, Lines, Node
from changeover.project.problems import Problem
from changeover.project.python import outline

DECORATOR = "migration"
_HINT = 'write @migration(graph="...") above def up(state)'
_LITERAL = "the arguments of @migration are read without running the file: write them out"
_NO_MEANING = ("ctx", "type_ignores", "type_comment", "kind", "type_params")


@dataclass
class PythonStep:
    """What was read. `arguments` are None where there are none to go on with; `problems` say why."""

    document: Document
    arguments: dict[str, Any] | None = None
    has_down: bool = False
    code: str = ""
    problems: list[Problem] = field(default_factory=list)


def read_python(path: str, source: bytes) -> PythonStep:
    """The step in a file. What is wrong with it is in `problems`."""
    module = outline(path, source, "")
    if module.problem is not None:
        return PythonStep(Document(path), problems=[module.problem])
    tree = ast.parse(source, filename=path)
    text = source.decode("utf-8", "replace")
    step = PythonStep(Document(path, text, lines=Lines(text)))
    up = next((each for each in tree.body if _is_function(each, "up")), None)
    if up is None:
        step.problems.append(Problem("migration-code", "there is no function up(state)", path, hint=_HINT))
        return step
    _signature(step, up)
    if down := next((each for each in tree.body if _is_function(each, "down")), None):
        _signature(step, down)
    step.has_down = "down" in module.names
    step.arguments = _arguments(step, up, _decorator_names(tree))
    try:
        step.code = meaning(tree)
    except RecursionError:
        step.problems.append(Problem("migration-code", "the code is nested too deeply", path, hint="split it up"))
    return step


def meaning(tree: ast.Module) -> str:
    """The way forward that the code describes, as text: without `down`, imports, comments, docstrings and positions.

    A class that has moved is imported from elsewhere, and what the step does with it is the same. Nor does it have the
    arguments of `@migration`, whose meaning is that of the parts. It is the same for every release of Python, since
    fields that are empty are left out of it.
    """
    known = _decorator_names(tree)
    said = [each for each in tree.body if not (_is_function(each, "down") or _is_import(each) or _is_docstring(each))]
    return "\n".join(_text(_without_mark(each, known) if _is_function(each, "up") else each) for each in said)


def _without_mark(up: Any, known: set[str]) -> Any:
    bare = copy.copy(up)
    bare.decorator_list = [each for each in up.decorator_list if ast.unparse(_called(each)) not in known]
    return bare


def _called(decorator: ast.expr) -> ast.expr:
    return decorator.func if isinstance(decorator, ast.Call) else decorator


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(_text(each) for each in value if not _is_docstring(each))}]"
    if not isinstance(value, ast.AST):
        return repr(value)
    fields = [(name, each) for name, each in ast.iter_fields(value) if name not in _NO_MEANING]
    said = [f"{name}={_text(each)}" for name, each in fields if name == "value" or each not in (None, [])]
    return f"{type(value).__name__}({','.join(said)})"


def _is_import(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Import | ast.ImportFrom)


def _is_docstring(value: Any) -> bool:
    """A text that stands alone says nothing to the interpreter, wherever it is."""
    return isinstance(value, ast.Expr) and isinstance(value.value, ast.Constant) and isinstance(value.value.value, str)


def _is_function(statement: ast.stmt, name: str) -> bool:
    return isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name == name


def _signature(step: PythonStep, function: Any) -> None:
    """A step is a plain function of one argument, the state."""
    name = function.name
    if isinstance(function, ast.AsyncFunctionDef):
        step.problems.append(_at(step, function, f"{name} is an async function", "write a plain def: it only computes"))
    given = function.args
    needed = len(given.posonlyargs) + len(given.args) - len(given.defaults)
    fits = needed <= 1 and (len(given.posonlyargs) + len(given.args) >= 1 or given.vararg is not None)
    if not fits or any(default is None for default in given.kw_defaults):
        step.problems.append(_at(step, function, f"{name} does not take one argument", f"write def {name}(state)"))


def _decorator_names(tree: ast.Module) -> set[str]:
    """What the file calls `changeover.migration`: by a name of its own, or through the package."""
    names: set[str] = set()
    for statement in ast.walk(tree):
        if isinstance(statement, ast.ImportFrom) and statement.module == "changeover":
            names |= {alias.asname or alias.name for alias in statement.names if alias.name == DECORATOR}
        if isinstance(statement, ast.Import):
            found = (alias.asname or alias.name for alias in statement.names if alias.name == "changeover")
            names |= {f"{name}.{DECORATOR}" for name in found}
    return names


def _arguments(step: PythonStep, up: Any, known: set[str]) -> dict[str, Any] | None:
    for decorator in up.decorator_list:
        if ast.unparse(_called(decorator)) not in known:
            continue
        if not isinstance(decorator, ast.Call):
            step.problems.append(_at(step, decorator, "@migration says no graph", _HINT))
            return None
        return _literals(step, decorator)
    hint = _HINT if known else f"write 'from changeover import migration', and {_HINT.removeprefix('write ')}"
    step.problems.append(_at(step, up, "up is not decorated with @migration", hint))
    return None


def _literals(step: PythonStep, call: ast.Call) -> dict[str, Any] | None:
    before = len(step.problems)
    for each in call.args:
        step.problems.append(_at(step, each, "@migration takes named arguments alone", 'such as graph="helpdesk"'))
    root = _node({}, call, [])
    for keyword in call.keywords:
        value = _value(step, keyword.value)
        if keyword.arg is None:
            step.problems.append(_at(step, keyword.value, "'**' is no literal", _LITERAL))
        elif value is not None:
            root.data[keyword.arg] = value.data
            end = keyword.col_offset + len(keyword.arg)
            key = Node(keyword.arg, _marks(keyword.lineno, keyword.col_offset, keyword.lineno, end), None)
            root.children.append((key, value))  # type: ignore[union-attr]
    step.document = Document(step.document.path, step.document.text, root, lines=step.document.lines)
    return root.data if len(step.problems) == before else None


def _value(step: PythonStep, value: ast.expr) -> Node | None:
    """A literal with the place it stands at, its parts included; None, with a problem, for anything else."""
    if isinstance(value, ast.Dict):
        return _mapping(step, value)
    if isinstance(value, ast.List | ast.Tuple):
        items = [_value(step, item) for item in value.elts]
        known = [item for item in items if item is not None]
        return _node([item.data for item in known], value, known) if len(known) == len(items) else None
    try:
        data = ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        step.problems.append(_at(step, value, f"'{_shown(value)}' is no literal", _LITERAL))
        return None
    if isinstance(data, set | bytes | complex):
        hint = "write text, numbers, true or false, lists and dicts"
        step.problems.append(_at(step, value, f"'{_shown(value)}' cannot be stored", hint))
        return None
    return _node(data, value, None)


def _mapping(step: PythonStep, value: ast.Dict) -> Node | None:
    node, complete = _node({}, value, []), True
    for key, item in zip(value.keys, value.values, strict=True):
        inner = _value(step, item)
        if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
            step.problems.append(_at(step, key or item, "a key should be text, written out", _LITERAL))
            complete = False
        elif inner is None:
            complete = False
        else:
            node.data[key.value] = inner.data
            node.children.append((_node(key.value, key, None), inner))  # type: ignore[union-attr]
    return node if complete else None


def _node(data: Any, place: ast.expr, children: list[Any] | None) -> Node:
    end_line, end_column = place.end_lineno or place.lineno, place.end_col_offset or place.col_offset + 1
    return Node(data, _marks(place.lineno, place.col_offset, end_line, end_column), children)


def _marks(line: int, column: int, end_line: int, end_column: int) -> Any:
    start, end = SimpleNamespace(line=line - 1, column=column), SimpleNamespace(line=end_line - 1, column=end_column)
    return SimpleNamespace(start_mark=start, end_mark=end)


def _at(step: PythonStep, place: Any, message: str, hint: str) -> Problem:
    width = place.end_col_offset - place.col_offset if place.end_lineno == place.lineno else 1
    if isinstance(place, ast.FunctionDef | ast.AsyncFunctionDef):
        width = len("def ") + len(place.name)
    found = step.document.lines.place(place.lineno, place.col_offset + 1, width)
    path = step.document.path
    return Problem("migration-code", message, path, found.line, found.column, hint, text=found.text, width=found.width)


def _shown(value: ast.expr) -> str:
    text = ast.unparse(value)
    return text if len(text) <= 40 else text[:37] + "..."
