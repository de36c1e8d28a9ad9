"""Rules of the tools of the kinds `http` and `openapi`, as far as they can be told without asking anybody."""

from __future__ import annotations

from changeover.project.environment import MissingVariable
from changeover.project.findings import Findings
from changeover.project.http_tools import (
    call_of,
    chosen,
    header_faults,
    options,
    url_fault,
    whole_url,
    written,
)
from changeover.project.models import HttpCall, HttpOptions, ToolSpec
from changeover.project.operations import Operation
from changeover.project.url_template import UrlTemplate
from changeover.project.validate import shown, suggestion

_CODE = "tool-schema"
_OPTIONS = tuple(HttpOptions.model_fields)
_TAKEN_BY: dict[str, tuple[str, ...]] = {
    "with": ("python",),
    "args": ("http",),
    "description": ("python", "agent", "http"),
    "operations": ("openapi",),
    "base_url": ("openapi",),
    **dict.fromkeys(_OPTIONS, ("openapi",)),
}


def check_keys(findings: Findings, name: str, kind: str, keys: list[str]) -> None:
    """Check that a tool of this kind has no key that is for another; those would be without effect."""
    for key in keys:
        kinds = _TAKEN_BY.get(key, (kind,))
        if kind not in kinds:
            inside = " of 'http:'" if kind == "http" and key in _OPTIONS else ""
            hint = f"it is a key{inside}" if inside else f"it is for tools of the kind {', '.join(kinds)}"
            message = f"tool '{shown(name)}': a tool of the kind '{kind}' takes no '{key}'"
            findings.add("unknown-key", message, "tools", name, key, on_key=True, hint=hint)


def check_http_tool(findings: Findings, name: str, tool: ToolSpec) -> None:
    if tool.http:
        _Tool(findings, name, tool, "http").check_call(tool.http)
    elif tool.openapi:
        if name in findings.project.mcp_servers:
            message = f"'{shown(name)}' is also an MCP server; '{shown(name)}/...' would mean both"
            findings.add("duplicate-name", message, "tools", name, on_key=True, hint="rename one of them")
        _Tool(findings, name, tool).check_openapi(tool.openapi)


class _Tool:
    def __init__(self, findings: Findings, name: str, spec: ToolSpec, *inside: str) -> None:
        self._findings = findings
        self._spec = spec
        self._what = f"tool '{shown(name)}'"
        self._place = (name,)
        self._inside = (name, *inside)

    def check_call(self, call: HttpCall) -> None:
        operation, faults = call_of(call, self._spec)
        for fault in faults:
            place = (*self._place, "args", *fault.path)
            self._add(fault.message, *place, hint=fault.hint, on_key=fault.on_key)
        known = set(self._spec.args or {})
        for missing in dict.fromkeys(name for name in UrlTemplate.read(call.url).names if name not in known):
            message = f"'{{{shown(missing)}}}' in the URL is no argument"
            hint = suggestion(missing, known) or f"write args: {{{missing}: string}}"
            self._add(message, *self._inside, "url", hint=hint)
        if not self._spec.description and call.url:
            self._add("it has no description, which the model reads", *self._place, on_key=True, hint="write one")
        if call.body == "form" and not any(argument.where == "body" for argument in operation.arguments):
            self._add("it has no argument that goes into a form", *self._inside, "body")
        if call.url:
            self._url("url", whole=True)
        self._options()

    def check_openapi(self, file: str) -> None:
        findings = self._findings
        if "://" in file or "$" in file:
            hint = "save it into the project, name its folder in 'include:' of changeover.yaml, and write its path"
            self._add("the OpenAPI file should be a file of the project", *self._place, "openapi", hint=hint)
            return
        if file.startswith("/") or ".." in file.split("/"):
            hint = "name it from the project's folder, as in specs/shop.yaml"
            self._add("the OpenAPI file lies outside of the project", *self._place, "openapi", hint=hint)
            return
        message = f"{self._what}: there is no file '{shown(file)}'"
        hint = "name it from the project's folder; its folder must be in 'include:'"
        files = findings.project.files.keys()
        if not findings.known("unknown-file", message, file, files, "tools", *self._place, "openapi", hint=hint):
            return
        description = findings.project.openapi.description(file)
        findings.problems += description.problems
        if not description.problems:
            self._operations()
            self._url("base_url", whole=False)
        self._options()

    def _operations(self) -> None:
        description = self._findings.project.openapi.description(self._spec.openapi or "")
        for index, pattern in enumerate(self._spec.operations or ()):
            if not any(each.fits(pattern) for each in description.operations):
                message = f"'{shown(pattern)}' is no operation of {description.path}"
                hint = suggestion(pattern, [each.id for each in description.operations])
                self._add(message, *self._place, "operations", index, hint=hint, code="unknown-operation")
        owners: dict[str, str] = {}
        for each in chosen(self._spec, self._findings.project):
            found = description.operation(each, self._spec.headers)
            if not isinstance(found, Operation):
                self._findings.problems.append(found)
            if each.name in owners:
                message = f"the tool '{each.name}' is also {owners[each.name]}"
                hint = "give one of them another operationId, or leave it out of 'operations'"
                self._findings.problems.append(description.problem(message, *each.place, hint=hint, on_key=True))
            owners.setdefault(each.name, f"{each.method} {each.path}")

    def _url(self, key: str, *, whole: bool) -> None:
        url = whole_url(self._spec, self._findings.project)
        if not url.pieces:
            message = f"{self._spec.openapi} names no server with a host"
            self._add(message, *self._place, "openapi", hint="write base_url: https://...")
            return
        try:
            resolved = url.resolved(self._findings.env)
        except MissingVariable:
            return  # reported as env-missing
        if fault := url_fault(resolved, whole=whole, private=written(self._spec).private):
            place = (*self._inside, key) if whole or self._spec.base_url is not None else (*self._place, "openapi")
            is_form = whole and "private" not in fault
            self._add(f"its URL {fault}", *place, hint="as in https://example.com/tickets/{id}" if is_form else "")

    def _options(self) -> None:
        given = written(self._spec)
        for key, expected in options(given)[1]:
            self._add(f"'{key}' should be {expected}", *self._inside, key)
        try:
            wrong = header_faults(given.headers, self._findings.env)
        except MissingVariable:
            return  # reported as env-missing
        for header, text in wrong:
            self._add(f"header '{shown(header)}' {text}", *self._inside, "headers", header, on_key=True)

    def _add(self, message: str, *place: str | int, hint: str = "", on_key: bool = False, code: str = _CODE) -> None:
        self._findings.add(code, f"{self._what}: {message}", "tools", *place, hint=hint, on_key=on_key)
