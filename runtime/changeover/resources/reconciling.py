"""What a change of what is needed does to what is live: a plan, before anything is opened or closed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Name = tuple[str, str]
"""Kind and name, as the project calls it."""


@dataclass(frozen=True)
class ResourcePlan:
    """`kind:name` of each, sorted. What is replaced is opened anew before the old one is let go of."""

    create: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    replace: tuple[str, ...] = ()
    close: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """`created=1 kept=19 replaced=0 closed=1`."""
        counts = {"created": self.create, "kept": self.keep, "replaced": self.replace, "closed": self.close}
        return " ".join(f"{word}={len(names)}" for word, names in counts.items())

    def to_json(self) -> dict[str, Any]:
        return {
            "create": list(self.create),
            "keep": list(self.keep),
            "replace": list(self.replace),
            "close": list(self.close),
        }


def reconcile(before: Mapping[Name, str], after: Mapping[Name, str]) -> ResourcePlan:
    """From what is needed now to what will be; the values are equal where it is the same thing."""
    return ResourcePlan(
        create=_shown(name for name in after if name not in before),
        keep=_shown(name for name in after if before.get(name) == after[name]),
        replace=_shown(name for name in after if name in before and before[name] != after[name]),
        close=_shown(name for name in before if name not in after),
    )


def _shown(names: Any) -> tuple[str, ...]:
    return tuple(sorted(f"{kind}:{name}" for kind, name in names))
