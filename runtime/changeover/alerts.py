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
    """The events that one name stands for: those of a type, and of an `action` where one is given.

    `sentence` has places for details, and for words that are made of them.
    """

    type: str
    sentence: str
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
    said = f"{project}: {NAMES[name].sentence.format_map(_Words(details))}"
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


class _Words(dict[str, Any]):
    """What stands in a sentence: a detail as it is, or what `_MADE` makes of the details."""

    def __missing__(self, name: str) -> Any:
        return _MADE[name](self) if name in _MADE else None


def _first_problem(told: Details) -> str:
    problems = [one for one in told.get("problems", ()) if one.get("severity") != "warning"]
    first = f": {_where(problems[0])}{_quoted(problems[0].get('message'))}" if problems else ""
    more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
    return f"{first}{more}"


def _where(problem: Details) -> str:
    path, line = problem.get("path"), problem.get("line")
    return f"{path}:{line} " if path and line else f"{path} " if path else ""


def _the_resource(told: Details) -> str:
    kind = str(told.get("kind", "resource"))
    return f"{RESOURCES.get(kind, kind)} '{told.get('name')}'"


def _changed_tools(told: Details) -> str:
    return "; ".join(
        f"{what}: {_quoted(', '.join(map(str, told[what])))}"
        for what in ("added", "removed", "changed")
        if told.get(what)
    )


def _because(told: Details) -> str:
    reason = _quoted(told.get("reason"))
    return f": {reason}" if reason else ""


def _quoted(text: Any) -> str:
    """A reason as part of a sentence, of which it may be the end."""
    words = " ".join(str(text or "").split())
    return (words if len(words) <= TEXT_LIMIT else f"{words[:TEXT_LIMIT]}...").rstrip(".")


_MADE: Mapping[str, Callable[[Details], str]] = {
    "because": _because,
    "changed_tools": _changed_tools,
    "first_problem": _first_problem,
    "given_up": lambda told: _quoted(told.get("reason")) or "given up",
    "how_many": lambda told: str(told.get("count", len(told.get("waiting_for", ())))),
    "names": lambda told: ", ".join(told.get("variables", ())),
    "the_resource": _the_resource,
}

NAMES: Mapping[str, Told] = {
    "version_rejected": Told("version_rejected", "{version} could not be built{first_problem}. What serves goes on."),
    "drain_stalled": Told(
        "drain_stalled",
        "{version} is still needed by {how_many} runs or threads after all time to leave it was over."
        " See `changeover holders {version}`.",
    ),
    "run_dead": Told("run_dead", "run {run_id} on {version} was {given_up}."),
    "resource_degraded": Told(
        "resource_degraded",
        "{the_resource} does not work{because}. What needs it is told so; it is tried again.",
    ),
    "resource_recovered": Told("resource_recovered", "{the_resource} works again."),
    "resource_drifted": Told(
        "resource_drifted",
        "{the_resource} has other tools now ({changed_tools}). Versions keep those that they were built with.",
    ),
    "rolled_back": Told("routing_changed", "rolled back from {from} to {to} by {actor}{because}.", action="rollback"),
    "switched": Told("routing_changed", "{to} serves now instead of {from}, by {actor}{because}.", action="switch"),
    "promotion_refused": Told("promotion_refused", "{version} was built from a save and does not serve{because}."),
    "switch_vetoed": Told("switch_vetoed", "the {action} to {to} was vetoed by {hook}{because}."),
    "hook_failed": Told("hook_failed", "{call} of {hook} failed{because}."),
    "migration_refused": Told("migration_refused", "thread {thread_id} could not be moved to {to}{because}."),
    "migration_failed": Told("migration_failed", "the migration {operation} to {to} came to no end{because}."),
    "handover_refused": Told("handover_refused", "run {run_id} ends on {version} and is not handed over{because}."),
    "environment_rejected": Told(
        "environment_rejected", "new values of {names} were not taken: what serves cannot be built with them."
    ),
    "cron_failed": Told("cron_failed", "cron {cron_id} made no run{because}."),
    "webhook_failed": Told(
        "webhook_failed", "the webhook of run {run_id} was given up after {attempts} attempts{because}."
    ),
}
