"""The verb `resources`: what versions share that is live, and how it is doing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import typer

from changeover.cli import output
from changeover.cli.client import ask
from changeover.cli.options import Options

PLANNED = ("create", "replace", "close", "keep")
LISTED = 8


def resources(
    options: Options,
    id_: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="One of them, such as mcp:github.", show_default=False)
    ] = None,
    refresh: Annotated[
        bool,
        typer.Option("--refresh", help="Ask an MCP server for its tools now, for a new version; open others anew."),
    ] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Close it until --start.")] = False,
    start: Annotated[bool, typer.Option("--start", help="Open it, also one that is open.")] = False,
) -> None:
    """What versions share that is live: model clients, MCP servers, HTTP clients, plugins."""
    wanted = [verb for verb, is_wanted in (("refresh", refresh), ("stop", stop), ("start", start)) if is_wanted]
    if len(wanted) > 1 or (wanted and id_ is None):
        raise typer.BadParameter("name one resource and one thing to do with it: `resources mcp:github --refresh`")
    if id_ is None:
        found = ask(options, lambda client: client.get("/admin/resources"))
        output.document(found) if options.json else _show_all(found["resources"])
        return
    path = f"/admin/resources/{quote(id_, safe='')}"
    if wanted:
        one = ask(options, lambda client: client.post(f"{path}/{wanted[0]}", {}, patient=True))
    else:
        one = ask(options, lambda client: client.get(path))
    output.document(one) if options.json else _show_one(one)


def show_planned(planned: Mapping[str, list[str]]) -> None:
    """A line of a plan: what would be opened and closed. Nothing where all is kept."""
    told = [f"{word} {output.listed(planned[word], LISTED)}" for word in PLANNED[:3] if planned.get(word)]
    if told:
        kept = len(planned.get("keep") or [])
        output.line(f"resources: {'; '.join([*told, f'keep {kept}'])}")


def _show_all(found: list[Mapping[str, Any]]) -> None:
    if not found:
        output.line("nothing is open")
        return
    output.table(
        ("resource", "status", "since", "versions", "opened in", "restarts", "errors", "what"),
        [
            (
                one["id"],
                one["status"],
                output.ago(one["since"]),
                output.listed(one["versions"], 4),
                f"{one['open_s']:.3g} s" if one["open_s"] is not None else "",
                one["restarts"],
                one["errors"],
                _what(one),
            )
            for one in found
        ],
    )


def _show_one(one: Mapping[str, Any]) -> None:
    details = {name: value for name, value in one["details"].items() if value not in (None, [], {}, "")}
    output.fields(
        [
            ("resource", one["id"]),
            ("status", one["status"]),
            ("reason", one["reason"]),
            ("since", one["since"]),
            ("required", "yes" if one["required"] else "no"),
            ("versions", output.listed(one["versions"], 20)),
            ("opened", one["opened_at"]),
            ("opened in", f"{one['open_s']:.3g} s" if one["open_s"] is not None else ""),
            ("restarts", one["restarts"]),
            ("errors", one["errors"]),
            ("last error", one["last_error"]),
            *((name, _told(value)) for name, value in details.items() if name != "drift"),
            ("drift", _drift(one)),
        ]
    )
    version = one.get("version")
    if version and version["status"] == "current":
        output.say(f"{version['id']}, which serves, has its tools as they are now")
    elif version:
        output.say(f"{version['id']} has its tools as they are now: `changeover switch {version['id']}`")


def _what(one: Mapping[str, Any]) -> str:
    drift = _drift(one)
    return one["reason"] or (f"its tools changed ({drift}): `resources {one['id']} --refresh`" if drift else "")


def _drift(one: Mapping[str, Any]) -> str:
    drift = one["details"].get("drift") or {}
    return "; ".join(
        f"{word} {output.listed([_one_line(name) for name in names], LISTED)}" for word, names in drift.items() if names
    )


def _told(value: Any) -> str:
    if isinstance(value, list):
        return output.listed([_one_line(each) for each in value], 20)
    return _one_line(value)


def _one_line(value: Any) -> str:
    """What a server says is no part of the layout."""
    return " ".join(str(value).split())
