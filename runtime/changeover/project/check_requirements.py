"""The rule for requirements.txt: what it asks for is there, or is what may be installed for the project.

What the setting `requirements` says decides. `check`: everything that the server's Python lacks is a problem, an error
in a project of our own format; the requirements of a LangGraph project may name what its other installers need, so
that they are warnings there, and the import that fails is the error. `install`: only what cannot be installed is an
error: a line that is not taken, and what contradicts the packages of the server itself.
"""

from __future__ import annotations

from dataclasses import replace

from changeover.project.findings import Findings
from changeover.project.installed import lack_of
from changeover.project.problems import Problem
from changeover.project.requirements import (
    REQUIREMENTS_FILE,
    Wanted,
    install_command,
    read_requirements,
    requirements_of,
)
from changeover.project.validate import shown

REBUILD = "leave the release open, or run the project on a server that has it"


def check_requirements(findings: Findings) -> None:
    if findings.requirements == "install":
        findings.problems += _not_installable(findings)
    elif findings.requirements == "check":
        findings.problems += _missing(findings)


def _not_installable(findings: Findings) -> list[Problem]:
    found = requirements_of(findings.project.files, findings.project.langgraph)
    problems = list(found.refused)
    for wanted in found.wanted:
        lack = lack_of(wanted.requirement)
        if lack is not None and lack.installed:
            message = f"'{shown(wanted.text)}' contradicts the server itself, which has {wanted.name} {lack.installed}"
            problems.append(wanted.problem("requirement-conflict", message, REBUILD))
        elif wanted.requirement.url is not None and lack is not None:
            hint = "name its release instead"
            problems.append(wanted.problem("requirement-option", f"'{shown(wanted.text)}' has an address", hint))
    return problems


def _missing(findings: Findings) -> list[Problem]:
    files = findings.project.files
    found = read_requirements(REQUIREMENTS_FILE, files.get(REQUIREMENTS_FILE, b""))
    problems = [_unread(problem) for problem in found.refused]
    for wanted in found.wanted:
        problem = _missing_one(wanted)
        if problem is not None:
            problems.append(problem if findings.project.langgraph is None else replace(problem, severity="warning"))
    return problems


def _unread(problem: Problem) -> Problem:
    """A line that is for another installer does no harm; a secret does."""
    return problem if problem.code == "secret-literal" else replace(problem, severity="warning")


def _missing_one(wanted: Wanted) -> Problem | None:
    lack = lack_of(wanted.requirement)
    if lack is None:
        return None
    if lack.installed:
        hint = f"{install_command([wanted.text])}, and restart the server"
        return wanted.problem("requirement-conflict", f"'{shown(wanted.text)}' {lack.message}", hint)
    hint = f"{install_command([wanted.text])}, or set requirements: install in changeover.yaml"
    return wanted.problem("requirement-missing", f"'{shown(wanted.text)}' {lack.message}", hint)
