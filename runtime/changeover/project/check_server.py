"""The server's part of changeover.yaml: every value is one that `changeover serve` would take."""

from __future__ import annotations

from typing import Any

from changeover.errors import OperatorError
from changeover.project.check_values import masked
from changeover.project.document import Document
from changeover.project.findings import Findings
from changeover.project.models import ChangeoverFile
from changeover.project.validate import read_model, shown
from changeover.settings import knobs


def check_server(findings: Findings) -> None:
    document, _ = findings.project.document_of("changeover")
    data = document.data if isinstance(document.data, dict) else {}
    for knob in knobs():
        section, _, name = knob.metadata["key"].partition(".")
        entries = data.get(section)
        if knob.metadata["in_file"] and isinstance(entries, dict) and entries.get(name) is not None:
            _value(findings, knob.metadata["parse"], entries[name], section, name)


def _value(findings: Findings, parse: Any, value: Any, section: str, name: str) -> None:
    try:
        parse(value)
    except ValueError as error:
        message = f"{section}.{name} is '{shown(str(value))}', expected {error}"
        findings.add("wrong-type", message, "changeover", section, name)


def demand_alerts(document: Document) -> None:
    """Raises `OperatorError` with the problems of the alerts in changeover.yaml: no server starts without them."""
    written = document.data.get("alerts") if isinstance(document.data, dict) else None
    if written is None:
        return
    _, problems = read_model(ChangeoverFile, document, (), {"alerts": written}, "")
    if problems:
        told = "\n".join(problem.render() for problem in masked(problems))
        raise OperatorError(
            f"changeover.yaml: its alerts cannot be read\n{told}",
            code="bad-setting",
            hint="correct it and start again",
        )
