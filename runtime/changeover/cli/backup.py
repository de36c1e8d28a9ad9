"""`backup` and `restore`: all state into one file, and back.

They work on the database itself, whether or not a server uses it; with `--url` a backup comes from that server.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from changeover.cli import output
from changeover.cli.options import Options
from changeover.errors import InvalidRequest
from changeover.settings import Settings

File = Annotated[Path, typer.Argument(metavar="FILE", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]


def backup(options: Options, file: File, force: Force = False) -> None:
    """Copy all state into one file, also while a server uses it."""
    target = file.absolute()
    with output.progress("copying"):
        made = _made(options, target, force)
    if options.json:
        output.document(made)
    else:
        output.line(f"{target} holds {_told(made)}")


def restore(options: Options, file: File, force: Force = False) -> None:
    """Put a backup in the place of the database, while no server uses that."""
    if options.url:
        raise InvalidRequest(
            "--url: a backup is restored where the database is",
            code="unsupported",
            hint="leave it out, or unset CHANGEOVER_URL",
        )
    with output.progress("restoring"):
        made, old = _restored(options, file.absolute(), force)
    if options.json:
        output.document({**made, "before": old})
        return
    output.line(f"restored {_told(made)}")
    if old:
        output.say(f"what was there before is {old}")


def _made(options: Options, target: Path, force: bool) -> dict[str, Any]:
    if options.url:
        return _downloaded(options, target, force)
    from changeover.store.backup import back_up

    return back_up(_address(options), target, force=force).to_json()


def _restored(options: Options, source: Path, force: bool) -> tuple[dict[str, Any], str | None]:
    from changeover.store.backup import put_back

    found, old = put_back(source, _address(options), force=force)
    return found.to_json(), str(old) if old else None


def _downloaded(options: Options, target: Path, force: bool) -> dict[str, Any]:
    from changeover.cli.client import Client, ask
    from changeover.store.backup import arriving, examined_of_either_kind

    with arriving(target, force=force) as partial:

        async def work(client: Client) -> None:
            with partial.open("wb") as stream:
                async for chunk in client.download("/admin/backup"):
                    stream.write(chunk)

        ask(options, work)
        found = examined_of_either_kind(partial).to_json()
    return {**found, "path": str(target)}


def _address(options: Options) -> Path | str:
    return Settings.load(None, {"database": options.database}).database_address(options.folder)


def _told(made: dict[str, Any]) -> str:
    rows: dict[str, int] = made["rows"]
    counted = ", ".join(f"{rows.get(name, 0)} {name}" for name in ("versions", "threads", "runs"))
    return f"{counted} ({made['size_bytes'] / 1_000_000:.1f} MB)"
