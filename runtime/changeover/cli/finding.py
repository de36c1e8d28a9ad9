"""Where a project's state is, and which server of this machine serves it.

A server leaves its address in files next to the database: in one that the newest has, and in one of its own. A file is
believed only if its process lives and the address is one of this machine.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

from changeover.cli.options import Options
from changeover.errors import OperatorError
from changeover.processes import is_alive
from changeover.settings import Settings

SERVER_FILE = "server.json"
OWN_SERVER_FILES = "server-*.json"
SERVER_FILE_LIMIT_BYTES = 10_000
_PROJECT_MARKS = ("agents", "tools", "changeover", "graphs", "langgraph")


def running_server(options: Options) -> str | None:
    """The address of the server that serves the project, None where none does."""
    folder = _settings(options).state_folder(options.folder)
    told = (_told_in(file) for file in (folder / SERVER_FILE, *sorted(folder.glob(OWN_SERVER_FILES))))
    return next((url for url in told if url), None)


def _told_in(file: Path) -> str | None:
    try:
        with file.open("rb") as stream:
            told = json.loads(stream.read(SERVER_FILE_LIMIT_BYTES))
        url, pid = told["url"], told["pid"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    told_right = isinstance(url, str) and isinstance(pid, int) and is_alive(pid) and _is_of_this_machine(url)
    return url if told_right else None


def database_address(options: Options) -> Path | str:
    """The path of a SQLite file, or the address of a Postgres."""
    return _settings(options).database_address(options.folder)


def _settings(options: Options) -> Settings:
    return Settings.load(None, {"database": options.database})


def _is_of_this_machine(url: str) -> bool:
    """The file may have come with a folder from elsewhere: it must not lead the token to another machine."""
    try:
        host = urlsplit(url).hostname or ""
        (family, _, _, _, address), *_ = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind(address)  # only an address of this machine can be bound
    except (OSError, ValueError):
        return False
    return True


def demand_project(options: Options) -> None:
    """A folder that holds nothing of ours is a mistake, and must not get a database."""
    folder = options.folder
    if not folder.is_dir():
        raise OperatorError(f"{folder} is not a folder", code="no-project", hint="name a project with --project")
    names = {path.name.partition(".")[0] for path in folder.iterdir()}
    if names.isdisjoint(_PROJECT_MARKS) and not _has_database(options):
        raise OperatorError(
            f"{folder} holds no project",
            code="no-project",
            hint="start one with `changeover init`, or name one with --project or a server with --url",
        )


def _has_database(options: Options) -> bool:
    where = database_address(options)
    return isinstance(where, str) or where.exists()
