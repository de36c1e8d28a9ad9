"""Names that are counted by. They may come from anywhere, so there are only so many, each only so long.

Invariant: of one kind, on one graph of one version, at most `NAMES_LIMIT` pairs of agent and name are told apart by
this process; what comes after them is `other`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

NAMES_LIMIT = 50
NAME_LIMIT_CHARS = 100
PLACES_LIMIT = 2_000  # graphs of versions; those that were used longest ago are forgotten
OTHER = "other"
UNKNOWN = "unknown"

Place = tuple[str, str, str]  # version, graph, kind


class Labels:
    """Asked by callbacks in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[Place, set[tuple[str, str]]] = OrderedDict()

    def remember(self, known: Iterable[tuple[str, str, str, str, str]]) -> None:
        """These are counted already: version, graph, kind, agent and name of each."""
        for version, graph, kind, agent, name in known:
            if name != OTHER:
                self._names((version, graph, kind)).add((agent, name))

    def of(self, place: Place, agent: object, name: object) -> tuple[str, str]:
        """What an agent and a name are counted as."""
        pair = (label(agent), label(name) or UNKNOWN)
        with self._lock:
            names = self._names(place)
            if pair in names:
                return pair
            if len(names) >= NAMES_LIMIT:
                return "", OTHER
            names.add(pair)
        return pair

    def _names(self, place: Place) -> set[tuple[str, str]]:
        names = self._known.get(place)
        if names is None:
            names = self._known[place] = set()
            if len(self._known) > PLACES_LIMIT:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(place)
        return names


def label(name: object) -> str:
    """A name as it can be stored and shown: one line, not long; '' where it is none."""
    if not isinstance(name, str):
        return ""
    return "".join(char if char.isprintable() else "?" for char in name[:NAME_LIMIT_CHARS])
