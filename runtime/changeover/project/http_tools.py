"""What the HTTP tools of tools.yaml mean, as far as the files can tell: shared by the check and the build."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from changeover.project.arguments import Fault, read_arguments
from changeover.project.environment import REFERENCE, resolve
from changeover.project.hosts import is_private
from changeover.project.load import Project
from changeover.project.models import HttpCall, HttpOptions, ToolSpec
from changeover.project.openapi_operation import Described
from changeover.project.operations import OWN_HEADERS, Operation, is_header, is_header_value
from changeover.project.url_template import UrlTemplate
from changeover.settings import duration, size

MAX_TIMEOUT_S = 600.0
MAX_RETRIES = 10
MAX_LIMIT_BYTES = 50_000_000
_END_OF_NAME = re.compile(r"[/?#{]")


@dataclass(frozen=True)
class Options:
    """`HttpOptions` with their units."""

    timeout_s: float
    retries: int | None
    limit_bytes: int
    private: bool


def written(spec: ToolSpec) -> HttpOptions:
    """Where a tool says how its requests are made: in `http:`, or beside `openapi:`."""
    return spec.http or spec


def options(given: HttpOptions) -> tuple[Options, list[tuple[str, str]]]:
    """The options and what is wrong with them by key; a default stands in for what is wrong."""
    wrong: list[tuple[str, str]] = []
    timeout_s, limit_bytes = 30.0, 1_000_000
    try:
        timeout_s = duration(given.timeout)
        if not 0 < timeout_s <= MAX_TIMEOUT_S:
            raise ValueError(f"a duration above 0, up to {MAX_TIMEOUT_S:g}s")
    except ValueError as error:
        wrong.append(("timeout", str(error)))
    try:
        limit_bytes = size(given.limit)
        if not 0 < limit_bytes <= MAX_LIMIT_BYTES:
            raise ValueError(f"a size above 0, up to {MAX_LIMIT_BYTES // 1_000_000}MB")
    except ValueError as error:
        wrong.append(("limit", str(error)))
    if given.retries is not None and not 0 <= given.retries <= MAX_RETRIES:
        wrong.append(("retries", f"a whole number from 0 to {MAX_RETRIES}"))
    return Options(timeout_s, given.retries, limit_bytes, given.private), wrong


def call_of(call: HttpCall, spec: ToolSpec) -> tuple[Operation, list[Fault]]:
    """What a tool of the kind `http` calls, behind its base, and what is wrong with its `args`."""
    arguments, faults = read_arguments(spec.args or {}, UrlTemplate.read(call.url), call.method, call.headers)
    path = UrlTemplate.read(call.url[_end_of_base(call.url) :]).resolved({})
    return Operation(call.method, path, arguments, call.body), faults


def whole_url(spec: ToolSpec, project: Project) -> UrlTemplate:
    """What is written of the URL: all of it, or what the paths of operations are put behind; nothing if unknown."""
    if spec.http:
        return UrlTemplate.read(spec.http.url)
    if spec.base_url is not None:
        return UrlTemplate((spec.base_url.rstrip("/"),))
    server = project.openapi.description(spec.openapi or "").server.rstrip("/")
    return UrlTemplate((server.replace("${", "$${"),)) if server else UrlTemplate()


def base_of(spec: ToolSpec, project: Project) -> UrlTemplate:
    """The beginning of the URL that is the client's: the server, and all that values of the environment are in."""
    if spec.http:
        return UrlTemplate.read(spec.http.url[: _end_of_base(spec.http.url)])
    return whole_url(spec, project)


def _end_of_base(url: str) -> int:
    """Where the server is named and the last value of the environment is over."""
    last = max((match.end() for match in REFERENCE.finditer(url) if match["name"]), default=url.find("://") + 3)
    end = _END_OF_NAME.search(url, last)
    return end.start() if end else len(url)


def url_fault(url: UrlTemplate, *, whole: bool, private: bool) -> str:
    """What is wrong with a resolved URL; where it is not the whole of it, paths must fit behind."""
    fault = url.fault()
    if fault:
        return fault
    if not whole and any("?" in piece for piece in url.pieces if isinstance(piece, str)):
        return "has a query, behind which no path can stand"
    if not private and is_private(url.host):
        return "leads to a private address, which is only gone to with 'private: true'"
    return ""


def chosen(spec: ToolSpec, project: Project) -> list[Described]:
    """The operations of a tool of the kind `openapi`, in the order of its file."""
    every = project.openapi.description(spec.openapi or "").operations
    if spec.operations is None:
        return every
    return [each for each in every if any(each.fits(pattern) for pattern in spec.operations)]


def header_faults(headers: Mapping[str, str], env: Mapping[str, str]) -> list[tuple[str, str]]:
    """What is wrong with headers, by name; values are not quoted. Raises `MissingVariable`."""
    wrong: list[tuple[str, str]] = []
    seen: set[str] = set()
    for name, value in headers.items():
        if not is_header(name):
            wrong.append((name, "is no name of a header"))
        elif name.lower() in OWN_HEADERS:
            wrong.append((name, "is set by the client itself"))
        elif name.lower() in seen:
            wrong.append((name, "is written twice"))
        elif not is_header_value(resolve(value, env).strip()):
            wrong.append((name, "has a line break or a letter in its value that a header cannot have"))
        seen.add(name.lower())
    return wrong
