"""The options that every verb takes, before or after its name.

A verb is a function whose first argument is `Options`; `with_shared` gives it a signature in which the
shared options stand for themselves, so that its help names them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

PANEL = "For every verb"


class Format(StrEnum):
    table = "table"
    json = "json"


Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="CHANGEOVER_URL",
        metavar="URL",
        help="A running server. Without it: the one that serves the project, else none is needed.",
        rich_help_panel=PANEL,
    ),
]
Project = Annotated[
    Path | None,
    typer.Option(
        "--project",
        envvar="CHANGEOVER_PROJECT",
        metavar="DIR",
        help="The project's folder. Without it: the current one.",
        rich_help_panel=PANEL,
    ),
]
Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="Where state lives, such as sqlite:///path/to/file.db.",
        rich_help_panel=PANEL,
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TOKEN",
        help="What the server asks for; CHANGEOVER_TOKEN keeps it out of the shell's history.",
        rich_help_panel=PANEL,
    ),
]
Output = Annotated[
    Format | None,
    typer.Option("--output", "-o", help="A table, or one JSON document on stdout.", rich_help_panel=PANEL),
]
_SHARED: dict[str, Any] = {"url": Url, "project": Project, "database": Database, "token": Token, "output": Output}


@dataclass(frozen=True)
class Options:
    """Where to look and how to print. None is what nobody said."""

    url: str | None = None
    project: Path | None = None
    database: str | None = None
    token: str | None = None
    output: Format | None = None

    @property
    def folder(self) -> Path:
        return (self.project or Path()).absolute()

    @property
    def json(self) -> bool:
        return self.output is Format.json

    def over(self, before: Options) -> Options:
        """These options; those of `before` where nothing was said here."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(before, **{name: value for name, value in said.items() if value is not None})


def shared(**values: Any) -> Options:
    return Options(**values)


def with_shared(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb as typer takes it: its own parameters, and the shared ones after them."""
    hints = get_type_hints(verb, include_extras=True)
    own = [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(verb).parameters.items()
        if name != "options"
    ]

    @functools.wraps(verb)
    def command(**given: Any) -> None:
        context: typer.Context = given.pop("context")
        after = Options(**{name: given.pop(name) for name in _SHARED})
        verb(after.over(context.obj or Options()), **given)

    parameters = [
        inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        *own,
        *(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in _SHARED.items()
        ),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del command.__wrapped__
    return command
