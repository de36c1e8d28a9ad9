"""What an alert may be of: its names, the event that each stands for, and the sentence that a person gets.

Owns the words. Which alerts there are is a setting; who writes and who sends them is elsewhere. A sentence is made of
ids, names and reasons only: what people and agents said to each other is in no event, and so in no alert.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

Details = Mapping[str, Any]
EVERYTHING = "*"
TEXT_LIMIT = 500  # of a reason that is quoted
ITEMS_LIMIT = 20  # of a list that is sent
RESOURCES: Mapping[str, str] = {"mcp": "MCP server", "http": "HTTP tool"}  # kinds with other words than their names


@dataclass(frozen=True)
class Told:
    """The events that one name stands for: those of a type, and of an `action` where one is given."""

    type: str
    sentence: Callable[[Details], str]
    action: str | None = None


@dataclass(frozen=True)
class Alert:
    """Where to tell of what. `url` is as it was written, its variables unresolved; `on` are names, or `*`."""

    url: str
    on: tuple[str, ...]

    @property
    def id(self) -> str:
        """Tells an alert in the database without its address."""
        return sha256(self.url.encode()).hexdigest()[:32]

    @property
    def shown(self) -> str:
        """The address as far as it may be shown: its variable, or its host."""
        is_variable = self.url.startswith("${") and self.url.find("}") == len(self.url) - 1
        return self.url if is_variable and ":-" not in self.url else urlsplit(self.url).hostname or "(hidden)"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(NAMES) if EVERYTHING in self.on else tuple(dict.fromkeys(self.on))


def parse_alerts(value: Any) -> tuple[Alert, ...]:
    """Alerts as the settings hold them: a list of mappings, or the same as JSON. Raises `ValueError`."""
    try:
        entries = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        entries = None
    if not isinstance(entries, list | tuple):
        raise ValueError(_SHAPE)
    return tuple(entry if isinstance(entry, Alert) else _alert(entry) for entry in entries)


_SHAPE = 'a list such as [{"url": "${ALERT_URL}", "on": ["run_dead"]}]'


def _alert(entry: Any) -> Alert:
    if not isinstance(entry, Mapping) or entry.keys() != {"url", "on"} or not isinstance(entry["url"], str):
        raise ValueError(_SHAPE)
    names = entry["on"]
    if not isinstance(names, list | tuple) or not names:
        raise ValueError(_SHAPE)
    unknown = [name for name in names if name not in (*NAMES, EVERYTHING)]
    if unknown:
        raise ValueError(f"names of alerts ({', '.join(NAMES)}, or '*'), not '{str(unknown[0])[:60]}'")
    return Alert(entry["url"], tuple(names))


def sentence(name: str, details: Details, project: str, again: int) -> str:
    """What happened, for a person who is woken by it."""
    said = f"{project}: {NAMES[name].sentence(details)}"
    return said if not again else f"{said} ({again} more like this since the last alert)"


def brief(details: Details) -> dict[str, Any]:
    """Details as they are sent: of a list its beginning, of a problem not the line of the project that it quotes."""
    return {key: _brief(value) for key, value in details.items()}


def _brief(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return [
        {key: part for key, part in one.items() if key not in ("text", "width")} if isinstance(one, dict) else one
        for one in value[:ITEMS_LIMIT]
    ]


def version_in(details: Details) -> str | None:
    """The version that an event is about, where it is about one."""
    found = details.get("version") or details.get("to")
    return found if isinstance(found, str) else None


# --- the sentences -----------------------------------------------------------------------------------------------


def _version_rejected(told: Details) -> str:
    problems = [one for one in told.get("problems", ()) if one.get("severity") != "warning"]
    first = f": {_where(problems[0])}{_quoted(problems[0].get('message'))}" if problems else ""
    more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
    return f"{told.get('version')} could not be built{first}{more}. What serves goes on."


def _drain_stalled(told: Details) -> str:
    left = told.get("count", len(told.get("waiting_for", ())))
    return (
        f"{told.get('version')} is still needed by {left} runs or threads after all time to leave it was over."
        f" See `changeover holders {told.get('version')}`."
    )


def _run_dead(told: Details) -> str:
    return f"run {told.get('run_id')} on {told.get('version')} was {_quoted(told.get('reason')) or 'given up'}."


def _resource_degraded(told: Details) -> str:
    return f"{_resource(told)} does not work{_because(told)}. What needs it is told so; it is tried again."


def _resource_recovered(told: Details) -> str:
    return f"{_resource(told)} works again."


def _resource_drifted(told: Details) -> str:
    changes = "; ".join(
        f"{what}: {_quoted(', '.join(map(str, told[what])))}"
        for what in ("added", "removed", "changed")
        if told.get(what)
    )
    return f"{_resource(told)} has other tools now ({changes}). Versions keep those that they were built with."


def _resource(told: Details) -> str:
    kind = str(told.get("kind", "resource"))
    return f"{RESOURCES.get(kind, kind)} '{told.get('name')}'"


def _rolled_back(told: Details) -> str:
    return f"rolled back from {told.get('from')} to {told.get('to')} by {told.get('actor')}{_because(told)}."


def _switched(told: Details) -> str:
    return f"{told.get('to')} serves now instead of {told.get('from')}, by {told.get('actor')}{_because(told)}."


def _promotion_refused(told: Details) -> str:
    return f"{told.get('version')} was built from a save and does not serve{_because(told)}."


def _switch_vetoed(told: Details) -> str:
    return f"the {told.get('action')} to {told.get('to')} was vetoed by {told.get('hook')}{_because(told)}."


def _hook_failed(told: Details) -> str:
    return f"{told.get('call')} of {told.get('hook')} failed{_because(told)}."


def _migration_refused(told: Details) -> str:
    return f"thread {told.get('thread_id')} could not be moved to {told.get('to')}{_because(told)}."


def _migration_failed(told: Details) -> str:
    return f"the migration {told.get('operation')} to {told.get('to')} came to no end{_because(told)}."


def _handover_refused(told: Details) -> str:
    return f"run {told.get('run_id')} ends on {told.get('version')} and is not handed over{_because(told)}."


def _environment_rejected(told: Details) -> str:
    return (
        f"new values of {', '.join(told.get('variables', ()))} were not taken: what serves cannot be built with them."
    )


def _cron_failed(told: Details) -> str:
    return f"cron {told.get('cron_id')} made no run{_because(told)}."


def _webhook_failed(told: Details) -> str:
    return (
        f"the webhook of run {told.get('run_id')} was given up after {told.get('attempts')} attempts{_because(told)}."
    )


def _because(told: Details) -> str:
    reason = _quoted(told.get("reason"))
    return f": {reason}" if reason else ""


def _quoted(text: Any) -> str:
    """A reason as part of a sentence, of which it may be the end."""
    words = " ".join(str(text or "").split())
    return (words if len(words) <= TEXT_LIMIT else f"{words[:TEXT_LIMIT]}...").rstrip(".")


def _where(problem: Details) -> str:
    path, line = problem.get("path"), problem.get("line")
    return f"{path}:{line} " if path and line else f"{path} " if path else ""


NAMES: Mapping[str, Told] = {
    "version_rejected": Told("version_rejected", _version_rejected),
    "drain_stalled": Told("drain_stalled", _drain_stalled),
    "run_dead": Told("run_dead", _run_dead),
    "resource_degraded": Told("resource_degraded", _resource_degraded),
    "resource_recovered": Told("resource_recovered", _resource_recovered),
    "resource_drifted": Told("resource_drifted", _resource_drifted),
    "rolled_back": Told("routing_changed", _rolled_back, action="rollback"),
    "switched": Told("routing_changed", _switched, action="switch"),
    "promotion_refused": Told("promotion_refused", _promotion_refused),
    "switch_vetoed": Told("switch_vetoed", _switch_vetoed),
    "hook_failed": Told("hook_failed", _hook_failed),
    "migration_refused": Told("migration_refused", _migration_refused),
    "migration_failed": Told("migration_failed", _migration_failed),
    "handover_refused": Told("handover_refused", _handover_refused),
    "environment_rejected": Told("environment_rejected", _environment_rejected),
    "cron_failed": Told("cron_failed", _cron_failed),
    "webhook_failed": Told("webhook_failed", _webhook_failed),
}
