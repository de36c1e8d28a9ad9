"""`doctor`: what is wrong with this installation, and every setting with its source."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from changeover import __version__
from changeover.cli import output
from changeover.cli.finding import database_address, running_server
from changeover.cli.options import Options
from changeover.cli.project import Folder
from changeover.errors import ChangeoverError

if TYPE_CHECKING:
    from changeover.settings import Settings

State = Literal["ok", "warning", "problem"]

CONNECT_TIMEOUT_S = 3
MIN_FREE_BYTES = 500_000_000
PACKAGES = (
    "langgraph",
    "langgraph-checkpoint-sqlite",
    "langgraph-sdk",
    "langchain",
    "langchain-core",
    "fastapi",
    "uvicorn",
)
PROVIDERS = (
    *("anthropic", "aws", "deepseek", "fireworks", "google_genai", "google_vertexai", "groq", "huggingface"),
    *("mistralai", "nvidia_ai_endpoints", "ollama", "openai", "together", "xai"),
)


@dataclass(frozen=True)
class Finding:
    check: str
    state: State
    detail: str
    hint: str = ""

    def to_json(self) -> dict[str, str]:
        return {"check": self.check, "state": self.state, "detail": self.detail, "hint": self.hint}


def doctor(options: Options, folder: Folder = None) -> None:
    """What is wrong with this installation, and every setting with its source."""
    chosen = Options(project=folder).over(options)
    settings, wrong = _settings(chosen)
    findings = [*_installation(), *wrong, *_place(chosen, settings)]
    rows = settings.rows() if settings else []
    ill = any(finding.state == "problem" for finding in findings)
    if options.json:
        output.document({"ok": not ill, "checks": [one.to_json() for one in findings], "settings": rows})
    else:
        _show(findings, rows)
    if ill:
        raise typer.Exit(1)


def _settings(options: Options) -> tuple[Settings | None, list[Finding]]:
    from changeover.manager import GraphVersionManager

    try:
        return GraphVersionManager.open(options.folder, options.database, token=options.token).settings, []
    except ChangeoverError as error:
        return None, [Finding("settings", "problem", error.message, error.hint or "")]


def _installation() -> Iterator[Finding]:
    ok = sys.version_info >= (3, 11)
    yield Finding(
        "python", "ok" if ok else "problem", platform.python_version(), "" if ok else "use Python 3.11 or newer"
    )
    yield Finding("changeover", "ok", __version__)
    for name in PACKAGES:
        try:
            yield Finding(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "problem", "not installed", f"pip install {name}")
    installed = [name for name in PROVIDERS if util.find_spec(f"langchain_{name}")]
    hint = "" if installed else "only demo:rules answers; install one, such as changeover[openai]"
    yield Finding("model providers", "ok", ", ".join(installed) or "none", hint)


def _place(options: Options, settings: Settings | None) -> Iterator[Finding]:
    folder = options.folder
    yield _project(folder)
    if not folder.is_dir() or settings is None:
        return
    try:
        server = running_server(options)
        where = database_address(options)
    except ChangeoverError as error:
        yield Finding("database", "problem", error.message, error.hint or "")
        return
    if isinstance(where, str):
        yield _postgres(where)
    else:
        yield _database(where, server)
        yield _room(where)
    yield _port(settings, server)
    yield _watching(settings)


def _project(folder: Path) -> Finding:
    if not folder.is_dir():
        return Finding("project", "problem", f"{folder} is not a folder", "name one with --project")
    from changeover.cli.project import find_problems

    try:
        problems = find_problems(folder)
    except ChangeoverError as error:
        return Finding("project", "problem", error.message, error.hint or "")
    errors = sum(problem.severity == "error" for problem in problems)
    if errors:
        return Finding("project", "problem", f"{folder} has {errors} problems", "see `changeover check`")
    return Finding("project", "ok", str(folder))


def _database(path: Path, server: str | None) -> Finding:
    """Openable, without making one: what is missing can be made if its folder can be written."""
    if server:
        return Finding("database", "ok", f"{path}, in use by the server at {server}")
    above = _existing(path.parent)
    if not os.access(above, os.W_OK | os.X_OK):
        return Finding(
            "database", "problem", f"{above} cannot be written", "give the right to, or choose another --database"
        )
    if not path.exists():
        return Finding("database", "ok", f"{path}, made at the first start")
    return _open_database(path)


def _postgres(address: str) -> Finding:
    """Reachable and writable, without making anything in it."""
    from changeover.database_address import without_password

    shown = f"Postgres, {without_password(address)}"
    try:
        import psycopg

        from changeover.store.postgres_failures import explain
        from changeover.store.postgres_schema import schema_of
        from changeover.store.postgres_session import connect
    except ImportError as error:
        return Finding("database", "problem", f"{shown}: no driver ({error})", "pip install 'changeover[postgres]'")
    try:
        connection = connect(address, timeout_s=CONNECT_TIMEOUT_S)
        try:
            schema = schema_of(connection)
            (read_only,) = connection.execute("SELECT current_setting('transaction_read_only')").fetchone()
            if read_only == "on":
                raise psycopg.errors.ReadOnlySqlTransaction
        finally:
            connection.raw.close()
    except psycopg.Error as error:
        problem = explain(error)
        return Finding("database", "problem", f"{shown}: {problem.message}", problem.hint or "")
    return Finding("database", "ok", f"{shown} ({f'schema {schema}' if schema else 'made at the first start'})")


def _open_database(path: Path) -> Finding:
    import sqlite3

    from filelock import FileLock, Timeout

    try:
        with FileLock(f"{path}.lock", blocking=False):
            connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)
            try:
                (version,) = connection.execute("PRAGMA user_version").fetchone()
            finally:
                connection.close()
    except Timeout:
        return Finding(
            "database", "warning", f"{path} is in use by another changeover process", "only one can serve it"
        )
    except (sqlite3.Error, OSError) as error:
        return Finding(
            "database", "problem", f"{path}: {error}", "restore it from a backup, or choose another --database"
        )
    return Finding("database", "ok", f"{path} (schema {version})")


def _room(path: Path) -> Finding:
    free = shutil.disk_usage(_existing(path.parent)).free
    few = free < MIN_FREE_BYTES
    hint = "free some space: versions and conversations are kept there" if few else ""
    return Finding("disk", "warning" if few else "ok", f"{free / 1e9:.1f} GB free", hint)


def _port(settings: Settings, server: str | None) -> Finding:
    place = f"{settings.host}:{settings.port}"
    if server:
        return Finding("port", "ok", f"the server answers at {server}")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            return Finding("port", "problem", f"{place}: {error.strerror or error}", "choose another with --port")
    return Finding("port", "ok", f"{place} is free")


def _watching(settings: Settings) -> Finding:
    if settings.watch_auto == "off":
        return Finding("watching", "ok", "off")
    if settings.watch_poll_s is not None:
        return Finding("watching", "ok", f"looks every {settings.watch_poll_s:g} s; a save will {settings.watch_auto}")
    from watchdog.observers import Observer

    kind: Any = Observer
    means = str(getattr(kind, "__name__", "")).removesuffix("Observer").lower() or "notifications"
    limit = _inotify_limit() if means == "inotify" else ""
    if means == "polling":
        return Finding("watching", "warning", "the system has no notifications", "set watch.poll to an interval")
    return Finding("watching", "ok", f"{means}{limit}; a save will {settings.watch_auto}")


def _inotify_limit() -> str:
    try:
        return f", {Path('/proc/sys/fs/inotify/max_user_watches').read_text().strip()} folders at most"
    except OSError:
        return ""


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _show(findings: list[Finding], rows: list[dict[str, Any]]) -> None:
    output.table(
        ("check", "state", "detail", "hint"), [(one.check, one.state, one.detail, one.hint) for one in findings]
    )
    if rows:
        output.line()
        output.table(
            ("setting", "value", "source", "variable"),
            [(row["setting"], _value(row["value"]), row["source"], row["variable"]) for row in rows],
        )


def _value(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else value
