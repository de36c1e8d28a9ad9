"""Rules for single values, wherever they stand: `${NAME}` that nobody set, and secrets that are written out.

A secret that was found is masked in what problems quote: they are logged, stored and shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from changeover.project.document import Document, Lines, Node
from changeover.project.environment import names_in, without_references
from changeover.project.findings import Findings
from changeover.project.langgraph import LANGGRAPH_FILE
from changeover.project.problems import Problem

_SECRET = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-[A-Za-z0-9_-]{16,}|sk_(?:live|test)_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{20,}|AKIA[0-9A-Z]{16}|xox[abprs]-[A-Za-z0-9-]{10,}"
    r"|AIza[0-9A-Za-z_-]{35}|hf_[A-Za-z0-9]{30,}|lsv2_[a-z]{2}_[A-Za-z0-9_]{20,}"
    r"|[Bb]earer\s+[A-Za-z0-9._~+/=-]{16,}|-----BEGIN [A-Z ]*PRIVATE KEY-----)"
)
_SECRET_KEY = re.compile(r"(?:^|_)(?:api_?key|token|password|passwd|secret|authorization|access_key|private_key)$")
_PASSWORD_KEY = re.compile(r"(?:^|_)(?:password|passwd|secret)$")
_MIN_SECRET = 16
_MIN_PASSWORD = 8
_HINT = "write ${NAME}, and put the value into the environment or .env"
_TEXTS = ("description", "prompt")  # of an agent: words for people and models, where `${` means nothing


def check_values(findings: Findings) -> None:
    for known_as, document in findings.project.documents.items():
        if document.root is None or known_as.startswith("prompts/") or known_as == LANGGRAPH_FILE:
            continue  # langgraph.json: its `env` is for such values, and never part of a version
        graph = known_as.startswith(("graphs/", "migrations/"))  # `${` means nothing there
        for value, key, path in _values(document.root):
            secret = _secret(value.data, "" if graph else key)
            if secret:
                findings.problems.append(_secret_problem(document, value, secret))
            elif not graph and "${" in value.data and not (path[:1] == ("agents",) and path[2:3] and path[2] in _TEXTS):
                _missing(findings, document, value)
    for prompt in findings.project.prompts.values():
        if found := _SECRET.search(prompt.text):
            place = Lines(prompt.text).at(found.start())
            line, width = place.line + prompt.first_line - 1, len(found[0].split("\n")[0])
            message = "a prompt holds what looks like a secret"
            findings.problems.append(
                Problem("secret-literal", message, prompt.path, line, place.column, "take it out", width=width)
            )


def masked(problems: Iterable[Problem]) -> list[Problem]:
    """The problems, without the source lines on which a secret stands."""
    problems = list(problems)
    secret = {(problem.path, problem.line) for problem in problems if problem.code == "secret-literal"}
    return [
        replace(problem, text="", width=1)
        if (problem.path, problem.line) in secret and problem.code != "secret-literal"
        else problem
        for problem in problems
    ]


def _values(root: Node) -> Iterator[tuple[Node, str, tuple[str, ...]]]:
    """Every text value with the key it stands under and its path; what several aliases share comes once."""
    waiting: list[tuple[Node, str, tuple[str, ...]]] = [(root, "", ())]
    seen: set[int] = set()
    while waiting:
        node, key, path = waiting.pop()
        if isinstance(node.data, str):
            yield node, key, path
        if not node.children or id(node.children) in seen:
            continue
        seen.add(id(node.children))
        if isinstance(node.data, dict):
            waiting.extend((inner, name.data, (*path, name.data)) for name, inner in node.children)
        else:
            waiting.extend((inner, key, path) for inner in node.children)


def _secret(text: str, key: str) -> bool:
    if len(text) < _MIN_PASSWORD:
        return False
    if _SECRET.search(text):
        return True
    plain = key.lower().replace("-", "_")
    if not key or not _SECRET_KEY.search(plain):
        return False
    literal = without_references(text)
    longest = max((len(word) for word in literal.split()), default=0)
    return longest >= (_MIN_PASSWORD if _PASSWORD_KEY.search(plain) else _MIN_SECRET)


def _secret_problem(document: Document, value: Node, _: bool) -> Problem:
    line, column = value.start
    text = document.lines.line(line + 1)
    end = value.end[1] if value.end[0] == line else len(text)
    hidden = text[:column] + "*" * (end - column) + text[end:]
    message = "this looks like a secret written out"
    quoted = hidden if len(hidden) <= 300 and not _SECRET.search(hidden) else ""
    return Problem(
        "secret-literal", message, document.path, line + 1, column + 1, _HINT, text=quoted, width=max(end - column, 1)
    )


def _missing(findings: Findings, document: Document, value: Node) -> None:
    for name, default in names_in(value.data):
        if default is None and name not in findings.env:
            line, column = value.start
            at = document.lines.line(line + 1).find("${" + name, column)
            place = document.lines.place(line + 1, (at if at >= 0 else column) + 1, len(name) + 3)
            hint = f"set it, or give a default: ${{{name}:-...}}"
            findings.problems.append(
                Problem(
                    "env-missing",
                    f"the environment variable {name} is not set",
                    document.path,
                    place.line,
                    place.column,
                    hint,
                    text=place.text,
                    width=place.width,
                )
            )
