"""The packages that a project asks for: what its files say, line by line, and what of a line is not taken.

A line names a package, its extras and releases, a marker and hashes. Everything else that pip reads (options, other
files, folders, addresses) is refused with its position: where packages come from is for who runs the server to say.
Installs nothing and asks no index.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from changeover.project.installed import applies, lack_of
from changeover.project.langgraph import LangGraphFile, pyproject, texts
from changeover.project.problems import Problem
from changeover.project.validate import shown

REQUIREMENTS_FILE = "requirements.txt"
MAX_REQUIREMENTS = 500
MAX_BYTES = 200_000
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_OPTION = re.compile(r"\s(?=-)")
_HASH = re.compile(r"--hash[=\s]\s*(?P<hash>[a-z0-9]{3,10}:[0-9a-f]{32,128})")
_PASSWORD = re.compile(r"://[^/\s@:]*:(?!\$\{)[^/\s@]+@")
_PLACES = ("-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--no-index", "--trusted-host")


@dataclass(frozen=True)
class Wanted:
    """A requirement and the place that asks for it; `place` is a problem that stands there."""

    requirement: Requirement
    place: Problem
    hashes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def text(self) -> str:
        """The requirement in one spelling, without its marker."""
        return _plain(self.requirement)

    @property
    def line(self) -> str:
        """The requirement as an installer reads it, with its hashes."""
        return " ".join((self.text, *(f"--hash={found}" for found in self.hashes)))

    def problem(self, code: str, message: str, hint: str = "") -> Problem:
        return replace(self.place, code=code, message=message, hint=hint)


@dataclass(frozen=True)
class RequirementsFile:
    """What a file asks for in this Python, and the lines that are not taken."""

    wanted: tuple[Wanted, ...] = ()
    refused: tuple[Problem, ...] = ()


def read_requirements(path: str, content: bytes) -> RequirementsFile:
    if len(content) > MAX_BYTES:
        message = f"{path} has {len(content):,} bytes, at most {MAX_BYTES:,} are read"
        return RequirementsFile(refused=(Problem("requirement-syntax", message, path, hint="name what is needed"),))
    wanted: list[Wanted] = []
    refused: list[Problem] = []
    for place, text in _lines(path, content):
        found = _read_line(place, text)
        if isinstance(found, Problem):
            refused.append(found)
        elif applies(found.requirement):
            wanted.append(found)
    for surplus in wanted[MAX_REQUIREMENTS : MAX_REQUIREMENTS + 1]:
        refused.append(surplus.problem("requirement-syntax", f"at most {MAX_REQUIREMENTS} requirements are read"))
    return RequirementsFile(tuple(wanted[:MAX_REQUIREMENTS]), tuple(refused))


def requirements_of(files: Mapping[str, bytes], langgraph: LangGraphFile | None) -> RequirementsFile:
    """All that a project asks for: its requirements.txt, and what langgraph.json and its folders name.

    Lines of a dependency folder that are not taken are left out: they are for another installer.
    """
    own = read_requirements(REQUIREMENTS_FILE, files.get(REQUIREMENTS_FILE, b""))
    if langgraph is None:
        return own
    wanted = [*own.wanted]
    data = langgraph.document.data if langgraph.packages else {}
    for index, item in enumerate(data.get("dependencies", ())):
        if isinstance(item, str) and item.strip() in langgraph.packages:
            wanted += _at(langgraph.document.problem("", "", "dependencies", index), [item.strip()])
    for folder in langgraph.folders:
        wanted += wanted_by_folder(folder, files)
    return RequirementsFile(tuple(wanted[:MAX_REQUIREMENTS]), own.refused)


def wanted_by_folder(folder: str, files: Mapping[str, bytes]) -> list[Wanted]:
    """What the pyproject.toml and, but for the project's own, the requirements.txt of a folder ask for."""
    project = pyproject(folder, files).get("project")
    path = f"{folder}/pyproject.toml" if folder else "pyproject.toml"
    listed = texts(project.get("dependencies"))[:MAX_REQUIREMENTS] if isinstance(project, dict) else []
    wanted = _at(Problem("", "", path), listed)
    if folder:
        inner = f"{folder}/{REQUIREMENTS_FILE}"
        wanted += read_requirements(inner, files.get(inner, b"")).wanted
    return [found for found in wanted if applies(found.requirement)][:MAX_REQUIREMENTS]


def wrong_with(text: str) -> str | None:
    """What is wrong with what is installed, in words; empty where it fits, None where the text names no package."""
    try:
        lack = lack_of(Requirement(text))
    except InvalidRequirement:
        return None
    return lack.message if lack else ""


def install_command(requirements: Iterable[str]) -> str:
    return f"install it: {sys.executable.rpartition('/')[2]} -m pip install {' '.join(map(shlex.quote, requirements))}"


def _at(place: Problem, lines: Iterable[str]) -> list[Wanted]:
    found: list[Wanted] = []
    for line in lines:
        try:
            found.append(Wanted(Requirement(line), place))
        except InvalidRequirement:
            continue
    return found


def _lines(path: str, content: bytes) -> Iterator[tuple[Problem, str]]:
    """Each line with something on it, joined with those that continue it, and where it begins."""
    text, first, start = "", 0, ""
    for number, line in enumerate(content.decode("utf-8-sig", "replace").splitlines(), 1):
        if not text:
            first, start = number, line
        bare = _COMMENT.sub("", line).rstrip()
        text += bare.removesuffix("\\").strip() + " " if bare.endswith("\\") else bare
        if not bare.endswith("\\"):
            yield from _joined(path, first, start, text)
            text = ""
    yield from _joined(path, first, start, text)


def _joined(path: str, number: int, start: str, text: str) -> Iterator[tuple[Problem, str]]:
    text = text.strip()
    if text:
        column = len(start) - len(start.lstrip()) + 1
        width = max(len(_COMMENT.sub("", start).strip().removesuffix("\\").rstrip()), 1)
        quoted = "" if "://" in start else start[:300]  # an address may hold a password
        yield Problem("", "", path, number, column, text=quoted, width=width), text


def _read_line(place: Problem, text: str) -> Wanted | Problem:
    def refused(message: str, hint: str, code: str = "requirement-option") -> Problem:
        return replace(place, code=code, message=message, hint=hint)

    if _PASSWORD.search(text):
        hint = "take it out; the addresses of indexes are given to the server, such as in UV_DEFAULT_INDEX"
        return refused("this looks like a password written out", hint, "secret-literal")
    head, *options = (part.strip() for part in _OPTION.split(f" {text}") if part.strip())
    if head.startswith("-"):
        option = re.split(r"[=\s]", head, maxsplit=1)[0]
        return refused(f"the option '{shown(option)}' is not taken", _instead_of(option))
    if any(re.split(r"[=\s]", option, maxsplit=1)[0] != "--hash" for option in options):
        return refused("of the options of a requirement only '--hash' is taken", "leave the others out")
    hashes = [_HASH.fullmatch(option) for option in options]
    if None in hashes:
        hint = "write --hash=sha256: and the 64 hexadecimal digits that `pip hash` prints for the file"
        return refused("a '--hash' is not an algorithm and its whole digest", hint, "requirement-syntax")
    try:
        requirement = Requirement(head)
    except InvalidRequirement:
        if "://" in head or head.startswith((".", "/")):
            return refused("a folder or an address is not taken", "name the package and its release")
        return refused(f"'{shown(head)}' names no package", "write name==1.2 or name>=1,<2", "requirement-syntax")
    if any(part.operator == "===" for part in requirement.specifier):
        return refused("'===' is not taken", "write ==", "requirement-syntax")
    return Wanted(requirement, place, tuple(found["hash"] for found in hashes if found))


def _instead_of(option: str) -> str:
    if option in _PLACES:
        return "where packages come from is given to the server: UV_DEFAULT_INDEX, UV_INDEX, UV_FIND_LINKS, or uv.toml"
    if option in ("-r", "--requirement", "-c", "--constraint"):
        return "write its lines into requirements.txt"
    if option in ("-e", "--editable"):
        return "the project's own code is imported from its folder as it is"
    return "leave it out"


def _plain(requirement: Requirement) -> str:
    extras = f"[{','.join(sorted(map(canonicalize_name, requirement.extras)))}]" if requirement.extras else ""
    return f"{canonicalize_name(requirement.name)}{extras}{','.join(sorted(map(str, requirement.specifier)))}"
