"""Every knob once: its section in changeover.yaml, unit, default and reason. The only reader of the environment.

A value comes from, in this order: a flag, the environment (`CHANGEOVER_…`), changeover.yaml, the default.
Where each came from is kept, for `changeover doctor`.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from changeover.alerts import Alert, parse_alerts
from changeover.database_address import SQLITE, demand_postgres, file_of, is_postgres, without_password
from changeover.errors import OperatorError

Source = Literal["flag", "environment", "file", "default"]
Parse = Callable[[Any], Any]

SECRET = ("token", "alerts")  # an address of an alert may be one
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_UNITS = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3}


def duration(value: Any) -> float:
    """`100ms`, `15m`, `7d`, or a number of seconds."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*", str(value))
    if match is None:
        raise ValueError("a duration such as 100ms, 15m or 7d")
    return float(match[1]) * _DURATION_UNITS[match[2] or "s"]


def duration_of_at_least(minimum_s: float) -> Parse:
    def parse(value: Any) -> float:
        seconds = duration(value)
        if seconds < minimum_s:
            raise ValueError(f"a duration of at least {minimum_s:g}s")
        return seconds

    return parse


def optional_duration(value: Any) -> float | None:
    return None if value in ("off", "never", False, None) else duration(value)


def size(value: Any) -> int:
    """`5MB`, or a number of bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(B|KB|MB|GB)?\s*", str(value), re.IGNORECASE)
    if match is None:
        raise ValueError("a size such as 5MB")
    return int(float(match[1]) * _SIZE_UNITS[(match[2] or "B").upper()])


def whole(minimum: int, maximum: int = 10**9) -> Parse:
    def parse(value: Any) -> int:
        try:
            number = int(str(value))
        except ValueError:
            number = minimum - 1
        if not minimum <= number <= maximum:
            raise ValueError(f"a whole number from {minimum} to {maximum}")
        return number

    return parse


def choice(*words: str, **others: str) -> Parse:
    def parse(value: Any) -> str:
        word = str(value).lower()
        word = others.get(word, word)
        if word not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return word

    return parse


def truth(value: Any) -> bool:
    words = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}
    word = str(value).strip().lower()
    if word not in words:
        raise ValueError("true or false")
    return words[word]


def text(value: Any) -> str:
    return str(value)


def words(value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, (list, tuple)) else str(value).split(",")
    return tuple(str(item).strip() for item in items if str(item).strip())


def _knob(
    default: Any, parse: Parse, key: str, reason: str, *, variable: str | None = None, in_file: bool = True
) -> Any:
    """A field with its place in changeover.yaml (`section.name`) and its variable."""
    name = variable or f"CHANGEOVER_{key.replace('.', '_').upper()}"
    metadata = {"parse": parse, "key": key, "reason": reason, "variable": name, "in_file": in_file}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """All settings of one server, in the units that their names end in."""

    host: str = _knob("127.0.0.1", text, "server.host", "loopback needs no token", variable="CHANGEOVER_HOST")
    port: int = _knob(
        2024, whole(0, 65535), "server.port", "LangGraph's own; 0 takes a free one", variable="CHANGEOVER_PORT"
    )
    cors: tuple[str, ...] = _knob((), words, "server.cors", "origins whose pages may call", variable="CHANGEOVER_CORS")
    workers: int = _knob(
        1, whole(1, 256), "server.workers", "processes that serve, on one port", variable="CHANGEOVER_WORKERS"
    )
    token: str | None = _knob(
        None, text, "token", "asked for by every route but health", variable="CHANGEOVER_TOKEN", in_file=False
    )
    database: str = _knob(
        "sqlite:///.changeover/changeover.db",
        text,
        "database",
        "where state lives; relative to the project",
        variable="CHANGEOVER_DATABASE",
        in_file=False,
    )
    log: str = _knob(
        "text", choice("text", "json"), "log", "form of log lines", variable="CHANGEOVER_LOG", in_file=False
    )

    watch_auto: str = _knob(
        "promote",
        choice("promote", "stage", "off", on="promote", true="promote", false="off", **{"1": "promote", "0": "off"}),
        "watch.auto",
        "what a save does: build and switch, build only, nothing",
        variable="CHANGEOVER_WATCH",
    )
    watch_quiet_s: float = _knob(0.1, duration, "watch.quiet", "silence after which a save is over")
    watch_poll_s: float | None = _knob(
        None, optional_duration, "watch.poll", "an interval where file events do not arrive"
    )

    rollout_drain: Literal["after", "before"] = _knob(
        "after", choice("after", "before"), "rollout.drain", "switch first, or empty the old first"
    )
    rollout_in_flight: Literal["finish", "handover", "cancel"] = _knob(
        "finish", choice("finish", "handover", "cancel"), "rollout.in_flight", "what becomes of running runs"
    )
    rollout_finish_s: float = _knob(900.0, duration, "rollout.finish", "how long a drain waits for runs to end")
    rollout_handover_s: float = _knob(
        60.0, duration, "rollout.handover", "how long it then waits for runs to be handed over"
    )
    rollout_cancel_s: float | None = _knob(
        None, optional_duration, "rollout.cancel", "after how long more what still runs is cancelled; never"
    )

    keep_versions: int = _knob(20, whole(1), "keep.versions", "newest versions that are never collected")
    keep_for_s: float = _knob(7 * 86400.0, duration, "keep.for", "idle time before a version is collected")
    keep_loaded: int = _knob(50, whole(1), "keep.loaded", "compiled versions in memory; others are rebuilt when needed")
    keep_sweep_s: float = _knob(60.0, duration, "keep.sweep", "pause between looks for threads whose time is over")

    keep_usage_s: float = _knob(
        90 * 86400.0, duration_of_at_least(3600.0), "keep.usage", "how long it is known what was used when"
    )

    limit_file_bytes: int = _knob(5_000_000, size, "limits.file", "largest file of a version")
    limit_version_bytes: int = _knob(100_000_000, size, "limits.version", "largest version")
    limit_body_bytes: int = _knob(10_000_000, size, "limits.body", "largest request body")
    limit_build_s: float = _knob(60.0, duration, "limits.build", "an import that takes longer is given up")
    limit_install_s: float = _knob(300.0, duration, "limits.install", "an install that takes longer is given up")
    limit_step_s: float = _knob(10.0, duration, "limits.step", "steps of migration that take longer are given up")

    requirements: str = _knob(
        "check",
        choice("install", "check", "off", false="off"),
        "requirements",
        "whether what requirements.txt asks for is installed for it, looked for, or neither",
    )

    runs_concurrency: int = _knob(64, whole(1), "runs.concurrency", "runs at work at once; more wait for their turn")
    runs_lease_s: float = _knob(
        10.0, duration_of_at_least(2.0), "runs.lease", "silence of a process after which another takes its runs over"
    )
    runs_max_attempts: int = _knob(
        3, whole(1), "runs.max_attempts", "processes that a run may lose before it is given up"
    )
    runs_webhook_private: bool = _knob(
        False, truth, "runs.webhook_private", "whether webhooks may go to private and loopback addresses"
    )

    edit_python: bool = _knob(
        False, truth, "edit.python", "whether code may be given and written by a request to the server"
    )

    alerts: tuple[Alert, ...] = _knob((), parse_alerts, "alerts", "what is told to somebody, and where")

    sources: Mapping[str, Source] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        file: Mapping[str, Any] | None = None,
        flags: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Settings:
        """Settings from all sources. `file` is changeover.yaml as data, `flags` are by field name.

        Raises `OperatorError` (`bad-setting`) that names the value, where it stands and what is expected.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        sources: dict[str, Source] = {}
        for knob in knobs():
            found = _look_up(knob, file or {}, flags or {}, environ)
            if found is not None:
                source, raw, place = found
                values[knob.name] = _parse(knob, raw, place)
                sources[knob.name] = source
        return cls(**values, sources=sources)

    def rows(self) -> list[dict[str, Any]]:
        """Each setting with its value, source and reason; the token only as set or not, an address without password."""
        return [
            {
                "setting": knob.metadata["key"],
                "value": self._shown(knob.name),
                "source": self.sources.get(knob.name, "default"),
                "variable": knob.metadata["variable"],
                "reason": knob.metadata["reason"],
            }
            for knob in knobs()
        ]

    def _shown(self, name: str) -> Any:
        if name == "token":
            return "set" if self.token else "not set"
        if name == "database":
            return self._shown_database()
        if name == "alerts":  # an address may be a secret
            return tuple(f"{' '.join(alert.on)} to {alert.shown}" for alert in self.alerts)
        return getattr(self, name)

    def _shown_database(self) -> str:
        try:
            self.database_address(Path())
        except OperatorError:
            return "(not valid)"  # where in it a password is cannot be told
        return without_password(self.database)

    def state_folder(self, project: Path) -> Path:
        """Where a server keeps its own files: beside its SQLite file, else in the project's `.changeover`."""
        is_file = self.database.startswith(SQLITE)
        return self.database_path(project).parent if is_file else (project / ".changeover").absolute()

    def database_address(self, project: Path) -> Path | str:
        """What the store opens: the path of a SQLite file, or the address of a Postgres, which may hold a password.

        Raises `OperatorError` (`bad-setting`) that quotes nothing of an address that is none.
        """
        if not is_postgres(self.database):
            return self.database_path(project)
        demand_postgres(self.database)
        return self.database

    def database_path(self, project: Path) -> Path:
        """The SQLite file. Raises `OperatorError` for another kind of database."""
        if not self.database.startswith(SQLITE):
            raise OperatorError(
                "--database is no address of a kind of database that is supported",
                code="bad-setting",
                hint="give one such as sqlite:///path/to/file.db or postgresql://user@host/name",
            )
        return (project / file_of(self.database)).absolute()


def knobs() -> list[dataclasses.Field[Any]]:
    return [knob for knob in dataclasses.fields(Settings) if knob.metadata]


def setting(name: str, file: Mapping[str, Any]) -> Any:
    """One setting from the environment or changeover.yaml, whatever the others are; a wrong value is passed by."""
    knob = next(knob for knob in knobs() if knob.name == name)
    for raw in (os.environ.get(knob.metadata["variable"]), in_file(knob, file)):
        with suppress(ValueError):
            if raw:
                return knob.metadata["parse"](raw)
    return knob.default


def in_file(knob: dataclasses.Field[Any], file: Mapping[str, Any]) -> Any:
    """What changeover.yaml says of a setting; None where it says nothing, or may not."""
    section, _, name = knob.metadata["key"].partition(".")
    entries = file if not name else file.get(section)
    return entries.get(name or section) if knob.metadata["in_file"] and isinstance(entries, Mapping) else None


class ProcessEnvironment:
    """The environment of the process: what its operator gave, and what langgraph.json adds for the project's code.

    Invariant: what the operator gave is never changed; what was added is taken out again.
    """

    def __init__(self) -> None:
        self._added: dict[str, str] = {}

    def given(self) -> dict[str, str]:
        """What the operator gave."""
        return {name: value for name, value in os.environ.items() if self._added.get(name) != value}

    def hold(self, values: Mapping[str, str]) -> list[str]:
        """Add these values and no others, save those whose name the operator has set. Returns what changed, by name."""
        given = self.given()
        wanted = {name: value for name, value in values.items() if name not in given}
        before, self._added = self._added, wanted
        for name in before.keys() - wanted.keys():
            if os.environ.get(name) == before[name]:
                del os.environ[name]
        os.environ.update(wanted)
        return sorted(name for name in {*before, *wanted} if before.get(name) != wanted.get(name))


def environment() -> dict[str, str]:
    """The process's environment, for `${NAME}` in project files."""
    return dict(os.environ)


def _look_up(
    knob: dataclasses.Field[Any], file: Mapping[str, Any], flags: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[Source, Any, str] | None:
    key, variable = knob.metadata["key"], knob.metadata["variable"]
    if flags.get(knob.name) is not None:
        return "flag", flags[knob.name], f"--{knob.name.replace('_', '-')}"
    if environ.get(variable):
        return "environment", environ[variable], variable
    given = in_file(knob, file)
    return None if given is None else ("file", given, f"changeover.yaml: {key}")


def _parse(knob: dataclasses.Field[Any], raw: Any, place: str) -> Any:
    try:
        return knob.metadata["parse"](raw)
    except ValueError as error:
        shown = "(hidden)" if knob.name in SECRET else repr(raw)
        raise OperatorError(
            f"{place} is {shown}, expected {error}", code="bad-setting", hint="correct it and start again"
        ) from None
