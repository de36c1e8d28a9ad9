"""Whose fault it is: errors of the project's own code as problems at its own file and line.

Owns the search for the innermost frame of a traceback that lies in one of the version's files. It does not decide
what is an error.
"""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Iterable
from typing import TYPE_CHECKING

from changeover.project.problems import Problem

if TYPE_CHECKING:
    from changeover.project.load import Project

_PRIVATE = re.compile(r"_changeover_[0-9a-f]{20}\.|(?<=\()/\S*/trees/[0-9a-f]{20}/")  # where a version's modules live


def problem_at(
    project: Project, code: str, message: str, *place: str | int, hint: str = "", on_key: bool = False
) -> Problem:
    """A problem at `place`: a section of the project (see `Project.document_of`) and the way inside it."""
    section, *path = place
    return project.problem(code, message, str(section), *path, hint=hint, on_key=on_key)


def own_code_problem(
    project: Project, code: str, message: str, error: BaseException, *place: str | int, on_key: bool = False
) -> Problem:
    """The problem at the project's line that raised, or at `place` in its YAML where no such line is known."""
    text = f"{message}: {_said(error)}"
    spot = _own_spot(project, error)
    if spot is None:
        return problem_at(project, code, text, *place, on_key=on_key)
    return _problem_on(project, code, text, *spot)


def stack_problem(
    project: Project, code: str, message: str, stack: Iterable[tuple[str, int]], *place: str | int, hint: str = ""
) -> Problem:
    """The problem at the innermost line of the project in a stack of (file, line), or at `place` in its YAML."""
    for filename, line in reversed(list(stack)):
        if line and (path := _own_path(project, filename)):
            return _problem_on(project, code, message, path, line, 0, hint)
    return problem_at(project, code, message, *place, hint=hint)


def _problem_on(project: Project, code: str, text: str, path: str, line: int, column: int, hint: str = "") -> Problem:
    source = _source_line(project, path, line)
    start = column or len(source) - len(source.lstrip()) + 1
    width = max(len(source.rstrip()) - start + 1, 1)
    return Problem(code, text, path, line, start, hint, text=source, width=width)


def closest(word: str, known: Iterable[str]) -> str:
    """A hint that names the known word that looks most like `word`; empty where none does."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean '{found[0]}'?" if found else ""


def _said(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    first = _PRIVATE.sub("", text.strip().splitlines()[0])[:500] if text and text.strip() else ""
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _own_spot(project: Project, error: BaseException) -> tuple[str, int, int] | None:
    if isinstance(error, SyntaxError) and error.lineno and (path := _own_path(project, error.filename or "")):
        return path, error.lineno, error.offset or 0
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.lineno and (path := _own_path(project, frame.filename)):
            return path, frame.lineno, 0
    return None


def _own_path(project: Project, filename: str) -> str | None:
    """The path of a version's file in a frame's file name, which may have a folder in front of it."""
    parts = filename.replace("\\", "/").split("/")
    for start in range(len(parts)):
        if (path := "/".join(parts[start:])) in project.files:
            return path
    return None


def _source_line(project: Project, path: str, line: int) -> str:
    lines = project.files[path].decode("utf-8", "replace").splitlines()
    return lines[line - 1] if 0 < line <= len(lines) else ""
